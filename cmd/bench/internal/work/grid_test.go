package work

import (
	"testing"
	"time"
)

// Campaigns in the table's order would read a small table one behind the other, and skip through a large one: that
// would look like a cost of its size.
func TestGridsCampaignsComeInNoOrder(t *testing.T) {
	t.Parallel()
	const fanout, campaigns = 100, 10_000
	for _, subscriptions := range []int{1_000_000, 5_000_000, 20_000_000} {
		w := NewGrid(fanout, subscriptions, campaigns, time.Now())
		seen := map[int]bool{}
		nearest := w.Restaurants
		for n := range campaigns {
			r := w.restaurant(n)
			if seen[r] {
				t.Fatalf("restaurant %d has two campaigns", r)
			}
			seen[r] = true
			for near := max(0, n-4); near < n; near++ {
				apart := max(r, w.restaurant(near)) - min(r, w.restaurant(near))
				nearest = min(nearest, apart, w.Restaurants-apart)
			}
		}
		if nearest < w.Restaurants/100 {
			t.Errorf("%d restaurants: campaigns one soon after the other are of restaurants only %d apart", w.Restaurants, nearest)
		}
	}
}
