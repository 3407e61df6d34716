package cache

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
)

// TestClientsWithoutRowsAreReclaimed: the dictionary does not grow with everybody who ever
// subscribed, and what was handed out before stays readable.
func TestClientsWithoutRowsAreReclaimed(t *testing.T) {
	t.Parallel()
	x := newIndex(t, 1<<20, &table{})
	x.sweepAt = 100
	load(t, x, false, [2]string{"r", "stays"})
	txn, xid := x.NewTxn(), uint64(100)
	apply := func() {
		t.Helper()
		xid++
		if err := x.Apply(txn, Commit{Xid: xid, End: LSN(xid)}); err != nil {
			t.Fatal(err)
		}
		x.Settle(Snapshot{Xmin: xid + 1, Xmax: xid + 1})
	}
	name := func(round, i int) []byte { return fmt.Appendf(nil, "%08x-0000-4000-8000-%012x", round, i) }
	var held *Recipients
	var want []string
	for round := range 50 {
		for i := range 200 {
			if err := txn.Insert(0, []byte("r"), name(round, i)); err != nil {
				t.Fatal(err)
			}
		}
		apply()
		if round == 20 {
			var err error
			if held, err = x.Lookup(t.Context(), "r"); err != nil {
				t.Fatal(err)
			}
			want = collect(held)
		}
		for i := range 200 {
			if err := txn.Delete(0, []byte("r"), name(round, i)); err != nil {
				t.Fatal(err)
			}
		}
		apply()
		if round == 30 {
			if got := x.Stats().Clients; got < 2000 {
				t.Errorf("%d clients: some were reclaimed while recipients from before were in use", got)
			}
			if got := collect(held); len(want) != 201 || !slices.Equal(got, want) {
				t.Errorf("recipients in use became %d clients of %d, or others", len(got), len(want))
			}
			held.Release()
			held.Release() // a second call does no harm
		}
	}
	if got := x.Stats().Clients; got > 600 {
		t.Errorf("%d clients in the dictionary, 1 has a subscription", got)
	}
	if got := lookup(t, x, "r"); !slices.Equal(got, []string{"stays"}) {
		t.Errorf("left are %q", got)
	}
}

// ahead is a Source that shows a row whose transaction the stream has not brought yet.
func ahead(client string) *table {
	return &table{rows: map[string][]string{"r": {"old", client}}, snap: Snapshot{Xmin: 5000, Xmax: 5000}}
}

// manyMore clients take every number that is free: it is of one shard of 64, by chance.
const manyMore = 1000

// elsewhere applies transactions that give clients of another restaurant numbers, with a
// sweep after each.
func elsewhere(t *testing.T, x *Index, n int) {
	t.Helper()
	txn := x.NewTxn()
	for range n {
		next := int(x.applied) + 1
		if err := txn.Insert(0, []byte("elsewhere"), fmt.Append(nil, "somebody ", next)); err != nil {
			t.Fatal(err)
		}
		if err := x.Apply(txn, Commit{Xid: uint64(2000 + next), End: LSN(next)}); err != nil {
			t.Fatal(err)
		}
	}
	x.Settle(Snapshot{Xmin: 5000, Xmax: 5000})
}

// slow is a Source that stops between the rows and the end of a reading; began has room for one.
type slow struct {
	*table
	began, end chan struct{}
}

func (s *slow) ReadRestaurant(ctx context.Context, restaurant string, add func([]byte) error) (Snapshot, error) {
	snap, err := s.table.ReadRestaurant(ctx, restaurant, add)
	signal(s.began)
	return snap, errors.Join(err, s.released(ctx))
}

