package cdc

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"example.com/tiffin/cache"
	"example.com/tiffin/internal/devstack"
	"example.com/tiffin/internal/devstack/devstacktest"
)

// A slot that the server invalidated (max_slot_wal_keep_size) is made again, and the table
// loaded.
func TestInvalidatedSlotLoadsAgain(t *testing.T) {
	t.Parallel()
	server := own(t, devstack.PostgresOptions{Settings: map[string]string{"max_slot_wal_keep_size": "16MB", "min_wal_size": "32MB", "max_wal_size": "32MB"}})
	g := alone(t, server)
	g.agree(t)
	pin := g.db.Connect(t)
	if _, err := pin.Exec(t.Context(), `BEGIN; INSERT INTO subscribers_restaurants (restaurant_id, client_id) VALUES ('r1', 'pinned')`); err != nil {
		t.Fatal(err)
	}
	for range 4 { // each ends a segment of 16 MB
		g.exec(t, `SELECT pg_logical_emit_message(false, 'x', ''), pg_switch_wal()`)
	}
	g.exec(t, `CHECKPOINT`)
	if _, err := pin.Exec(t.Context(), `COMMIT`); err != nil {
		t.Fatal(err)
	}
	g.agree(t)
	if got := g.clients(t, "r1"); len(got) != 1 {
		t.Errorf("clients of r1: %v", got)
	}
	eventually(t, "a rebuild", func() bool { return g.rebuilt(t, "slot_invalidated") == 1 })
	g.agree(t)
}

// Rights that are taken away while running are named; when they are back all goes on.
func TestRightsRevokedWhileRunning(t *testing.T) {
	t.Parallel()
	db := servers.Database(t)
	contract(t, db, "DEFAULT")
	role := db.Slot
	db.Exec(t, `CREATE ROLE `+role+` LOGIN REPLICATION`, `GRANT SELECT ON subscribers_restaurants TO `+role,
		`CREATE PUBLICATION tiffin FOR TABLE subscribers_restaurants`)
	t.Cleanup(func() { dropRole(t, db, role) })
	g := start(t, db, func(c *Config) { c.DSN = db.Server.DSNFor(role, "", db.Name) })
	insert := `INSERT INTO subscribers_restaurants (restaurant_id, client_id) VALUES ('r1', 'c')`
	g.agree(t)
	g.exec(t, `REVOKE SELECT ON subscribers_restaurants FROM `+role)
	g.exec(t, insert)
	g.saysWhy(t, `GRANT SELECT ("id", "restaurant_id", "client_id", "ctid") ON "public"."subscribers_restaurants" TO "`+role+`"`)
	g.exec(t, `GRANT SELECT ON subscribers_restaurants TO `+role)
	g.agree(t)
	g.inSync(t)
	g.exec(t, `ALTER ROLE `+role+` NOREPLICATION`)
	g.exec(t, `SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = $1`, db.Slot)
	g.exec(t, insert)
	g.saysWhy(t, `ALTER ROLE "`+role+`" REPLICATION`)
	g.exec(t, `ALTER ROLE `+role+` REPLICATION`)
	g.agree(t)
	g.inSync(t)
	g.quit()
}

// A load that breaks in the middle begins anew: no row is missing, none counts twice.
func TestBrokenLoadBeginsAnew(t *testing.T) {
	t.Parallel()
	db := servers.Database(t)
	contract(t, db, "DEFAULT")
	const rows = 30000 // of 1 kB: more than the sockets on the way hold
	db.Exec(t, `INSERT INTO subscribers_restaurants (restaurant_id, client_id) SELECT 'r'||i%10, i || repeat('x', 1000) FROM generate_series(1,30000) i`)
	p := devstacktest.OpenRoute(t, db.Server.Address())
	p.StallAfter(4 << 20)
	g := start(t, db, func(c *Config) { c.DSN, c.rangePages = devstacktest.RouteDSN(t, p, c.DSN), 2000 })
	eventually(t, "stalled", p.Stalled)
	eventually(t, "a COPY in the middle was ended", func() bool {
		return g.one(t, `SELECT count(pg_terminate_backend(pid))::text FROM (SELECT pid FROM pg_stat_activity WHERE datname = $1 AND query LIKE 'COPY%' AND wait_event = 'ClientWrite' LIMIT 1) one`, db.Name) != "0"
	})
	g.saysWhy(t, "loading")
	p.Resume()
	g.agree(t)
	if n := g.idx.Stats().Subscriptions; n != rows {
		t.Errorf("%d subscriptions, want %d", n, rows)
	}
	g.exec(t, `DELETE FROM subscribers_restaurants WHERE restaurant_id <> 'r1'`)
	g.agree(t)
	g.unrebuilt(t)
}

