package cdc

import (
	"testing"

	"github.com/jackc/pgx/v5"
)

// A transaction may be committed in the log before the place where a new slot begins, and not be visible
// yet when the slot is made: it waits for its flush or, as here, for a synchronous standby. The slot never
// sends it, so that the load has to see it.
func TestLoadSeesWhatTheSlotBeginsBehind(t *testing.T) {
	t.Parallel()
	db := quiet(t, hangingCommits)
	contract(t, db, "DEFAULT")
	db.Exec(t, `CREATE PUBLICATION tiffin FOR TABLE subscribers_restaurants`)
	g := build(t, db, config(t, db), 1<<20)
	release := commitBehindASlot(t, g, func() { g.run(t) })
	made := g.one(t, `SELECT clock_timestamp()::text`)
	eventually(t, "a look at who runs, or a load without one", func() bool {
		return len(g.r.Reasons()) == 0 || g.one(t, `SELECT count(*)::text FROM pg_stat_activity
			WHERE application_name = $1 AND query LIKE '%pg_current_snapshot%' AND query_start > $2::text::timestamptz`, g.r.cfg.application(), made) != "0"
	})
	if len(g.r.Reasons()) == 0 {
		t.Fatal("it is ready without what is not visible yet")
	}
	release()
	g.agree(t)
	g.unrebuilt(t)
}

// The daemon that finds a slot cannot know who ran when it was made: whoever makes it by plan's script has
// waited for them when that ends.
func TestPlansScriptWaitsForWhatItsSlotBeginsBehind(t *testing.T) {
	t.Parallel()
	db := quiet(t, hangingCommits)
	contract(t, db, "DEFAULT")
	g := build(t, db, config(t, db), 1<<20)
	script, made := printed(t, g.r.cfg, db.Server.Username()), make(chan struct{})
	release := commitBehindASlot(t, g, func() {
		go func() {
			defer close(made)
			psql(t, db, script)
		}()
	})
	eventually(t, "the script waits", func() bool {
		select {
		case <-made:
			t.Error("it has ended")
			return true
		default:
			return g.one(t, `SELECT count(*)::text FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep'`) == "1"
		}
	})
	release()
	<-made
	g.run(t)
	g.agree(t)
	g.unrebuilt(t)
}

// hangingCommits are settings of a server where a commit that asks for it waits for a standby that is none.
var hangingCommits = map[string]string{"synchronous_commit": "local", "synchronous_standby_names": "nobody"}

// commitBehindASlot returns when the slot is made, whose making begins with makes, and an INSERT is committed
// in the log before its beginning. That hangs until it is released.
func commitBehindASlot(t *testing.T, g *rig, makes func()) (release func()) {
	t.Helper()
	begin := func() *pgx.Conn {
		t.Helper()
		conn := g.db.Connect(t)
		if _, err := conn.Exec(t.Context(), `BEGIN; SELECT pg_current_xact_id()`); err != nil {
			t.Fatal(err)
		}
		return conn
	}
	end := func(conn *pgx.Conn) {
		t.Helper()
		if _, err := conn.Exec(t.Context(), `COMMIT`); err != nil {
			t.Fatal(err)
		}
	}
	waits := func(event string) {
		t.Helper()
		eventually(t, "one waiting for "+event, func() bool {
			return g.one(t, `SELECT count(*)::text FROM pg_stat_activity WHERE datname = current_database() AND wait_event = $1`, event) == "1"
		})
	}
	// The slot waits for the transactions that run when it begins, then for those that run when they have
	// ended (SnapBuildFindSnapshot in snapbuild.c). Who comes after these is in the log, and not its to send.
	first := begin()
	makes()
	waits("transactionid")
	second := begin()
	end(first)
	eventually(t, "the slot waiting for the second", func() bool {
		return g.one(t, `SELECT count(*)::text FROM pg_locks w JOIN pg_locks h ON h.transactionid = w.transactionid AND h.granted WHERE NOT w.granted AND h.pid = $1`, second.PgConn().PID()) == "1"
	})
	committed, late := make(chan error, 1), g.db.Connect(t)
	go func() {
		_, err := late.Exec(t.Context(), `SET synchronous_commit = on; INSERT INTO subscribers_restaurants (restaurant_id, client_id) VALUES ('r1', 'late')`)
		committed <- err
	}()
	waits("SyncRep")
	end(second)
	eventually(t, "the slot", func() bool {
		return g.one(t, `SELECT count(*)::text FROM pg_replication_slots WHERE slot_name = $1 AND confirmed_flush_lsn IS NOT NULL`, g.db.Slot) == "1"
	})
	return func() {
		t.Helper()
		g.db.Exec(t, `ALTER SYSTEM SET synchronous_standby_names = ''`, `SELECT pg_reload_conf()`)
		if err := <-committed; err != nil {
			t.Fatal(err)
		}
	}
}
