package cdc

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"example.com/tiffin/cache"
)

// forgetful loses every insert of one client.
type forgetful struct {
	Index
	lost *bool
}

func (f forgetful) Apply(t *cache.Txn, c cache.Commit) error {
	if !*f.lost && t.Len() == 1 {
		*f.lost = true
		t.Discard()
		return nil
	}
	return f.Index.Apply(t, c)
}

// An audit beside a running daemon and busy writers finds nothing, names what an index lost,
// and leaves no slot behind.
func TestAuditNamesEveryDifference(t *testing.T) {
	t.Parallel()
	for _, identity := range []string{"DEFAULT", "FULL"} {
		t.Run(identity, func(t *testing.T) {
			t.Parallel()
			db := servers.Database(t)
			contract(t, db, identity)
			g := start(t, db)
			g.exec(t, `INSERT INTO subscribers_restaurants (restaurant_id, client_id) SELECT 'r' || i % 50, 'c' || i / 3 FROM generate_series(1, 3000) i`)
			g.inSync(t)
			busy, stop := context.WithCancel(t.Context())
			var wg sync.WaitGroup
			for n := range 3 {
				wg.Go(func() {
					for i := 0; busy.Err() == nil; i++ {
						sql := fmt.Sprintf(`WITH gone AS (DELETE FROM subscribers_restaurants WHERE restaurant_id = 'r%d')
							INSERT INTO subscribers_restaurants (restaurant_id, client_id) SELECT 'r%d', 'w%d-' || i FROM generate_series(1, 20) i`, (i+n)%50, i%50, n)
						if _, err := g.sql.Exec(busy, sql); err != nil && busy.Err() == nil {
							t.Error(err)
							return
						}
					}
				})
			}
			for _, budget := range []int64{1, 1 << 24} { // numbers of rows, and clients
				var found []Difference
				report, err := Audit(t.Context(), config(t, db), budget, func(d Difference) error { found = append(found, d); return nil })
				if err != nil || len(found) > 0 || report.Differences != 0 || report.Restaurants == 0 || report.Position == 0 || (report.Resident > report.Restaurants/2) != (budget > 1) {
					t.Errorf("budget %d: %+v, %v, %v", budget, report, err, found)
				}
			}
			stop()
			wg.Wait()
			auditFindsLoss(t, g, db.Slot)
			if left := g.one(t, `SELECT string_agg(slot_name::text, ' ') FROM pg_replication_slots WHERE database = current_database()`); left != db.Slot {
				t.Errorf("slots %q: want %s alone", left, db.Slot)
			}
		})
	}
}

func auditFindsLoss(t *testing.T, g *rig, slot string) {
	t.Helper()
	var found []Difference
	lost := false
	ready, inserted := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(inserted)
		<-ready
		if _, err := g.sql.Exec(t.Context(), `INSERT INTO subscribers_restaurants (restaurant_id, client_id) VALUES ('lost', 'client')`); err != nil {
			t.Error(err)
		}
	}()
	var once sync.Once
	_, err := audit(t.Context(), config(t, g.db), 1<<24, func(d Difference) error { found = append(found, d); return nil },
		func(i Index) Index {
			return pauseAfterLoad{forgetful{i, &lost}, func() {
				once.Do(func() { close(ready) })
				<-inserted
			}}
		})
	if err != nil {
		t.Fatal(err)
	}
	named := slices.ContainsFunc(found, func(d Difference) bool { return d.Client == "client" })
	if !named || slices.ContainsFunc(found, func(d Difference) bool { return d.Restaurant != "lost" }) {
		t.Errorf("differences %v: want the lost row of %s, and none besides", found, slot)
	}
}

// pauseAfterLoad does something once the load's snapshot is taken and streaming begins.
type pauseAfterLoad struct {
	Index
	pause func()
}

func (p pauseAfterLoad) NewTxn() *cache.Txn {
	p.pause()
	return p.Index.NewTxn()
}

