package cdc

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"

	"example.com/tiffin/cache"
)

// losing is an index that loses the next transaction when it is told so.
type losing struct {
	Index
	next atomic.Bool
}

func (l *losing) Apply(t *cache.Txn, c cache.Commit) error {
	if t.Len() > 0 && l.next.CompareAndSwap(true, false) {
		t.Discard()
		return nil
	}
	return l.Index.Apply(t, c)
}

// lossyRig is a rig that can be made to lose a transaction.
func lossyRig(t *testing.T, identity string, budget int64) (*rig, *losing) {
	t.Helper()
	db := servers.Database(t)
	contract(t, db, identity)
	g := build(t, db, config(t, db), budget)
	l := &losing{Index: g.idx}
	var err error
	if g.r, err = New(config(t, db), g.src, l); err != nil {
		t.Fatal(err)
	}
	return g, l
}

func (g *rig) audit(t *testing.T) ([]Difference, AuditReport) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patient)
	defer cancel()
	var found []Difference
	report, err := g.r.AuditRunning(ctx, g.idx, AuditTo{Found: func(d Difference) error { found = append(found, d); return nil }})
	if err != nil {
		t.Fatalf("audit: %v", err)
	}
	if report.Differences != int64(len(found)) || report.Position == 0 {
		t.Errorf("%+v of %d differences", report, len(found))
	}
	return found, report
}

// An audit of a running index finds nothing while it is right, however busily the table is
// written and the index read: every answer but one state is a difference, and none is found.
func TestAuditOfARunningIndexIsNeverFalse(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		identity string
		budget   int64
	}{{"DEFAULT", 1 << 24}, {"FULL", 6000}} { // from memory; mostly read through
		t.Run(c.identity, func(t *testing.T) {
			t.Parallel()
			g, lose := lossyRig(t, c.identity, c.budget)
			g.exec(t, `INSERT INTO subscribers_restaurants (restaurant_id, client_id) SELECT 'r' || i % 50, 'c' || i / 3 FROM generate_series(1, 3000) i`)
			g.run(t)
			g.inSync(t)
			audits, resident := g.auditUnderWrites(t, 2000)
			if audits < 3 || resident == 0 {
				t.Errorf("%d audits of %d restaurants in memory prove little", audits, resident)
			}
			lose.next.Store(true)
			g.exec(t, `INSERT INTO subscribers_restaurants (restaurant_id, client_id) VALUES ('r1', 'lost')`)
			g.fence(t)
			if found, _ := g.audit(t); !slices.ContainsFunc(found, func(d Difference) bool { return d.Restaurant == "r1" }) {
				t.Errorf("a row of r1 was lost, found %v", found)
			}
		})
	}
}

// auditUnderWrites audits for as long as two writers take for so many changes.
func (g *rig) auditUnderWrites(t *testing.T, changes int) (audits int, resident int64) {
	t.Helper()
	var writers, readers sync.WaitGroup
	for n := range 2 {
		writers.Go(func() { g.scribble(t, rand.New(rand.NewPCG(11, uint64(n))), changes/2) })
	}
	written := make(chan struct{})
	go func() { writers.Wait(); close(written) }()
	readers.Go(func() {
		for i := 0; !closed(written); i++ {
			if r, err := g.idx.Lookup(t.Context(), fmt.Sprintf("r%d", i%50)); err == nil {
				r.Release()
			}
		}
	})
	for over := false; !over && !t.Failed(); audits++ {
		over = closed(written) // one more after the last change
		found, report := g.audit(t)
		if len(found) > 0 {
			t.Errorf("false differences: %v", found)
		}
		resident += report.Resident
	}
	<-written
	readers.Wait()
	return audits, resident
}

func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// scribble changes random rows, a few in a transaction, some of which are not flushed at once.
func (g *rig) scribble(t *testing.T, rnd *rand.Rand, changes int) {
	statements := []string{
		`INSERT INTO subscribers_restaurants (restaurant_id, client_id) VALUES ('r%d', 'c%d')`,
		`DELETE FROM subscribers_restaurants WHERE ctid = (SELECT ctid FROM subscribers_restaurants WHERE restaurant_id = 'r%d' AND client_id > 'c%d' LIMIT 1 FOR UPDATE SKIP LOCKED)`,
		`UPDATE subscribers_restaurants SET restaurant_id = 'r%d', client_id = 'c%d' WHERE ctid = (SELECT ctid FROM subscribers_restaurants ORDER BY id DESC LIMIT 1 FOR UPDATE SKIP LOCKED)`,
	}
	for left := changes; left > 0 && !t.Failed(); {
		batch := &pgx.Batch{}
		batch.Queue("BEGIN")
		if rnd.IntN(3) == 0 {
			batch.Queue("SET LOCAL synchronous_commit = off")
		}
		if rnd.IntN(200) == 0 {
			batch.Queue("TRUNCATE subscribers_restaurants")
		}
		for range 1 + rnd.IntN(4) {
			batch.Queue(fmt.Sprintf(statements[rnd.IntN(len(statements))], rnd.IntN(60), rnd.IntN(900)))
			left--
		}
		batch.Queue("COMMIT")
		if err := g.sql.SendBatch(t.Context(), batch).Close(); err != nil && sqlState(err) != "40P01" { // a TRUNCATE may deadlock
			t.Errorf("write: %v", err)
		}
	}
}

