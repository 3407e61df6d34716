package daemon

import (
	"context"
	"testing"
)

// A start that ends hopelessly leaves no slot behind that would hold back the source's log;
// one that was there before it stays.
func TestHopelessStartLeavesNoSlot(t *testing.T) {
	t.Parallel()
	for name, before := range map[string]bool{"made by this start": false, "there before": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.db.Exec(t, "CREATE TABLE subscribers_feedback (id int)") // of another shape
			if before {
				w.db.Exec(t, "CREATE PUBLICATION tiffin FOR TABLE subscribers_restaurants", "SELECT pg_create_logical_replication_slot('"+w.db.Slot+"', 'pgoutput')")
			}
			slots := func(active bool) (n int) {
				const count = "SELECT count(*) FROM pg_replication_slots WHERE slot_name = $1 AND (active OR NOT $2)"
				if err := w.db.Connect(t).QueryRow(t.Context(), count, w.db.Slot, active).Scan(&n); err != nil {
					t.Fatal(err)
				}
				return n
			}
			// The fault is met when this is let go (lockKey of package migrations): once the
			// slot is in use.
			lock := w.db.Connect(t)
			if _, err := lock.Exec(t.Context(), "SELECT pg_advisory_lock(x'74696666696e'::bigint)"); err != nil {
				t.Fatal(err)
			}
			r := start(t, w.environ, nil)
			eventually(t, func() bool { return slots(true) == 1 }, "the slot is in use")
			if err := lock.Close(context.WithoutCancel(t.Context())); err != nil {
				t.Fatal(err)
			}
			if err := r.end(t); err == nil {
				t.Error("the daemon ended without an error")
			}
			want := 0
			if before {
				want = 1
			}
			if n := slots(false); n != want {
				t.Errorf("%d slots are left, want %d", n, want)
			}
		})
	}
}
