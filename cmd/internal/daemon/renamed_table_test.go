package daemon

import (
	"fmt"
	"strings"
	"testing"
)

// A feedback table that is renamed away while the daemon runs is waited for, and none is made in its place: the rows of
// records that are still owed are in it.
func TestRenamedFeedbackTableIsWaitedFor(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	r := start(t, w.environ, nil)
	r.waitReady(t)
	w.publish(t, "r1")
	w.clients(t, 2)
	w.db.Exec(t, "ALTER TABLE subscribers_feedback RENAME TO of_yesterday",
		"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'tiffin'")
	w.publish(t, "r1")
	eventually(t, func() bool {
		_, reasons := r.probe(t)
		return strings.Contains(strings.Join(reasons, "\n"), "Rename that back")
	}, "the table is missed")
	w.db.Exec(t, "ALTER TABLE of_yesterday RENAME TO subscribers_feedback")
	if got := w.clients(t, 4); fmt.Sprint(got) != "map[ann:2 bob:2]" {
		t.Errorf("delivered to %v", got)
	}
	r.stop()
	if err := r.end(t); err != nil {
		t.Error(err)
	}
	if n := w.rows(t); n != 4 {
		t.Errorf("%d rows for 4 records", n)
	}
}

// What the daemon says of a sequence that is behind the rows, as one is that was just made, mends it.
func TestSequenceBehindTheRowsIsMendedAsTold(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	r := start(t, w.environ, nil)
	r.waitReady(t)
	w.publish(t, "r1")
	w.clients(t, 2)
	w.db.Exec(t, "ALTER TABLE subscribers_feedback ALTER id DROP IDENTITY", "CREATE SEQUENCE nobodys", "ALTER TABLE subscribers_feedback ALTER id SET DEFAULT nextval('nobodys')")
	w.publish(t, "r1")
	fix := ""
	eventually(t, func() bool {
		_, reasons := r.probe(t)
		_, fix, _ = strings.Cut(strings.Join(reasons, "\n"), "sequence is behind the rows: ")
		return fix != ""
	}, "what to do is told")
	statement, _, _ := strings.Cut(fix, "\n")
	w.db.Exec(t, statement)
	if got := w.clients(t, 4); fmt.Sprint(got) != "map[ann:2 bob:2]" {
		t.Errorf("delivered to %v", got)
	}
	r.stop()
	if err := r.end(t); err != nil {
		t.Error(err)
	}
}
