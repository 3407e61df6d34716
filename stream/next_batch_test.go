package stream_test

import (
	"fmt"
	"testing"

	"github.com/jackc/pgx/v5"

	"example.com/tiffin/stream"
)

// While Postgres commits a batch, the rows of the next one are inserted, and it waits for nothing
// but that commit: what it must not overtake is neither locked nor tried. When the commit fails the
// next one is not there either. In the end both sinks hold everything, once.
func TestNextBatchIsInsertedWhileOneIsCommitted(t *testing.T) {
	t.Parallel()
	const fan, campaigns = 15, 6
	r := newRig(t, 1, map[string][]string{"r": clients(fan)})
	log := r.logging()
	conn := r.db.Connect(t)
	release := r.holdCommits(conn)
	var values [][]byte
	var want []delivery
	for i := range campaigns {
		m := campaign("r", fmt.Sprint(i))
		values = append(values, m.json(t))
		for _, c := range clients(fan) {
			want = append(want, r.expect(m, 0, int64(i), c))
		}
	}
	r.publish(0, values...)
	e, stop := r.start(func(c *stream.Config) { c.MaxTransactionRecords = 20 }) // a campaign a batch
	inserting := func() []string {
		var states []string
		rows, err := conn.Query(t.Context(), `SELECT CASE WHEN wait_event_type = 'Lock' THEN 'waits for a lock: ' ELSE state || ': ' END || split_part(query, ' ', 1)
			FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'tiffin' AND backend_xid IS NOT NULL ORDER BY xact_start`)
		if err != nil {
			t.Fatal(err)
		}
		for rows.Next() {
			var s string
			if err := rows.Scan(&s); err != nil {
				t.Fatal(err)
			}
			states = append(states, s)
		}
		return states
	}
	paired := func() bool {
		s := inserting()
		return len(s) == 2 && s[0] == "waits for a lock: COMMIT" && s[1] == "idle in transaction: SELECT"
	}
	r.eventuallyOr("a batch that waits for a commit", paired, func() string { return fmt.Sprint(inserting(), e.Reasons()) })
	if n := r.rowCount(); n != 0 {
		t.Errorf("%d rows to be seen before anything is committed", n)
	}
	r.db.Exec(t, `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'tiffin' AND query = 'COMMIT'`)
	r.eventuallyOr("another attempt", paired, func() string { return fmt.Sprint(inserting(), e.Reasons()) })
	release()
	r.eventually("all rows", func() bool { return r.rowCount() == len(want) })
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	r.wantBoth(want)
	if n := log.lines("delivery interrupted"); n != 1 {
		t.Errorf("%d sessions ended by a fault: want the one whose connection was closed", n)
	}
}

// holdCommits makes the commits of batches wait, for a lock of conn, until they are released.
func (r *rig) holdCommits(conn *pgx.Conn) (release func()) {
	r.t.Helper()
	r.cfg.FeedbackDSN += "&lock_timeout=0" // or a session ends after 20 s
	if err := r.cfg.Prepare(r.t.Context(), conn); err != nil {
		r.t.Fatal(err)
	}
	r.db.Exec(r.t, `CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_advisory_xact_lock_shared(42); RETURN NULL; END $$`,
		`CREATE CONSTRAINT TRIGGER wait AFTER INSERT ON tiffin.trigger DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION wait()`)
	lock := func(call string) {
		if _, err := conn.Exec(r.t.Context(), `SELECT `+call+`(42)`); err != nil {
			r.t.Fatal(err)
		}
	}
	lock("pg_advisory_lock")
	return func() { lock("pg_advisory_unlock") }
}