// slow is an index that takes its time to apply.
type slow struct {
	*cache.Index
	wake      chan struct{} // ends the waiting
	each      atomic.Int64  // nanoseconds
	breathing atomic.Int64  // nanoseconds in which it shows signs of life
	begun     atomic.Int64
	applied   atomic.Int64
}

// onSlow has the rig's reader write to a slow index.
func (g *rig) onSlow(t *testing.T) *slow {
	t.Helper()
	index := &slow{Index: g.idx, wake: make(chan struct{})}
	var err error
	if g.r, err = New(g.r.cfg, g.src, index); err != nil {
		t.Fatal(err)
	}
	return index
}

func (s *slow) Apply(txn *cache.Txn, c cache.Commit) error {
	s.begun.Add(1)
	for end := time.Now().Add(time.Duration(s.breathing.Load())); time.Now().Before(end) && pause(context.Background(), 10*time.Millisecond); {
		txn.Breathe()
	}
	wait := time.NewTimer(time.Duration(s.each.Load()))
	defer wait.Stop()
	select {
	case <-wait.C:
	case <-s.wake:
	}
	s.applied.Add(1)
	return s.Index.Apply(txn, c)
}

// A consumer slower than the writers keeps its walsender, though wal_sender_timeout passes
// many times; one that hangs for longer loses it, and goes on from the slot.
func TestSlowConsumerKeepsItsWalsender(t *testing.T) {
	t.Parallel()
	db := quiet(t, map[string]string{"wal_sender_timeout": "1s"})
	contract(t, db, "DEFAULT")
	g := build(t, db, config(t, db), 1<<20)
	index := g.onSlow(t)
	g.run(t)
	g.agree(t)
	walsender := `SELECT active_pid::text FROM pg_replication_slots WHERE slot_name = $1`
	was := g.one(t, walsender, g.db.Slot)
	index.each.Store(int64(10 * time.Millisecond))
	g.exec(t, `DO $$ BEGIN FOR i IN 1..300 LOOP INSERT INTO subscribers_restaurants (restaurant_id, client_id) VALUES ('r'||i%10, 'c'||i); COMMIT; END LOOP; END $$`)
	g.agree(t)
	if now := g.one(t, walsender, g.db.Slot); now != was {
		t.Errorf("walsender %s, was %s", now, was)
	}
	index.each.Store(0)
	index.breathing.Store(int64(3 * time.Second)) // as a large transaction does
	g.exec(t, `INSERT INTO subscribers_restaurants (restaurant_id, client_id) VALUES ('r1', 'large')`)
	g.agree(t)
	index.breathing.Store(0)
	if now := g.one(t, walsender, g.db.Slot); now != was {
		t.Errorf("walsender %s, was %s before a large transaction was applied", now, was)
	}
	index.each.Store(int64(3 * time.Second)) // once: from the next on it is quick
	hung := index.applied.Load()
	g.exec(t, `DELETE FROM subscribers_restaurants WHERE restaurant_id = 'r1'`)
	eventually(t, "it hung", func() bool { return index.applied.Load() > hung })
	index.each.Store(0)
	g.exec(t, `DELETE FROM subscribers_restaurants WHERE restaurant_id = 'r2'`)
	g.agree(t)
	if now := g.one(t, walsender, g.db.Slot); now == was || now == "" {
		t.Errorf("walsender %q, was %s: the server did not lose patience", now, was)
	}
	g.unrebuilt(t)
}

// The identity NOTHING closes the table to its application's UPDATE and DELETE: that is named with
// its fix, nothing passes meanwhile, and when it is mended all goes on.
func TestIdentityNothingStopsAndResumes(t *testing.T) {
	t.Parallel()
	for _, identity := range []string{"DEFAULT", "FULL"} {
		t.Run(identity, func(t *testing.T) {
			t.Parallel()
			db, g := followingAs(t, identity)
			db.Exec(t, `ALTER TABLE subscribers_restaurants REPLICA IDENTITY NOTHING`,
				`INSERT INTO subscribers_restaurants (restaurant_id, client_id) VALUES ('r1', 'meanwhile')`)
			g.saysWhy(t, "replica identity NOTHING")
			g.saysWhy(t, `fix: ALTER TABLE "public"."subscribers_restaurants" REPLICA IDENTITY`)
			g.holds(t)
			db.Exec(t, `ALTER TABLE subscribers_restaurants REPLICA IDENTITY `+identity, `DELETE FROM subscribers_restaurants WHERE restaurant_id = 'r2'`)
			g.agree(t)
			g.inSync(t)
		})
	}
}

