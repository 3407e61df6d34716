package cdc

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"example.com/tiffin/cache"
	"example.com/tiffin/internal/devstack"
	"example.com/tiffin/internal/devstack/devstacktest"
)

// A walsender that is killed again and again costs nothing: the slot goes on.
func TestWalsenderKilled(t *testing.T) {
	t.Parallel()
	db := servers.Database(t)
	contract(t, db, "DEFAULT")
	g := start(t, db)
	for range 5 {
		g.agree(t)
		g.exec(t, `SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = $1`, db.Slot)
		g.exec(t, `INSERT INTO subscribers_restaurants (restaurant_id, client_id) SELECT 'r'||i, 'c'||i FROM generate_series(1,10) i`)
	}
	g.agree(t)
	g.inSync(t)
	g.unrebuilt(t)
}

// A new process with the old slot loads and goes on; the old one's changes count once.
func TestRestartLoadsAgain(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, server *devstack.Postgres) {
		db := databaseOn(t, server)
		contract(t, db, "FULL")
		for i := range 3 {
			g := start(t, db)
			g.agree(t)
			g.exec(t, `INSERT INTO subscribers_restaurants (restaurant_id, client_id) SELECT 'r'||i%7, 'c'||i FROM generate_series(1,100) i`)
			if i != 1 { // once with the index knowing, once without
				g.agree(t)
			}
			g.quit()
			g.exec(t, `DELETE FROM subscribers_restaurants WHERE id % 3 = 0`)
		}
		g := start(t, db)
		g.agree(t)
		g.unrebuilt(t)
	})
}

// A slot that was dropped, or a table or publication that was changed, is found and mended by
// a rebuild.
func TestRebuilds(t *testing.T) {
	t.Parallel()
	for reason, sql := range map[string]string{
		"slot_missing": "",
		"identity":     `ALTER TABLE subscribers_restaurants REPLICA IDENTITY FULL; DELETE FROM subscribers_restaurants WHERE restaurant_id = 'r1'`,
		"publication":  `DROP PUBLICATION tiffin; INSERT INTO subscribers_restaurants (restaurant_id, client_id) VALUES ('r1', 'unpublished')`,
		"table":        `DROP TABLE subscribers_restaurants; CREATE TABLE subscribers_restaurants (id serial PRIMARY KEY, client_id varchar NOT NULL, restaurant_id varchar NOT NULL); INSERT INTO subscribers_restaurants (restaurant_id, client_id) VALUES ('r1', 'new')`,
		"columns":      `ALTER TABLE subscribers_restaurants ALTER COLUMN client_id TYPE uuid USING gen_random_uuid(); DELETE FROM subscribers_restaurants WHERE restaurant_id = 'r1'`,
	} {
		t.Run(reason, func(t *testing.T) {
			t.Parallel()
			db, g := following(t)
			if reason == "slot_missing" {
				g.dropSlot(t)
				g.exec(t, `INSERT INTO subscribers_restaurants (restaurant_id, client_id) VALUES ('r1', 'without a slot')`)
			} else {
				db.Exec(t, sql)
			}
			// A new table is not in the publication either: whichever is seen first is the reason.
			eventually(t, "a rebuild", func() bool {
				return g.rebuilt(t, reason) > 0 || (reason == "table" && g.rebuilt(t, "publication") > 0)
			})
			g.agree(t)
			g.exec(t, `INSERT INTO subscribers_restaurants (restaurant_id, client_id) SELECT 'r2', gen_random_uuid()`)
			g.agree(t)
			g.inSync(t)
		})
	}
}

// following is a table of 100 rows that an index follows.
func following(t *testing.T) (*devstacktest.Database, *rig) {
	t.Helper()
	return followingAs(t, "DEFAULT")
}

func followingAs(t *testing.T, identity string) (*devstacktest.Database, *rig) {
	t.Helper()
	db := servers.Database(t)
	contract(t, db, identity)
	db.Exec(t, `INSERT INTO subscribers_restaurants (restaurant_id, client_id) SELECT 'r'||i%10, 'c'||i FROM generate_series(1,100) i`)
	g := start(t, db)
	g.agree(t)
	return db, g
}