// What ends the load hopelessly ends the audit, too, and leaves no slot.
func TestAuditEndsWithItsReader(t *testing.T) {
	t.Parallel()
	db := servers.Database(t)
	contract(t, db, "DEFAULT")
	cfg := config(t, db)
	cfg.Table = "public.nosuch"
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	_, err := Audit(ctx, cfg, 1, nil)
	if err == nil || ctx.Err() != nil || !strings.Contains(err.Error(), "nosuch") {
		t.Errorf("%v, %v", err, ctx.Err())
	}
	var slots int
	if err := db.Connect(t).QueryRow(t.Context(), "SELECT count(*) FROM pg_replication_slots WHERE database = current_database()").Scan(&slots); err != nil || slots > 0 {
		t.Errorf("%d slots are left, %v", slots, err)
	}
}

// Where nothing may be made an audit makes no publication: a slot of its own, and nothing else.
func TestAuditMakesNoPublication(t *testing.T) {
	t.Parallel()
	db := servers.Database(t)
	contract(t, db, "DEFAULT")
	cfg := config(t, db)
	cfg.Setup = SetupNever
	audit := func() error {
		_, err := Audit(t.Context(), cfg, 1<<20, func(d Difference) error { return fmt.Errorf("%+v", d) })
		return err
	}
	if err := audit(); err == nil || !strings.Contains(err.Error(), "run slotsetup apply") {
		t.Errorf("an audit without a publication: %v", err)
	}
	g := build(t, db, cfg, 1<<20)
	if n := g.one(t, `SELECT count(*)::text FROM pg_publication`); n != "0" {
		t.Errorf("%s publications were made", n)
	}
	db.Exec(t, `CREATE PUBLICATION tiffin FOR TABLE subscribers_restaurants`)
	if err := audit(); err != nil {
		t.Error(err)
	}
	if n := g.one(t, `SELECT count(*)::text FROM pg_replication_slots WHERE database = current_database()`); n != "0" {
		t.Errorf("%s slots are left", n)
	}
}

// The daemon's slot stays, whatever it is called.
func TestAuditLeavesTheDaemonsSlot(t *testing.T) {
	t.Parallel()
	db := servers.Database(t)
	contract(t, db, "DEFAULT")
	cfg := config(t, db)
	cfg.Slot = db.Slot + auditSuffix
	db.Exec(t, "CREATE PUBLICATION tiffin FOR TABLE subscribers_restaurants", "SELECT pg_create_logical_replication_slot('"+cfg.Slot+"', 'pgoutput')")
	if _, err := Audit(t.Context(), cfg, 1<<20, func(d Difference) error { return fmt.Errorf("%+v", d) }); err != nil {
		t.Error(err)
	}
	var kept bool
	err := db.Connect(t).QueryRow(t.Context(), "SELECT NOT temporary FROM pg_replication_slots WHERE slot_name = $1", cfg.Slot).Scan(&kept)
	if err != nil || !kept {
		t.Errorf("the daemon's slot is kept: %t (%v)", kept, err)
	}
	db.Exec(t, "SELECT pg_drop_replication_slot('"+cfg.Slot+"')")
}

// A slot that is made for an audit is gone with it, also if nobody is left to drop it.
func TestAuditsSlotGoesWithIt(t *testing.T) {
	t.Parallel()
	db := servers.Database(t)
	contract(t, db, "DEFAULT")
	cfg := config(t, db)
	cfg.Slot = servers.Unique(t, "audited")
	db.Exec(t, `CREATE PUBLICATION tiffin FOR TABLE subscribers_restaurants`)
	other := db.Connect(t)
	lock, err := other.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	slots := func(of string) (n int) {
		err := lock.QueryRow(t.Context(), `SELECT count(*) FROM pg_replication_slots WHERE database = current_database() AND `+of).Scan(&n)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	if _, err := lock.Exec(t.Context(), `LOCK TABLE subscribers_restaurants IN ACCESS EXCLUSIVE MODE`); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		_, err := Audit(t.Context(), cfg, 1<<20, func(d Difference) error { return fmt.Errorf("%+v", d) })
		done <- err
	}()
	eventually(t, "a slot", func() bool { return slots("true") == 1 })
	if slots("temporary") != 1 {
		t.Error("the slot would stay if the audit were killed")
	}
	if err := lock.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	eventually(t, "the end of the slot", func() bool {
		var n int
		err := other.QueryRow(t.Context(), `SELECT count(*) FROM pg_replication_slots WHERE database = current_database()`).Scan(&n)
		return err == nil && n == 0
	})
}
