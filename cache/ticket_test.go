package cache

import (
	"context"
	"slices"
	"sync/atomic"
	"testing"
	"time"
)

// forgetful is a store that answers nothing while it is told so.
type forgetful struct {
	lossy
	miss atomic.Bool
}

func (f *forgetful) Get(key uint64) (*posting, bool) {
	if f.miss.Load() {
		return nil, false
	}
	return f.lossy.Get(key)
}

// TestPostingThatComesBackDuringAReading: a transaction that went to the ticket alone must
// not be missing from what ristretto suddenly has again.
func TestPostingThatComesBackDuringAReading(t *testing.T) {
	t.Parallel()
	src := &slow{ahead("new"), make(chan struct{}, 1), make(chan struct{})}
	x := newIndex(t, 1<<20, src)
	store := &forgetful{lossy: x.shelf.lru}
	x.shelf.lru = store
	load(t, x, false, [2]string{"r", "old"})
	store.miss.Store(true)
	read := make(chan error)
	go func() {
		_, err := x.Lookup(context.Background(), "r")
		read <- err
	}()
	<-src.began
	store.miss.Store(false)
	txn := x.NewTxn()
	if err := txn.Insert(0, []byte("r"), []byte("new")); err != nil {
		t.Fatal(err)
	}
	if err := x.Apply(txn, Commit{Xid: 20, End: 100}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Millisecond)
	defer cancel()
	if r, err := x.Lookup(ctx, "r"); err == nil {
		t.Errorf("answered %q without waiting for the reading", collect(r))
	}
	close(src.end)
	if err := <-read; err != nil {
		t.Fatal(err)
	}
}

func TestReplayBeginsAtTheLastTruncate(t *testing.T) {
	t.Parallel()
	p := newPosting([]uint32{1, 2})
	err := p.replay([]gathered{
		{xid: 20, changes: []uint64{change(0, 9, 1)}}, // of a row that the truncated table does not show
		{xid: 21, truncate: true, changes: []uint64{change(0, 3, 0)}},
		{xid: 22, changes: []uint64{change(0, 4, 0)}},
		{xid: 5, changes: []uint64{change(0, 5, 0)}}, // seen
	}, Snapshot{Xmin: 10, Xmax: 10})
	if got := slices.Collect(p.view().between(0, p.len())); err != nil || !slices.Equal(got, []uint32{3, 4}) {
		t.Errorf("replayed to %v, %v, want 3 and 4", got, err)
	}
}