// What a running index lacks, or has too much, is named with its client.
func TestAuditOfARunningIndexNamesTheClient(t *testing.T) {
	t.Parallel()
	g, lose := lossyRig(t, "DEFAULT", 1<<24)
	g.exec(t, `INSERT INTO subscribers_restaurants (restaurant_id, client_id) VALUES ('r', 'a'), ('r', 'a'), ('r', 'b'), ('s', 'c')`)
	if _, err := g.r.AuditRunning(t.Context(), g.idx, AuditTo{}); !isNotReady(err) {
		t.Errorf("an audit of an index that is not loaded: %v", err)
	}
	g.run(t)
	g.inSync(t)
	for _, sql := range []string{
		`INSERT INTO subscribers_restaurants (restaurant_id, client_id) VALUES ('s', 'missing')`,
		`DELETE FROM subscribers_restaurants WHERE client_id = 'b'`,
		`DELETE FROM subscribers_restaurants WHERE id = 1`,
		`INSERT INTO subscribers_restaurants (restaurant_id, client_id) VALUES ('unheard of', 'd')`,
	} {
		lose.next.Store(true)
		g.exec(t, sql)
		g.fence(t)
	}
	found, report := g.audit(t)
	var got []string
	for _, d := range found {
		got = append(got, fmt.Sprintf("%s/%s: %s", d.Restaurant, d.Client, d.Text))
	}
	slices.Sort(got)
	want := []string{
		"r/: the index has 3 rows, the table 1",
		"r/a: the index has 2 rows, the table 1",
		"r/b: in the index, not in the table",
		"s/: the index has 1 rows, the table 2",
		"s/missing: in the table, not in the index",
		"s/missing: row 5: the index does not know its id",
	}
	// Whether an empty entry of the restaurant is still in the directory is the sweep's to decide.
	unheard := slices.DeleteFunc(slices.Clone(got), func(d string) bool { return !strings.HasPrefix(d, "unheard of/d: in the table, not in the index") })
	got = slices.DeleteFunc(got, func(d string) bool { return strings.HasPrefix(d, "unheard of/") })
	if !slices.Equal(got, want) || len(unheard) != 1 || report.Rows != 4 {
		t.Errorf("%+v\n got %q, %q\nwant %q", report, got, unheard, want)
	}
}

func isNotReady(err error) bool {
	_, is := errors.AsType[*NotReadyError](err)
	return is
}

// A TRUNCATE that comes between an audit's snapshot and its lock empties what the snapshot sees.
func TestAuditSeesATruncateBehindItsSnapshot(t *testing.T) {
	t.Parallel()
	db := servers.Database(t)
	db.Exec(t, `CREATE TABLE plain (restaurant_id text)`, `CREATE TABLE parted (restaurant_id text) PARTITION BY LIST (restaurant_id)`,
		`CREATE TABLE parted_r1 PARTITION OF parted FOR VALUES IN ('r1')`, `CREATE TABLE parted_r2 PARTITION OF parted FOR VALUES IN ('r2')`)
	for _, c := range []struct {
		table, meanwhile string
		whole            bool
	}{
		{"plain", `INSERT INTO plain VALUES ('r1')`, true},
		{"plain", `TRUNCATE plain`, false},
		{"parted", `INSERT INTO parted VALUES ('r1')`, true},
		{"parted", `TRUNCATE parted_r2`, false},
	} {
		conn := db.Connect(t)
		if _, err := conn.Exec(t.Context(), "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"); err != nil {
			t.Fatal(err)
		}
		if _, err := currentSnapshot(t.Context(), conn); err != nil {
			t.Fatal(err)
		}
		db.Exec(t, c.meanwhile)
		whole, err := locked(t.Context(), conn, tableName{"public", c.table})
		if err != nil || whole != c.whole {
			t.Errorf("%s behind the snapshot: whole %t, %v", c.meanwhile, whole, err)
		}
		if err := conn.Close(t.Context()); err != nil {
			t.Error(err)
		}
	}
}

// swapping is an index that takes rows 1 and 2 for each other from the next transaction on: as many rows
// and the same clients, but the wrong one would go with either.
type swapping struct {
	Index
	next atomic.Bool
}

func (s *swapping) Apply(t *cache.Txn, c cache.Commit) error {
	if t.Len() > 0 && s.next.CompareAndSwap(true, false) {
		if err := errors.Join(t.UpdateID(1, []byte("r1"), []byte("c2")), t.UpdateID(2, []byte("r1"), []byte("c1"))); err != nil {
			return err
		}
	}
	return s.Index.Apply(t, c)
}

// Where rows go by their id, the audit compares what the index takes each for.
func TestAuditOfARunningIndexNamesTheRow(t *testing.T) {
	t.Parallel()
	db := servers.Database(t)
	contract(t, db, "DEFAULT")
	db.Exec(t, `INSERT INTO subscribers_restaurants (id, restaurant_id, client_id) SELECT i, 'r1', 'c' || i FROM generate_series(1, 2000) i`)
	g := build(t, db, config(t, db), 64<<20)
	swap := &swapping{Index: g.idx}
	var err error
	if g.r, err = New(config(t, db), g.src, swap); err != nil {
		t.Fatal(err)
	}
	g.run(t)
	g.agree(t)
	if found, _ := g.audit(t); len(found) > 0 {
		t.Fatalf("%v: want no difference yet", found)
	}
	swap.next.Store(true)
	g.exec(t, `INSERT INTO subscribers_restaurants (id, restaurant_id, client_id) VALUES (5000, 'r2', 'c')`)
	g.agree(t) // which lookups cannot tell
	found, _ := g.audit(t)
	want := []Difference{
		{"r1", "c1", `row 1: the index takes it for restaurant "r1", client "c2"`},
		{"r1", "c2", `row 2: the index takes it for restaurant "r1", client "c1"`},
	}
	if !slices.Equal(found, want) {
		t.Errorf("%v: want %v", found, want)
	}
}
