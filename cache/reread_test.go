package cache

import (
	"context"
	"slices"
	"sync/atomic"
	"testing"
)

// crashing is a source that shows another state after a crash.
type crashing struct {
	shows      atomic.Pointer[table]
	began, end chan struct{}
}

func (s *crashing) ReadRestaurant(ctx context.Context, restaurant string, add func([]byte) error) (Snapshot, error) {
	snap, err := s.shows.Load().ReadRestaurant(ctx, restaurant, add)
	signal(s.began)
	<-s.end
	return snap, err
}

// TestWhatACrashTookBackIsReadAgain: whether the reading had ended or not, and although its snapshot sees
// the xid that another transaction has now.
func TestWhatACrashTookBackIsReadAgain(t *testing.T) {
	t.Parallel()
	for _, ended := range []bool{true, false} {
		src := &crashing{began: make(chan struct{}, 1), end: make(chan struct{})}
		src.shows.Store(&table{rows: map[string][]string{"r": {"kept", "taken back"}}, snap: Snapshot{Xmin: 21, Xmax: 21}})
		x := newIndex(t, 1<<20, src)
		store := &forgetful{lossy: x.shelf.lru}
		x.shelf.lru = store
		load(t, x, false, [2]string{"r", "kept"})
		store.miss.Store(true)
		read := make(chan []string, 1)
		go func() { read <- lookup(t, x, "r") }()
		begun(t, src.began, read)
		store.miss.Store(false)
		if ended {
			close(src.end)
			<-read
		}
		src.shows.Store(&table{rows: map[string][]string{"r": {"kept", "new"}}, snap: Snapshot{Xmin: 21, Xmax: 21}})
		x.Reread()
		txn := x.NewTxn()
		if err := txn.Insert(0, []byte("r"), []byte("new")); err != nil {
			t.Fatal(err)
		}
		if err := x.Apply(txn, Commit{Xid: 20, End: 100}); err != nil {
			t.Fatal(err)
		}
		if !ended {
			close(src.end)
			if got := <-read; !slices.Equal(got, []string{"kept", "new"}) {
				t.Errorf("the reading that was under way answered %q", got)
			}
		}
		if got := lookup(t, x, "r"); !slices.Equal(got, []string{"kept", "new"}) {
			t.Errorf("reading ended before the crash %t: answered %q", ended, got)
		}
	}
}
