package stream_test

import (
	"context"
	"fmt"
	"testing"

	"example.com/tiffin/stream"
)

// While Postgres has committed and Kafka has not, the ledger is ahead of the group by exactly the
// records that Kafka is owed; afterwards both are level.
func TestSinksAreAheadOfEachOtherByWhatIsOwed(t *testing.T) {
	t.Parallel()
	r := newRig(t, 2, map[string][]string{"three": {"a", "b", "c"}, "two": {"d", "e"}})
	r.untilNow() // enters the partitions
	comparer, err := stream.NewComparer(r.cfg.Kafka)
	if err != nil {
		t.Fatal(err)
	}
	defer comparer.Close()
	db := r.db.Connect(t)
	compare := func() string {
		t.Helper()
		offsets, err := comparer.Offsets(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		standings, err := offsets.Beside(t.Context(), db)
		if err != nil {
			t.Fatal(err)
		}
		return fmt.Sprint(standings)
	}
	if got := compare(); got != "[{0 0 0 0} {1 0 0 0}]" {
		t.Errorf("before any message: %s", got)
	}
	r.publish(0, campaign("three", "one").json(t))
	r.untilNow()
	if got := compare(); got != "[{0 1 1 0} {1 0 0 0}]" {
		t.Errorf("level: %s", got)
	}

	// The group's offset as a crash between the two commits leaves it.
	r.publish(0, campaign("two", "two").json(t), []byte("malformed"), campaign("three", "four").json(t))
	r.untilNow()
	r.setOffset(0, 1, "tiffin")
	if got := compare(); got != "[{0 4 1 6} {1 0 0 0}]" {
		t.Errorf("two records, a dead letter and three records are owed: %s", got)
	}
	r.setOffset(0, 3, "tiffin sent=2")
	if got := compare(); got != "[{0 4 3 1} {1 0 0 0}]" {
		t.Errorf("one of three records is owed: %s", got)
	}
	r.setOffset(0, 6, "tiffin")
	if got := compare(); got != "[{0 4 6 0} {1 0 0 0}]" {
		t.Errorf("the feedback database lacks two messages: %s", got)
	}
	r.setOffset(0, 4, "tiffin")
	if got := compare(); got != "[{0 4 4 0} {1 0 0 0}]" {
		t.Errorf("level again: %s", got)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := comparer.Offsets(ended); err == nil {
		t.Error("an answer was given without asking")
	}
}