func (g *rig) rebuilt(t testing.TB, reason string) float64 {
	t.Helper()
	return value(t, g.r.cfg.Metrics.rebuilds.WithLabelValues(reason))
}

// dropSlot drops the slot under the reader's hands.
func (g *rig) dropSlot(t testing.TB) {
	t.Helper()
	eventually(t, "slot dropped", func() bool {
		_, err := g.sql.Exec(t.Context(), `SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = $1 AND active`, g.db.Slot)
		if err != nil {
			t.Fatal(err)
		}
		_, err = g.sql.Exec(t.Context(), `SELECT pg_drop_replication_slot($1)`, g.db.Slot)
		return err == nil
	})
}

// After three rebuilds within an hour the reader stops with the reason.
func TestTooManyRebuildsStop(t *testing.T) {
	t.Parallel()
	db := servers.Database(t)
	contract(t, db, "DEFAULT")
	g := start(t, db)
	for range rebuildsPerHour {
		g.agree(t)
		g.inSync(t)
		was := g.one(t, `SELECT restart_lsn::text FROM pg_replication_slots WHERE slot_name = $1`, db.Slot)
		g.dropSlot(t)
		eventually(t, "a new slot", func() bool {
			return g.one(t, `SELECT max(restart_lsn)::text FROM pg_replication_slots WHERE slot_name = $1`, db.Slot) > was
		})
	}
	g.agree(t)
	g.inSync(t)
	g.dropSlot(t)
	refuses(t, g, "3 within an hour", "slot_missing")
}

// A needed column that is renamed, dropped or retyped, by itself or amid a transaction's changes, stops
// joining, with the fix; nothing is skipped, and it goes on when the column is back.
func TestLostColumnStopsAndResumes(t *testing.T) {
	t.Parallel()
	const remove, add = `DELETE FROM subscribers_restaurants WHERE %s = 'r1'`, `INSERT INTO subscribers_restaurants (%s, %s) VALUES ('r2', 'meanwhile')`
	for name, c := range map[string]struct{ spoil, restaurant, client, says, mend string }{
		"renamed":            {`RENAME client_id TO customer`, "restaurant_id", "customer", "no column client_id", `RENAME customer TO client_id`},
		"restaurant renamed": {`RENAME restaurant_id TO place`, "place", "client_id", "no column restaurant_id", `RENAME place TO restaurant_id`},
		"dropped":            {`DROP COLUMN client_id`, "restaurant_id", "", "no column client_id", `ADD COLUMN client_id varchar DEFAULT 'again'`},
		"retyped":            {`ALTER client_id TYPE bytea USING client_id::bytea`, "restaurant_id", "client_id", "TYPE text", `ALTER client_id TYPE varchar USING convert_from(client_id, 'UTF8')`},
	} {
		spoil := []string{`ALTER TABLE subscribers_restaurants ` + c.spoil, fmt.Sprintf(remove, c.restaurant)}
		if c.client != "" {
			spoil = append(spoil, fmt.Sprintf(add, c.restaurant, c.client))
		}
		within := `BEGIN; ` + fmt.Sprintf(add, "restaurant_id", "client_id") + `; ` + strings.Join(spoil, "; ") + `; COMMIT`
		for how, sql := range map[string][]string{"DEFAULT": spoil, "FULL": {within}} {
			t.Run(name+" "+how, func(t *testing.T) {
				t.Parallel()
				db, g := followingAs(t, how)
				db.Exec(t, sql...)
				g.saysWhy(t, c.says)
				eventually(t, "the index no longer counts as loaded", func() bool { return !g.r.state.isLoaded() })
				g.holds(t)
				db.Exec(t, `ALTER TABLE subscribers_restaurants `+c.mend)
				g.sql.Reset() // statements of before know the other column
				g.agree(t)
				g.inSync(t)
			})
		}
	}
}

