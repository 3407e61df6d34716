package cdc

import (
	"context"
	"strings"
	"testing"
	"time"

	"example.com/tiffin/internal/devstack"
	"example.com/tiffin/internal/devstack/devstacktest"
)

// A look may fall into the middle of a step of the log's growth: what is expected next is the
// largest of the last steps, not the last.
func TestSlotIsGivenUpBeforeTheLargestStep(t *testing.T) {
	t.Parallel()
	const limit = 100
	r := newRetention()
	for _, look := range []struct {
		retained int64
		passes   bool
	}{
		{60, false}, // nothing is known yet
		{75, false}, // a step of 15
		{80, false}, // a third of one
		{86, true},  // 86 + 15, though the last was 6
	} {
		if got := r.passes(look.retained, limit); got != look.passes {
			t.Errorf("at %d of %d: %v, want %v", look.retained, limit, got, look.passes)
		}
	}
	for range r.growths {
		r.passes(86, limit)
	}
	if r.passes(86, limit) {
		t.Error("a step of long ago still counts")
	}
	if r := newRetention(); r.passes(1<<40, 0) {
		t.Error("without a limit it is given up")
	}
}

// busyStep is more log than 1,000 rows of 1,000 bytes take, unevenness by how much that varies.
const busyStep, unevenness = 1_200_000, 64 << 10

// hanging is a reader that hangs in an Apply, so that its slot holds back what is written. Its
// warden looks when it is asked to.
func hanging(t *testing.T, budget int64) (*rig, *slow) {
	t.Helper()
	db := quiet(t, map[string]string{"autovacuum": "off", "wal_sender_timeout": "0"})
	contract(t, db, "DEFAULT")
	db.Exec(t, `CREATE TABLE busy (x text)`)
	cfg := config(t, db)
	cfg.MaxRetainedWAL, cfg.StatusInterval = budget, time.Hour
	g := build(t, db, cfg, 1<<20)
	index := g.onSlow(t)
	g.run(t)
	g.agree(t)
	index.each.Store(int64(patient))
	g.exec(t, `INSERT INTO subscribers_restaurants (restaurant_id, client_id) VALUES ('r1', 'c')`)
	eventually(t, "it hangs", func() bool { return index.begun.Load() > 0 })
	return g, index
}

// retained is what the slot holds back, -1 without a slot.
func (g *rig) retained(t *testing.T) (n int64) {
	t.Helper()
	const sql = `SELECT coalesce(max(pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn)), -1)::bigint FROM pg_replication_slots`
	if err := g.sql.QueryRow(t.Context(), sql).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

// busy writes steps of log, and returns what the slot holds back then.
func (g *rig) busy(t *testing.T, steps int) int64 {
	t.Helper()
	g.exec(t, `INSERT INTO busy SELECT repeat('x', 1000) FROM generate_series(1, $1 * 1000)`, steps)
	return g.retained(t)
}

// looked has the warden look, and waits until it has found all in order, or has given the slot up.
func (g *rig) looked(t *testing.T) {
	t.Helper()
	before := g.src.footing.trusted.Load()
	g.r.askWarden()
	eventually(t, "the warden looked", func() bool {
		return g.src.footing.trusted.Load() != before || g.retained(t) < 0
	})
}

// givenUp makes sure that the slot was given up while the reader hung, and that the table is loaded
// again once it does not.
func (g *rig) givenUp(t *testing.T, index *slow) {
	t.Helper()
	eventually(t, "the slot was given up", func() bool { return g.retained(t) < 0 })
	if n := index.applied.Load(); n != 0 {
		t.Errorf("%d transactions applied: it did not hang", n)
	}
	index.each.Store(0)
	close(index.wake)
	g.agree(t)
	if n := g.rebuilt(t, "retained_wal"); n != 1 {
		t.Errorf("%v rebuilds for retained WAL, want 1", n)
	}
}

// However long the index hangs, the slot never holds back more than the budget where the log grows
// as it did between the last looks: it is given up before, while the reader still hangs.
func TestRetainedWALIsNeverAboveTheBudget(t *testing.T) {
	t.Parallel()
	const budget = 24 << 20
	g, index := hanging(t, budget)
	most := int64(0)
	for now := g.retained(t); now >= 0; now = g.retained(t) {
		if most = max(most, g.busy(t, 1)); most > budget+unevenness {
			t.Fatalf("held back %d bytes, budget %d", most, int64(budget))
		}
		g.looked(t)
	}
	if most < budget/2 {
		t.Errorf("given up at %d bytes, budget %d", most, int64(budget))
	}
	g.givenUp(t, index)
}

// A burst between two looks passes the budget by what it writes until the next, and no further:
// then the slot is given up.
func TestBurstPassesTheBudgetByOneLookOnly(t *testing.T) {
	t.Parallel()
	const budget = 24 << 20
	g, index := hanging(t, budget)
	for range 3 {
		g.busy(t, 1)
		g.looked(t)
	}
	if now := g.busy(t, 30); now <= budget {
		t.Fatalf("held back %d bytes, budget %d: no burst", now, int64(budget))
	}
	g.r.askWarden()
	g.givenUp(t, index)
}

// While others have all walsenders, the slot holds back no more than it may, and the metric says so.
func TestSlotIsSparedWithoutAWalsender(t *testing.T) {
	t.Parallel()
	server := own(t, devstack.PostgresOptions{Settings: map[string]string{"max_wal_senders": "1"}})
	db := devstacktest.NewDatabase(t, server, "app")
	contract(t, db, "DEFAULT")
	cfg := config(t, db)
	if tally, report := applied(t, cfg, server.Username(), declining); !tally.Complete() {
		t.Fatal(report)
	}
	cfg.MaxRetainedWAL = 1 << 20
	other, err := cfg.connectReplication(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = other.Close(context.WithoutCancel(t.Context())) }()
	db.Exec(t, `SELECT pg_logical_emit_message(false, 'x', repeat('x', 1000)) FROM generate_series(1, 3000)`)
	g := build(t, db, cfg, 1<<20).run(t)
	g.saysWhy(t, "max_wal_senders")
	if why := g.saysWhy(t, "fix: "); !strings.Contains(why, "pg_stat_replication") {
		t.Errorf("the fix: %s", why)
	}
	eventually(t, "the slot is given up", func() bool {
		return g.one(t, `SELECT count(*)::text FROM pg_replication_slots`) == "0"
	})
	if held := value(t, g.r.cfg.Metrics.retained); held != 0 {
		t.Errorf("the metric says %v", held)
	}
	_ = other.Close(t.Context())
	g.agree(t)
}
