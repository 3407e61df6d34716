package cdc

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"example.com/tiffin/internal/devstack"
)

// What was committed before Wait is in the index after it: 1,000 times, without one miss.
func TestCommittedBeforeWaitIsServed(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, server *devstack.Postgres) {
		for _, mode := range []FenceMode{FenceFlush, FenceEmit} {
			t.Run(string(mode), func(t *testing.T) {
				t.Parallel()
				db := databaseOn(t, server)
				contract(t, db, "DEFAULT")
				g := start(t, db, func(c *Config) { c.Fence = mode })
				g.fence(t)
				insert, remove := `INSERT INTO subscribers_restaurants (restaurant_id, client_id) VALUES ('r1','c')`, `DELETE FROM subscribers_restaurants`
				conn := db.Connect(t)
				if mode == FenceEmit {
					if _, err := conn.Exec(t.Context(), "SET synchronous_commit = off"); err != nil {
						t.Fatal(err)
					}
				}
				for i := range 1000 {
					sql, want := insert, []string{"c"}
					if i%2 == 1 {
						sql, want = remove, nil
					}
					if _, err := conn.Exec(t.Context(), sql); err != nil {
						t.Fatal(err)
					}
					g.fence(t)
					if got := g.clients(t, "r1"); !slices.Equal(got, want) {
						t.Fatalf("alternation %d: %v, want %v", i, got, want)
					}
				}
			})
		}
	})
}

// The first fence does not wait for a connection to be made: it is there already.
func TestFirstFenceFindsItsConnection(t *testing.T) {
	t.Parallel()
	db := servers.Database(t)
	contract(t, db, "DEFAULT")
	g := start(t, db)
	eventually(t, "the fence's connection is there before any fence", func() bool {
		return g.one(t, `SELECT count(*)::text FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE 'tiffin/%'
			AND state = 'idle' AND query LIKE 'SELECT pg_current_wal_flush_lsn()%'`) == "1"
	})
	g.fence(t)
}

// Fences raised at the same time each hold, and share questions.
func TestFencesAtTheSameTime(t *testing.T) {
	t.Parallel()
	db := servers.Database(t)
	contract(t, db, "DEFAULT")
	g := start(t, db)
	g.fence(t)
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			for k := range 50 {
				restaurant := string(rune('a'+i)) + string(rune('A'+k%26))
				g.exec(t, `INSERT INTO subscribers_restaurants (restaurant_id, client_id) VALUES ($1,'c')`, restaurant)
				g.fence(t)
				if got := g.clients(t, restaurant); len(got) != 1 {
					t.Errorf("restaurant %s: %v", restaurant, got)
				}
			}
		})
	}
	wg.Wait()
	g.agree(t)
}

// A fence waits while the source is down, and passes when it is back; the reader says why.
func TestFenceWaitsForTheSource(t *testing.T) {
	t.Parallel()
	server := own(t, devstack.PostgresOptions{})
	g := alone(t, server)
	g.fence(t)
	for _, mode := range []devstack.StopMode{devstack.StopFast, devstack.StopImmediate} {
		if err := server.Stop(t.Context(), mode); err != nil {
			t.Fatal(err)
		}
		g.saysWhy(t, "source:")
		short, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		if mark, err := g.r.Wait(short); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("fence without a source: %v, %v", mark, err)
		}
		cancel()
		passed := make(chan error, 1)
		go func() {
			_, err := g.r.Wait(t.Context())
			passed <- err
		}()
		if err := server.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := <-passed; err != nil {
			t.Fatal(err)
		}
		g.sql.Reset() // its connections broke
		g.exec(t, `INSERT INTO subscribers_restaurants (restaurant_id, client_id) VALUES ('r1','c')`)
		g.agree(t)
		g.inSync(t)
	}
	if n := value(t, g.r.cfg.Metrics.rebuilds.WithLabelValues("gap")); n != 0 {
		t.Errorf("%v rebuilds for a restart of the server", n)
	}
}

// With max_staleness a fence passes without the source, marked, until the index is too old.
func TestStaleMarkIsBounded(t *testing.T) {
	t.Parallel()
	server := own(t, devstack.PostgresOptions{})
	clock := &shifted{}
	g := alone(t, server, func(c *Config) { c.MaxStaleness, c.Now = time.Hour, clock.now })
	if mark := g.fence(t); mark.Stale {
		t.Error("stale with a source")
	}
	if err := server.Stop(t.Context(), devstack.StopFast); err != nil {
		t.Fatal(err)
	}
	if mark := g.fence(t); !mark.Stale || mark.LSN == 0 {
		t.Errorf("mark without a source: %+v", mark)
	}
	clock.shift(2 * time.Hour)
	short, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if mark, err := g.r.Wait(short); err == nil {
		t.Errorf("mark of an index too old: %+v", mark)
	}
}

// While the source is there a fence waits for it, however slow the index is.
func TestNoStaleMarkBesideTheSource(t *testing.T) {
	t.Parallel()
	db := servers.Database(t)
	contract(t, db, "DEFAULT")
	cfg := config(t, db)
	cfg.MaxStaleness = time.Hour
	g := build(t, db, cfg, 1<<20)
	index := g.onSlow(t)
	g.run(t)
	g.agree(t)
	index.each.Store(int64(10 * replyAfter))
	g.exec(t, `INSERT INTO subscribers_restaurants (restaurant_id, client_id) VALUES ('r1', 'c')`)
	if mark := g.fence(t); mark.Stale {
		t.Errorf("a mark beside the source: %+v", mark)
	}
	g.agree(t)
}

// Of an index that was given up nobody knows the age: there is no mark, however long max_staleness is.
func TestStaleMarkNeedsAnIndex(t *testing.T) {
	t.Parallel()
	for what, sql := range map[string]string{
		"renamed column": `ALTER TABLE subscribers_restaurants RENAME client_id TO client`,
		"other table":    `ALTER TABLE subscribers_restaurants RENAME TO was`,
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			db := servers.Database(t)
			contract(t, db, "DEFAULT")
			g := start(t, db, func(c *Config) { c.MaxStaleness = time.Hour })
			g.agree(t)
			g.exec(t, sql)
			eventually(t, "the index is given up", func() bool { return !g.r.state.isLoaded() })
			short, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
			defer cancel()
			if mark, err := g.r.Wait(short); err == nil {
				t.Errorf("mark of an index that was given up: %+v", mark)
			}
		})
	}
}

// shifted is the clock, moved.
type shifted struct {
	mu sync.Mutex
	by time.Duration
}

func (s *shifted) now() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return time.Now().Add(s.by)
}

func (s *shifted) shift(by time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.by += by
}

// Without a fence Wait returns at once.
func TestFenceOff(t *testing.T) {
	t.Parallel()
	cfg := Config{DSN: "postgres://127.0.0.1:1/none", Table: "public.t", Publication: "p", Slot: "s", Fence: FenceOff}
	src, err := NewSource(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	r, err := New(cfg, src, nil)
	if err != nil {
		t.Fatal(err)
	}
	if mark, err := r.Wait(t.Context()); err != nil || mark.LSN != 0 || mark.Stale {
		t.Errorf("%+v, %v", mark, err)
	}
}
