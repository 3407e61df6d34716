package cdc

import (
	"slices"
	"testing"

	"example.com/tiffin/internal/devstack"
	"example.com/tiffin/internal/devstack/devstacktest"
)

// lazyFlush is a database whose server flushes nothing that it need not, and so forgets it when it crashes.
func lazyFlush(t *testing.T) *devstacktest.Database {
	t.Helper()
	db := quiet(t, map[string]string{"wal_writer_delay": "10s", "autovacuum": "off"})
	contract(t, db, "DEFAULT")
	db.Exec(t, `INSERT INTO subscribers_restaurants (restaurant_id, client_id) VALUES ('r1', 'kept'), ('r2', 'kept')`)
	return db
}

// crash ends the server without a flush, and starts it again.
func (g *rig) crash(t *testing.T) {
	t.Helper()
	if err := g.db.Server.Stop(t.Context(), devstack.StopImmediate); err != nil {
		t.Fatal(err)
	}
	if err := g.db.Server.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	g.sql.Reset() // its connections broke
}

// What was read through may have been committed and not flushed: a server that crashes takes it back, and gives its
// xid to another transaction.
func TestReadingThatACrashTookBackIsReadAgain(t *testing.T) {
	t.Parallel()
	db := lazyFlush(t)
	g := start(t, db)
	g.agree(t)
	g.exec(t, `TRUNCATE subscribers_restaurants`) // no posting is left: what follows is read through
	g.exec(t, `INSERT INTO subscribers_restaurants (restaurant_id, client_id) VALUES ('r1', 'kept')`)
	g.fence(t)
	g.exec(t, `BEGIN; SET LOCAL synchronous_commit = off; INSERT INTO subscribers_restaurants (restaurant_id, client_id) VALUES ('r1', 'ghost'); COMMIT`)
	if got := g.clients(t, "r1"); !slices.Equal(got, []string{"ghost", "kept"}) {
		t.Fatalf("clients of r1: %v: nothing was read ahead of the log", got)
	}
	g.crash(t)
	if n := g.one(t, `SELECT count(*)::text FROM subscribers_restaurants`); n != "1" {
		t.Fatalf("%s rows after the crash: want the one that was flushed", n)
	}
	g.exec(t, `INSERT INTO subscribers_restaurants (restaurant_id, client_id) VALUES ('r1', 'new')`)
	g.agree(t)
	g.unrebuilt(t)
}

// What a load sees is flushed before anybody is answered from it: what was committed without a flush would be lost,
// and the xid of it, or of what was rolled back, would come again.
func TestWhatWasLoadedOutlivesACrash(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, sql string }{
		{"committed", `BEGIN; SET LOCAL synchronous_commit = off; INSERT INTO subscribers_restaurants (restaurant_id, client_id) VALUES ('r1', 'unflushed'); COMMIT`},
		{"rolled back", `BEGIN; INSERT INTO subscribers_restaurants (restaurant_id, client_id) VALUES ('r1', 'never'); ROLLBACK`},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			db := lazyFlush(t)
			first := start(t, db) // its slot is there, so that the next start makes none, which would flush
			first.agree(t)
			first.quit()
			first.exec(t, c.sql)
			g := start(t, db)
			g.inSync(t)
			g.crash(t)
			for _, r := range []string{"r2", "r1"} {
				g.exec(t, `INSERT INTO subscribers_restaurants (restaurant_id, client_id) VALUES ($1, 'new')`, r)
				g.agree(t)
			}
			g.unrebuilt(t)
		})
	}
}
