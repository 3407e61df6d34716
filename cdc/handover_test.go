package cdc

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"example.com/tiffin/internal/devstack"
)

// While the table is loaded and afterwards, several writers commit, also with
// synchronous_commit=off, and walsenders are killed: no change is lost or taken twice.
func TestHandoverIsExactUnderWrites(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, server *devstack.Postgres) {
		for _, identity := range []string{"DEFAULT", "INDEX", "FULL"} {
			t.Run(identity, func(t *testing.T) {
				t.Parallel()
				db := databaseOn(t, server)
				contract(t, db, identity)
				db.Exec(t, `INSERT INTO subscribers_restaurants (restaurant_id, client_id) SELECT 'r'||i%40, 'c'||i FROM generate_series(1,3000) i`)
				cfg := config(t, db)
				cfg.Fence = FenceEmit // covers the asynchronous commits of the writers
				cfg.rangePages = 4    // so that rows move from range to range
				g := build(t, db, cfg, 64<<10)
				stop := g.write(t, 4)
				g.run(t)
				for round := range 6 {
					g.fence(t)
					if round%2 == 1 {
						g.exec(t, `SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = $1`, db.Slot)
					}
					// Answers must be those of one state; what that is decides the next check.
					g.clients(t, "r1")
					before := g.one(t, `SELECT count(*)::text FROM subscribers_restaurants`)
					eventually(t, "writes go on", func() bool {
						return g.one(t, `SELECT count(*)::text FROM subscribers_restaurants`) != before
					})
				}
				stop()
				g.agree(t)
				g.unrebuilt(t)
			})
		}
	})
}

// write has n writers change the table until stopped.
func (g *rig) write(t *testing.T, n int) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for i := range n {
		rnd := rand.New(rand.NewPCG(1, uint64(i)))
		wg.Go(func() {
			for k := 0; ctx.Err() == nil; k++ {
				sql := changeOf(rnd, fmt.Sprintf("w%d-%d", i, k))
				if _, err := g.sql.Exec(context.WithoutCancel(ctx), sql); err != nil && sqlState(err) != "23505" && sqlState(err) != "40P01" {
					t.Errorf("%s: %v", sql, err)
					return
				}
			}
		})
	}
	return func() { cancel(); wg.Wait() }
}

// changeOf is a random statement.
func changeOf(rnd *rand.Rand, client string) string {
	r := rnd.IntN(40)
	async := ""
	if rnd.IntN(3) == 0 {
		async = "SET LOCAL synchronous_commit = off; "
	}
	body := ""
	switch rnd.IntN(5) {
	case 0, 1:
		body = fmt.Sprintf(`INSERT INTO subscribers_restaurants (restaurant_id, client_id) VALUES ('r%d', '%s')`, r, client)
	case 2:
		body = fmt.Sprintf(`UPDATE subscribers_restaurants SET client_id = '%s' WHERE ctid = (SELECT ctid FROM subscribers_restaurants WHERE restaurant_id = 'r%d' LIMIT 1)`, client, r)
	case 3:
		body = fmt.Sprintf(`DELETE FROM subscribers_restaurants WHERE ctid = (SELECT ctid FROM subscribers_restaurants WHERE restaurant_id = 'r%d' LIMIT 1)`, r)
	case 4:
		body = fmt.Sprintf(`UPDATE subscribers_restaurants SET restaurant_id = 'r%d', client_id = client_id || '-%s' WHERE ctid IN (SELECT ctid FROM subscribers_restaurants WHERE restaurant_id = 'r%d' LIMIT 3)`, rnd.IntN(40), client, r)
	}
	return "DO $$ BEGIN " + async + body + "; END $$"
}

// A large transaction becomes visible whole, and the stream goes on after it.
func TestLargeTransactionAtOnce(t *testing.T) {
	t.Parallel()
	db := servers.Database(t)
	contract(t, db, "DEFAULT")
	g := start(t, db)
	g.agree(t)
	const all = 5000 // clients of a restaurant
	whole := func(before, after [2]int, sql string) {
		t.Helper()
		stop := g.watch(t, before, after)
		g.exec(t, sql)
		g.agree(t)
		if looks := stop(); looks < 3 {
			t.Errorf("%d looks during %s: too few to tell", looks, sql)
		}
	}
	none, plain, changed := [2]int{}, [2]int{all, 0}, [2]int{all, all}
	whole(none, plain, `INSERT INTO subscribers_restaurants (restaurant_id, client_id) SELECT 'r'||i%40, 'c'||i FROM generate_series(1,200000) i`)
	whole(plain, changed, `UPDATE subscribers_restaurants SET client_id = client_id || 'x'`)
	whole(changed, none, `DELETE FROM subscribers_restaurants`)
	if s := g.idx.Stats(); s.Subscriptions != 0 {
		t.Errorf("%d subscriptions left", s.Subscriptions)
	}
	g.unrebuilt(t)
}

