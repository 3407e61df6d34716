package daemon

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
)

// A daemon whose slot is taken from under it loads again by itself, at most three times an hour; then it ends
// with the reason.
func TestDaemonEndsWhenLoadsDoNotHelp(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	r := start(t, w.environ, nil)
	r.waitReady(t)
	conn := w.db.Connect(t)
	drop := func() {
		t.Helper()
		eventually(t, func() bool {
			if _, err := conn.Exec(t.Context(), `SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = $1 AND active`, w.db.Slot); err != nil {
				t.Fatal(err)
			}
			_, err := conn.Exec(t.Context(), `SELECT pg_drop_replication_slot($1)`, w.db.Slot)
			return err == nil
		}, "the slot dropped")
	}
	for n := 1; n <= 3; n++ {
		drop()
		eventually(t, func() bool {
			status, _ := r.probe(t)
			return status == http.StatusOK && strings.Contains(r.metrics(t), fmt.Sprintf(`tiffin_rebuilds_total{reason="slot_missing"} %d`, n))
		}, "ready after a load")
	}
	drop()
	if err := r.end(t); err == nil || !strings.Contains(err.Error(), "3 within an hour") || !strings.Contains(err.Error(), "slot_missing") {
		t.Errorf("the daemon ended with %v", err)
	}
}