// holds makes sure that no fence passes.
func (g *rig) holds(t *testing.T) {
	t.Helper()
	short, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if mark, err := g.r.Wait(short); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a fence passed: %+v, %v", mark, err)
	}
}

// Who may no longer connect, or log in, is told so with the fix once a connection ends; nothing is
// lost meanwhile.
func TestConnectionRefusedWhileRunning(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ spoil, says, mend string }{
		"connect": {`REVOKE CONNECT ON DATABASE $db FROM PUBLIC, $role`, `GRANT CONNECT ON DATABASE "$db" TO "$role"`, `GRANT CONNECT ON DATABASE $db TO $role`},
		"login":   {`ALTER ROLE $role NOLOGIN`, `let role $role log in: ALTER ROLE`, `ALTER ROLE $role LOGIN`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db := servers.Database(t)
			contract(t, db, "DEFAULT")
			role := "r_" + db.Slot[2:]
			named := strings.NewReplacer("$role", role, "$db", db.Name).Replace
			db.Exec(t, `CREATE ROLE `+role+` LOGIN REPLICATION`, `GRANT SELECT ON subscribers_restaurants TO `+role,
				`CREATE PUBLICATION tiffin FOR TABLE subscribers_restaurants`)
			t.Cleanup(func() { dropRole(t, db, role) })
			g := start(t, db, func(c *Config) { c.DSN = db.Server.DSNFor(role, "", db.Name) })
			g.agree(t)
			g.exec(t, named(c.spoil))
			g.exec(t, `INSERT INTO subscribers_restaurants (restaurant_id, client_id) VALUES ('r1', 'meanwhile')`)
			g.fence(t) // over the connections that there are
			g.exec(t, `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = $1`, role)
			g.exec(t, `DELETE FROM subscribers_restaurants`)
			g.saysWhy(t, named(c.says))
			g.holds(t)
			g.exec(t, named(c.mend))
			g.agree(t)
			g.inSync(t)
			g.unrebuilt(t)
			g.quit()
		})
	}
}

// The replica identity may change while running, from any to any other, between transactions and within
// one.
func TestIdentitySwitchedWhileRunning(t *testing.T) {
	t.Parallel()
	to := map[string]string{
		"DEFAULT": `ALTER TABLE subscribers_restaurants REPLICA IDENTITY DEFAULT`,
		"FULL":    `ALTER TABLE subscribers_restaurants REPLICA IDENTITY FULL`,
		"INDEX":   `ALTER TABLE subscribers_restaurants REPLICA IDENTITY USING INDEX pair`,
	}
	changes := []string{
		`UPDATE subscribers_restaurants SET client_id = client_id || '!' WHERE restaurant_id = 'r1'`,
		`DELETE FROM subscribers_restaurants WHERE id = (SELECT max(id) FROM subscribers_restaurants)`,
		`UPDATE subscribers_restaurants SET restaurant_id = 'r1', id = id + 1000 WHERE id % 7 = 0`,
		`INSERT INTO subscribers_restaurants (restaurant_id, client_id) VALUES ('r2', 'c' || nextval('subscribers_restaurants_id_seq'))`,
	}
	all := strings.Join(changes, "; ")
	onEach(t, func(t *testing.T, server *devstack.Postgres) {
		for first := range to {
			for second := range to {
				if first == second {
					continue
				}
				t.Run(first+" to "+second, func(t *testing.T) {
					t.Parallel()
					db := databaseOn(t, server)
					contract(t, db, "INDEX")
					db.Exec(t, to[first], `INSERT INTO subscribers_restaurants (restaurant_id, client_id) SELECT 'r'||i%10, 'c'||i FROM generate_series(1,100) i`)
					g := start(t, db)
					g.agree(t)
					db.Exec(t, changes...)
					db.Exec(t, to[second])
					for _, sql := range changes {
						db.Exec(t, sql)
						g.agree(t)
					}
					db.Exec(t, `BEGIN; `+all+`; `+to[first]+`; `+all+`; COMMIT`)
					g.agree(t)
					g.inSync(t)
					want := 2.0 // from ids to pairs and back
					if first != "DEFAULT" && second != "DEFAULT" {
						want = 0 // INDEX and FULL tell the same
					}
					if n := g.rebuilt(t, "identity"); n != want {
						t.Errorf("%v rebuilds for the identity, want %v: %s", n, want, strings.Join(g.r.Reasons(), "; "))
					}
				})
			}
		}
	})
}
