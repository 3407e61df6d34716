package cache

import (
	"slices"
	"testing"
)

// A posting of an old content that ristretto sets only after the next load is none of the new content's.
func TestPostingOfAnOldLoadDoesNotCount(t *testing.T) {
	t.Parallel()
	x := newIndex(t, 1<<20, &table{rows: map[string][]string{"r": {"new"}}, snap: Snapshot{Xmin: 10, Xmax: 10}})
	load(t, x, false, [2]string{"r", "a"}, [2]string{"r", "b"}, [2]string{"r", "c"})
	n := mustFind(t, x.cur.Load().restaurants, "r")
	x.shelf.settle()
	old := x.shelf.find(n)
	if old == nil {
		t.Fatal("the posting is not in memory")
	}
	load(t, x, false, [2]string{"r", "new"})
	n = mustFind(t, x.cur.Load().restaurants, "r")
	x.shelf.put(n, old)
	x.shelf.settle()
	if x.shelf.find(n) != old {
		t.Fatal("the old posting was not set")
	}
	if got := lookup(t, x, "r"); !slices.Equal(got, []string{"new"}) {
		t.Errorf("clients of r: %q", got)
	}
}