// watch looks at r1 again and again, until stopped; stop tells how often. Its clients, and those of them whose
// id ends in x, are as many as before or as after.
func (g *rig) watch(t *testing.T, before, after [2]int) (stop func() int) {
	ctx, cancel := context.WithCancel(t.Context())
	looks := make(chan int, 1)
	go func() {
		n := 0
		defer func() { looks <- n }()
		for ; pause(ctx, time.Millisecond); n++ {
			got, err := g.idx.Lookup(ctx, "r1")
			if err != nil {
				continue // stopped
			}
			seen := [2]int{got.Len()}
			for client := range got.Range(0, got.Len()) {
				if client[len(client)-1] == 'x' {
					seen[1]++
				}
			}
			if seen != before && seen != after {
				t.Errorf("r1 has %v clients in the middle of a transaction, %v before and %v after", seen, before, after)
			}
			got.Release()
		}
	}()
	return func() int { cancel(); return <-looks }
}

// Large transactions whose changes lie mixed in the log, more than the server keeps in memory,
// with savepoints that abort, become visible whole, each by its own commit.
func TestInterleavedLargeTransactions(t *testing.T) {
	t.Parallel()
	db := servers.Database(t)
	contract(t, db, "FULL")
	db.Exec(t, `ALTER DATABASE `+db.Name+` SET logical_decoding_work_mem = '64kB'`)
	g := start(t, db)
	g.agree(t)
	const portions, rows = 10, 2000
	conns := []*pgx.Conn{db.Connect(t), db.Connect(t), db.Connect(t)}
	exec := func(conn *pgx.Conn, sql string, args ...any) {
		t.Helper()
		if _, err := conn.Exec(t.Context(), sql, args...); err != nil {
			t.Fatal(err)
		}
	}
	for _, conn := range conns {
		exec(conn, `BEGIN`)
	}
	for n := range portions {
		for i, conn := range conns {
			exec(conn, `INSERT INTO subscribers_restaurants (restaurant_id, client_id) SELECT 'r'||$1::int, 'c'||i FROM generate_series($2::int, $3::int) i`, i, n*rows, (n+1)*rows-1)
			exec(conn, `SAVEPOINT s`)
			exec(conn, `DELETE FROM subscribers_restaurants`)
			exec(conn, map[bool]string{true: `ROLLBACK TO s`, false: `RELEASE s`}[n%2 == 0 || i != 1])
		}
	}
	g.fence(t)
	if s := g.idx.Stats(); s.Subscriptions != 0 {
		t.Errorf("%d subscriptions of transactions that run", s.Subscriptions)
	}
	g.exec(t, `INSERT INTO subscribers_restaurants (restaurant_id, client_id) VALUES ('r9', 'small')`)
	g.fence(t)
	if got := g.clients(t, "r9"); len(got) != 1 {
		t.Errorf("clients of r9, committed beside large transactions: %v", got)
	}
	exec(conns[2], `COMMIT`)
	g.agree(t)
	exec(conns[0], `ROLLBACK`)
	exec(conns[1], `COMMIT`)
	g.agree(t)
	if n := len(g.clients(t, "r2")); n != portions*rows {
		t.Errorf("%d clients of r2, want %d", n, portions*rows)
	}
	g.unrebuilt(t)
}

// The table is read by ranges over several connections, in one snapshot, complete.
func TestLoadByRanges(t *testing.T) {
	t.Parallel()
	db := servers.Database(t)
	contract(t, db, "DEFAULT")
	db.Exec(t, `INSERT INTO subscribers_restaurants (restaurant_id, client_id) SELECT 'r'||i%40, 'c'||i FROM generate_series(1,9000) i`)
	g := start(t, db, func(c *Config) { c.rangePages, c.LoadConns = 16, 3 })
	g.agree(t)
	if n := len(copyStatements(g.r.table, 16)); n < 3 {
		t.Errorf("%d ranges, want one a connection", n)
	}
	// What is committed between one connection's beginning and another's is seen by none of them.
	first := db.Connect(t)
	exported, _, err := openSnapshot(t.Context(), first)
	if err != nil {
		t.Fatal(err)
	}
	g.exec(t, `DELETE FROM subscribers_restaurants WHERE restaurant_id <> 'r1'`)
	other, err := joinSnapshot(t.Context(), &g.r.cfg, exported)
	if err != nil {
		t.Fatal(err)
	}
	defer hangUp(t.Context(), other.PgConn())
	var rows int
	if err := other.QueryRow(t.Context(), `SELECT count(*) FROM subscribers_restaurants`).Scan(&rows); err != nil || rows != 9000 {
		t.Errorf("a connection that joins sees %d of 9000 rows: %v", rows, err)
	}
	g.agree(t)
}