// The column that identifies rows is needed, too, but under any name.
func TestLostIDStopsAndResumes(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ spoil, says, mend string }{
		"renamed": {`RENAME id TO number`, "", ""},
		"retyped": {`ALTER id DROP DEFAULT, ALTER id TYPE text`, "identity", `ALTER id TYPE bigint USING id::bigint`},
		"dropped": {`DROP COLUMN id`, "identity", `ADD COLUMN id serial PRIMARY KEY`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db, g := following(t)
			db.Exec(t, `ALTER TABLE subscribers_restaurants `+c.spoil)
			if c.says != "" {
				g.saysWhy(t, c.says)
				eventually(t, "the index no longer counts as loaded", func() bool { return !g.r.state.isLoaded() })
				db.Exec(t, `ALTER TABLE subscribers_restaurants `+c.mend)
			}
			g.sql.Reset() // statements of before know the other column
			g.agree(t)
			db.Exec(t, `DELETE FROM subscribers_restaurants WHERE restaurant_id = 'r1'`, `UPDATE subscribers_restaurants SET client_id = client_id || '!' WHERE restaurant_id = 'r2'`)
			g.agree(t)
			g.inSync(t)
		})
	}
}

// An idle table on a busy server releases WAL: the reported position follows the others'.
func TestIdleTableReleasesWAL(t *testing.T) {
	t.Parallel()
	db := servers.Database(t)
	contract(t, db, "DEFAULT")
	g := start(t, db)
	g.agree(t)
	g.exec(t, `CREATE TABLE busy (x text)`)
	for range 5 {
		g.exec(t, `INSERT INTO busy SELECT repeat('x', 1000) FROM generate_series(1,1000)`)
		at, err := cache.ParseLSN(g.one(t, `SELECT pg_current_wal_insert_lsn()::text`))
		if err != nil {
			t.Fatal(err)
		}
		g.exec(t, `CHECKPOINT`) // which notes where decoding can begin; by itself the server does every 15 s
		eventually(t, "no log of the others' writes held back", func() bool {
			restart, err := cache.ParseLSN(g.one(t, `SELECT restart_lsn::text FROM pg_replication_slots WHERE slot_name = $1`, db.Slot))
			return err == nil && restart >= at
		})
	}
	g.unrebuilt(t)
}

// A slot that holds back more than the budget is given up and made again, though the
// transaction that pins it goes on.
func TestRetainedWALIsBounded(t *testing.T) {
	t.Parallel()
	db := quiet(t, nil)
	contract(t, db, "DEFAULT")
	g := start(t, db, func(c *Config) { c.MaxRetainedWAL = 8 << 20 })
	g.agree(t)
	pin := db.Connect(t)
	if _, err := pin.Exec(t.Context(), `BEGIN; INSERT INTO subscribers_restaurants (restaurant_id, client_id) VALUES ('r1', 'pinned')`); err != nil {
		t.Fatal(err)
	}
	g.exec(t, `CREATE TABLE busy (x text)`)
	g.exec(t, `INSERT INTO busy SELECT repeat('x', 1000) FROM generate_series(1,20000)`)
	g.exec(t, `CHECKPOINT`)
	eventually(t, "the slot was given up", func() bool {
		return g.one(t, `SELECT count(*)::text FROM pg_replication_slots WHERE slot_name = $1 AND confirmed_flush_lsn IS NOT NULL`, db.Slot) == "0"
	})
	if _, err := pin.Exec(t.Context(), `COMMIT`); err != nil {
		t.Fatal(err)
	}
	g.agree(t)
	if got := g.clients(t, "r1"); len(got) != 1 {
		t.Errorf("clients of r1: %v", got)
	}
}

// A slot that another process moved on is noticed: what it skipped is loaded again.
func TestMovedSlotIsAGap(t *testing.T) {
	t.Parallel()
	db := servers.Database(t)
	contract(t, db, "DEFAULT")
	g := start(t, db)
	g.agree(t)
	eventually(t, "slot moved on", func() bool {
		_, err := g.sql.Exec(t.Context(), `
			DO $$ BEGIN
				PERFORM pg_terminate_backend(active_pid, 1000) FROM pg_replication_slots WHERE slot_name = '`+db.Slot+`' AND active;
				INSERT INTO subscribers_restaurants (restaurant_id, client_id) VALUES ('r1', 'skipped');
			END $$`)
		if err != nil {
			t.Fatal(err)
		}
		_, err = g.sql.Exec(t.Context(), `SELECT pg_replication_slot_advance($1, pg_current_wal_flush_lsn())`, db.Slot)
		return err == nil
	})
	g.agree(t)
	if n := value(t, g.r.cfg.Metrics.rebuilds.WithLabelValues("gap")); n != 1 {
		t.Errorf("%v rebuilds for the gap, want 1", n)
	}
	if got := g.clients(t, "r1"); len(got) != 1 {
		t.Errorf("clients of r1: %v", got)
	}
}

