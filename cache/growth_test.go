package cache

import (
	"fmt"
	"testing"
)

// TestGrowthStaysWithinTheBudget: postings that only grow, none of which is new, take no more than
// the budget together, and no answer is lost by it.
func TestGrowthStaysWithinTheBudget(t *testing.T) {
	t.Parallel()
	const budget, restaurants, rounds = 256 << 10, 100, 50
	src := &table{rows: map[string][]string{}, snap: Snapshot{Xmin: 1 << 20, Xmax: 1 << 20}}
	x := newIndex(t, budget, src)
	var pairs [][2]string
	for r := range restaurants {
		pairs = append(pairs, [2]string{fmt.Sprintf("r%d", r), "first"})
		src.rows[fmt.Sprintf("r%d", r)] = []string{"first"}
	}
	load(t, x, false, pairs...)
	txn := x.NewTxn()
	for round := range rounds {
		for r := range restaurants {
			for i := range 100 {
				restaurant, client := fmt.Sprintf("r%d", r), fmt.Sprintf("c%d", 100*round+i)
				src.rows[restaurant] = append(src.rows[restaurant], client)
				if err := txn.Insert(0, []byte(restaurant), []byte(client)); err != nil {
					t.Fatal(err)
				}
			}
		}
		if err := x.Apply(txn, Commit{Xid: uint64(20 + round), End: LSN(100 + round)}); err != nil {
			t.Fatal(err)
		}
		x.shelf.settle()
		if used := x.Stats().PostingBytes; used > budget {
			t.Fatalf("%d bytes of a budget of %d after round %d", used, budget, round)
		}
	}
	for r, want := range src.rows {
		if got := lookup(t, x, r); len(got) != len(want) {
			t.Fatalf("restaurant %s has %d clients, want %d", r, len(got), len(want))
		}
	}
}
