package cdc

import (
	"context"
	"testing"
	"time"

	"example.com/tiffin/internal/devstack/devstacktest"
)

// Nothing that the reader does once the publication is there, from the load to read-throughs and audits, holds more of the table than a
// reader's lock, and when it is done it holds none, and no snapshot.
func TestReaderHoldsNoMoreThanAReadersLock(t *testing.T) {
	t.Parallel()
	db := servers.Database(t)
	contract(t, db, "DEFAULT")
	db.Exec(t, `CREATE PUBLICATION tiffin FOR TABLE subscribers_restaurants`) // whose making takes a stronger one
	db.Exec(t, `INSERT INTO subscribers_restaurants (restaurant_id, client_id) SELECT 'r'||i%40, 'c'||i FROM generate_series(1,4000) i`)
	cfg := config(t, db)
	cfg.rangePages = 4
	g := build(t, db, cfg, 1) // which reads everything through
	stop := watchLocks(t, db)
	g.run(t)
	for range 5 {
		g.exec(t, `UPDATE subscribers_restaurants SET client_id = client_id || 'x' WHERE restaurant_id = 'r1'`)
		g.agree(t)
		if found, _ := g.audit(t); len(found) != 0 {
			t.Errorf("differences: %v", found)
		}
	}
	if looks := stop(); looks < 20 {
		t.Errorf("%d looks: too few to tell", looks)
	}
	const held = `SELECT count(*)::text FROM pg_stat_activity a WHERE application_name = $1 AND backend_type = 'client backend'
		AND (backend_xmin IS NOT NULL OR state LIKE 'idle in transaction%' OR EXISTS (SELECT FROM pg_locks l WHERE l.pid = a.pid AND relation = 'subscribers_restaurants'::regclass))`
	eventually(t, "nothing is held", func() bool { return g.one(t, held, cfg.application()) == "0" })
}

// watchLocks looks at the reader's locks again and again, until stopped; stop tells how often.
func watchLocks(t *testing.T, db *devstacktest.Database) (stop func() int) {
	t.Helper()
	conn := db.Connect(t)
	ctx, cancel := context.WithCancel(t.Context())
	looks := make(chan int, 1)
	go func() {
		n := 0
		defer func() { looks <- n }()
		for ; pause(ctx, time.Millisecond); n++ {
			var modes string
			err := conn.QueryRow(context.WithoutCancel(ctx), `SELECT coalesce(string_agg(DISTINCT mode, ' '), '') FROM pg_locks JOIN pg_stat_activity USING (pid)
				WHERE application_name LIKE 'tiffin/%' AND datname = current_database() AND relation = 'subscribers_restaurants'::regclass AND mode <> 'AccessShareLock'`).Scan(&modes)
			if err != nil || modes != "" {
				t.Errorf("locks of the table: %v, %v", modes, err)
				return
			}
		}
	}()
	return func() int { cancel(); return <-looks }
}