func (s *slow) released(ctx context.Context) error {
	select {
	case <-s.end:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func signal(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default: // it was told
	}
}

// begun waits until a reading has begun; a lookup that ends before needed none.
func begun[T any](t *testing.T, began <-chan struct{}, ended <-chan T) {
	t.Helper()
	select {
	case <-began:
	case got := <-ended:
		t.Fatalf("answered without a reading: %v", got)
	}
}

// TestSweepSparesWhatAReadingHolds: the same while the reading is still under way.
func TestSweepSparesWhatAReadingHolds(t *testing.T) {
	t.Parallel()
	src := &slow{ahead("new"), make(chan struct{}, 1), make(chan struct{})}
	x := newIndex(t, 1<<20, src)
	x.sweepAt = 1
	load(t, x, false, [2]string{"r", "old"}, [2]string{"elsewhere", "x"})
	st := x.cur.Load()
	e := st.dir.entry(mustFind(t, st.restaurants, "r"))
	e.mu.Lock()
	e.disown()
	e.mu.Unlock()
	read := make(chan error, 1)
	go func() {
		r, err := x.Lookup(within(t), "r")
		if err == nil {
			r.Release()
		}
		read <- err
	}()
	begun(t, src.began, read)
	elsewhere(t, x, 1)
	close(src.end)
	if err := <-read; err != nil {
		t.Fatal(err)
	}
	x.shelf.settle()
	elsewhere(t, x, manyMore)
	if got := lookup(t, x, "r"); !slices.Equal(got, []string{"new", "old"}) {
		t.Errorf("after others took numbers: %q", got)
	}
}

// TestPostingAheadOfTheStreamKeepsItsClients: a number that only a posting filled ahead of
// the stream knows is not given to anybody else.
func TestPostingAheadOfTheStreamKeepsItsClients(t *testing.T) {
	t.Parallel()
	x := aheadOfTheStream(t, ahead("new"))
	elsewhere(t, x, manyMore)
	if got := lookup(t, x, "r"); !slices.Equal(got, []string{"new", "old"}) {
		t.Errorf("after others took numbers: %q", got)
	}
}

// aheadOfTheStream is an index whose posting of r has clients "old" and, without a row, "new".
func aheadOfTheStream(t *testing.T, src Source) *Index {
	t.Helper()
	x := newIndex(t, 1<<20, src)
	x.sweepAt = 1
	load(t, x, false, [2]string{"r", "old"}, [2]string{"elsewhere", "x"})
	e := x.cur.Load().dir.entry(mustFind(t, x.cur.Load().restaurants, "r"))
	e.mu.Lock()
	e.disown() // as an eviction does: the next lookup reads
	e.mu.Unlock()
	if got := lookup(t, x, "r"); !slices.Equal(got, []string{"new", "old"}) {
		t.Fatalf("read %q", got)
	}
	x.shelf.settle()
	return x
}

// TestSweepSparesWhatRecipientsHold: recipients that came from the posting before it was
// disowned.
func TestSweepSparesWhatRecipientsHold(t *testing.T) {
	t.Parallel()
	x := aheadOfTheStream(t, ahead("new"))
	x.cur.Load().pins.advance() // the pin is younger than the number
	held, err := x.Lookup(within(t), "r")
	if err != nil {
		t.Fatal(err)
	}
	defer held.Release()
	elsewhere(t, x, manyMore)
	if got := collect(held); !slices.Equal(got, []string{"new", "old"}) {
		t.Errorf("recipients in use became %q", got)
	}
}

// lost is a Source whose readings, once on is set, wait for end and then fail.
type lost struct {
	*table
	on         atomic.Bool
	began, end chan struct{}
}

func (s *lost) ReadRestaurant(ctx context.Context, restaurant string, add func([]byte) error) (Snapshot, error) {
	if !s.on.Load() {
		return s.table.ReadRestaurant(ctx, restaurant, add)
	}
	signal(s.began)
	select {
	case <-s.end:
		return Snapshot{}, errors.New("connection lost")
	case <-ctx.Done():
		return Snapshot{}, ctx.Err()
	}
}

// TestSweepBarsWhatIsReadAnew: a posting that ristretto did not show for a moment, so that it is being read anew, counts
// again when it is shown again and the reading fails. What it holds is no less bound for that.
func TestSweepBarsWhatIsReadAnew(t *testing.T) {
	t.Parallel()
	src := &lost{table: ahead("new"), began: make(chan struct{}, 1), end: make(chan struct{})}
	x := aheadOfTheStream(t, src)
	x.cur.Load().pins.advance()
	store := &forgetful{lossy: x.shelf.lru}
	x.shelf.lru = store
	src.on.Store(true)
	read := readAnew(t, x, store, src.began)
	elsewhere(t, x, 1)
	close(src.end)
	if err := <-read; err == nil {
		t.Fatal("the reading did not fail")
	}
	src.on.Store(false)
	elsewhere(t, x, manyMore)
	if got := lookup(t, x, "r"); !slices.Equal(got, []string{"new", "old"}) {
		t.Errorf("after others took numbers: %q", got)
	}
}

// telling is a store that calls told at its next Get, once.
type telling struct {
	lossy
	told func(key uint64)
}

func (s *telling) Get(key uint64) (*posting, bool) {
	if told := s.told; told != nil {
		s.told = nil
		told(key)
	}
	return s.lossy.Get(key)
}

// TestSweepSparesWhatIsHandedOutMeanwhile: between the choice of the numbers and the end of the
// look at all postings, one that was not looked at yet still answers with them.
func TestSweepSparesWhatIsHandedOutMeanwhile(t *testing.T) {
	t.Parallel()
	src := ahead("new")
	src.rows["s"] = src.rows["r"]
	x := newIndex(t, 1<<20, src)
	x.sweepAt = 1
	load(t, x, false, [2]string{"r", "old"}, [2]string{"s", "old"}, [2]string{"elsewhere", "x"})
	names := map[uint64]string{}
	for _, name := range []string{"r", "s"} {
		n := mustFind(t, x.cur.Load().restaurants, name)
		e := x.cur.Load().dir.entry(n)
		e.mu.Lock()
		e.disown() // as an eviction does: the next lookup reads
		e.mu.Unlock()
		if got := lookup(t, x, name); !slices.Equal(got, []string{"new", "old"}) {
			t.Fatalf("read %q", got)
		}
		names[uint64(n)] = name
	}
	x.shelf.settle()
	var held *Recipients
	x.shelf.lru = &telling{x.shelf.lru, func(key uint64) { // the sweep looks at the first of the two
		delete(names, key)
		for _, other := range names {
			var err error
			if held, err = x.Lookup(within(t), other); err != nil {
				t.Error(err)
			}
		}
	}}
	elsewhere(t, x, 1)
	if held == nil {
		t.Fatal("nothing was looked up during the sweep")
	}
	defer held.Release()
	elsewhere(t, x, manyMore)
	if got := collect(held); !slices.Equal(got, []string{"new", "old"}) {
		t.Errorf("recipients in use became %q", got)
	}
}

// TestSweepDisownsWhatItDoesNotSee: a posting that the store does not show during the sweep
// may come back; what it says of then must not count.
func TestSweepDisownsWhatItDoesNotSee(t *testing.T) {
	t.Parallel()
	x := aheadOfTheStream(t, ahead("new"))
	store := &forgetful{lossy: x.shelf.lru}
	x.shelf.lru = store
	store.miss.Store(true)
	elsewhere(t, x, manyMore)
	store.miss.Store(false)
	if got := lookup(t, x, "r"); !slices.Equal(got, []string{"new", "old"}) {
		t.Errorf("after others took numbers: %q", got)
	}
}

func mustFind(t *testing.T, d *dictionary, s string) uint32 {
	t.Helper()
	n, ok := d.find([]byte(s))
	if !ok {
		t.Fatalf("%q has no number", s)
	}
	return n
}