// A slot that is being made holds back the log, too, while it waits for a transaction that
// runs: it is given up at the budget, again and again, until that has ended.
func TestSlotInTheMakingIsBounded(t *testing.T) {
	t.Parallel()
	db := quiet(t, nil)
	contract(t, db, "DEFAULT")
	db.Exec(t, `CREATE TABLE busy (x text)`)
	pin := db.Connect(t)
	if _, err := pin.Exec(t.Context(), `BEGIN; INSERT INTO busy VALUES ('pinned')`); err != nil {
		t.Fatal(err)
	}
	const budget = 24 << 20
	g := start(t, db, func(c *Config) { c.MaxRetainedWAL, c.StatusInterval = budget, 50*time.Millisecond })
	g.saysWhy(t, "waits for the transactions that run")
	retained := func() (n int64, pid int) { // -1 without a slot
		const sql = `SELECT coalesce(max(pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn)), -1)::bigint, coalesce(max(active_pid), 0) FROM pg_replication_slots`
		if err := g.sql.QueryRow(t.Context(), sql).Scan(&n, &pid); err != nil {
			t.Fatal(err)
		}
		return n, pid
	}
	most, makers := int64(0), map[int]bool{}
	for len(makers) < 3 {
		g.exec(t, `INSERT INTO busy SELECT repeat('x', 1000) FROM generate_series(1,1000)`) // 1 MB
		now, pid := retained()
		// The guard looks at any moment, so what it sees may be the middle of a step, and one more may
		// come while the making is ended.
		if now > budget+2*busyStep {
			t.Fatalf("held back %d bytes, budget %d", now, int64(budget))
		}
		if pid != 0 {
			makers[pid] = true
		}
		most = max(most, now)
		eventually(t, "the guard looked", func() bool {
			n, maker := retained()
			return n < 0 || maker != pid || value(t, g.r.cfg.Metrics.retained) >= float64(now)
		})
	}
	if most < budget/2 {
		t.Errorf("given up at %d bytes, budget %d", most, int64(budget))
	}
	if _, err := pin.Exec(t.Context(), `COMMIT`); err != nil {
		t.Fatal(err)
	}
	g.exec(t, `INSERT INTO subscribers_restaurants (restaurant_id, client_id) VALUES ('r1', 'c')`)
	g.agree(t)
	g.inSync(t)
}

// A start that finds its slot holding back more than the budget makes another: reading on from it would
// hold back the log for as long as that takes.
func TestStartGivesUpASlotOverTheBudget(t *testing.T) {
	t.Parallel()
	db := quiet(t, nil)
	contract(t, db, "DEFAULT")
	db.Exec(t, `CREATE PUBLICATION tiffin FOR TABLE subscribers_restaurants`, `SELECT pg_create_logical_replication_slot('`+db.Slot+`', 'pgoutput')`,
		`INSERT INTO subscribers_restaurants (restaurant_id, client_id) VALUES ('r1', 'c')`, `CREATE TABLE busy (x text)`, `INSERT INTO busy SELECT repeat('x', 1000) FROM generate_series(1,4000)`)
	cfg := config(t, db)
	cfg.MaxRetainedWAL = 1 << 20
	g := build(t, db, cfg, 1<<20)
	var p prepared
	if err := p.prepare(t.Context(), &g.r.cfg, db.Connect(t)); err != nil || p.changed != "retained_wal" || p.slot.retained > cfg.MaxRetainedWAL {
		t.Errorf("a slot over the budget: %v, made again because of %q, holds back %d bytes now", err, p.changed, p.slot.retained)
	}
	g.run(t)
	g.agree(t)
}
