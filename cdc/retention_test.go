package cdc

import "testing"

// A look may fall into the middle of a step of the log's growth: what is expected next is the
// largest of the last steps, not the last.
func TestSlotIsGivenUpBeforeTheLargestStep(t *testing.T) {
	t.Parallel()
	const limit = 100
	r := newRetention()
	for _, look := range []struct {
		retained int64
		passes   bool
	}{
		{60, false}, // nothing is known yet
		{75, false}, // a step of 15
		{80, false}, // a third of one
		{86, true},  // 86 + 15, though the last was 6
	} {
		if got := r.passes(look.retained, limit); got != look.passes {
			t.Errorf("at %d of %d: %v, want %v", look.retained, limit, got, look.passes)
		}
	}
	for range r.growths {
		r.passes(86, limit)
	}
	if r.passes(86, limit) {
		t.Error("a step of long ago still counts")
	}
	if r := newRetention(); r.passes(1<<40, 0) {
		t.Error("without a limit it is given up")
	}
}
