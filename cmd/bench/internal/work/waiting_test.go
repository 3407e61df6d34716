package work

import "testing"

// Of ten campaigns the ninth and the tenth are a fifth of the work: their end is looked for as often as that of the last
// twentieth of many.
func TestEndOfFewCampaignsIsLookedForOften(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		campaigns, done int64
		want            float64
	}{
		{10, 0, 0},
		{10, 7, 0.7},
		{10, 8, nearlyTheEnd},
		{10, 9, nearlyTheEnd},
		{10, 10, 1},
		{10, 11, 1.1},
		{10_000, 9_400, 0.94},
		{10_000, 9_999, 0.9999},
		{1, 0, nearlyTheEnd},
		{1, 1, 1},
	} {
		if got := partOf(c.campaigns, c.done); got != c.want {
			t.Errorf("%d of %d are %v of the work, want %v", c.done, c.campaigns, got, c.want)
		}
	}
}
