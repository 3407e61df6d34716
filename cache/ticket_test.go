package cache

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
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

// comesBack makes an index in which restaurant r has the client old, and a lookup that reads r from
// src since ristretto had lost the posting, which it has again by now. The lookup's error comes later.
func comesBack(t *testing.T, src *slow) (*Index, <-chan error) {
	t.Helper()
	x := newIndex(t, 1<<20, src)
	store := &forgetful{lossy: x.shelf.lru}
	x.shelf.lru = store
	load(t, x, false, [2]string{"r", "old"})
	return x, readAnew(t, x, store, src.began)
}

// readAnew begins a reading of r, whose posting the store does not show for a moment, and shows again.
func readAnew(t *testing.T, x *Index, store *forgetful, began <-chan struct{}) <-chan error {
	t.Helper()
	store.miss.Store(true)
	read := make(chan error, 1)
	go func() {
		_, err := x.Lookup(within(t), "r")
		read <- err
	}()
	begun(t, began, read)
	store.miss.Store(false)
	return read
}

// TestPostingThatComesBackDuringAReading: a transaction that went to the ticket alone must
// not be missing from what ristretto suddenly has again.
func TestPostingThatComesBackDuringAReading(t *testing.T) {
	t.Parallel()
	src := &slow{ahead("new"), make(chan struct{}, 1), make(chan struct{})}
	x, read := comesBack(t, src)
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
	if len(src.began) > 0 {
		t.Error("the restaurant was read a second time meanwhile")
	}
	close(src.end)
	if err := <-read; err != nil {
		t.Fatal(err)
	}
}

// TestTruncateDuringAReading: a reading whose rows are of before a TRUNCATE, and which ends
// after it was applied, answers with what came since. Postgres lets no TRUNCATE go on while
// the reading's statement runs; but once its server has sent the rows, the log may be faster.
func TestTruncateDuringAReading(t *testing.T) {
	t.Parallel()
	rows := &table{rows: map[string][]string{"r": {"old"}}, snap: Snapshot{Xmin: 15, Xmax: 15}}
	src := &slow{rows, make(chan struct{}, 1), make(chan struct{})}
	x := newIndex(t, 1<<20, src)
	store := &forgetful{lossy: x.shelf.lru}
	x.shelf.lru = store
	load(t, x, false, [2]string{"r", "old"})
	store.miss.Store(true)
	read := make(chan []string, 1)
	go func() { read <- lookup(t, x, "r") }()
	begun(t, src.began, read)
	txn := x.NewTxn()
	if err := errors.Join(txn.Truncate(), txn.Insert(0, []byte("r"), []byte("new"))); err != nil {
		t.Fatal(err)
	}
	if err := x.Apply(txn, Commit{Xid: 20, End: 100}); err != nil {
		t.Fatal(err)
	}
	close(src.end)
	if got := <-read; !slices.Equal(got, []string{"new"}) {
		t.Errorf("answered %q, want what was inserted after the TRUNCATE", got)
	}
}

// TestTruncateLeavesNothing: neither what was staged before it in its transaction, nor ids,
// which RESTART IDENTITY gives out again, nor clients.
func TestTruncateLeavesNothing(t *testing.T) {
	t.Parallel()
	x := newIndex(t, 1<<20, ahead(""))
	x.sweepAt = 1
	load(t, x, true, [2]string{"r", "a"}, [2]string{"r", "b"}, [2]string{"s", "c"})
	txn := x.NewTxn()
	if err := errors.Join(txn.Insert(9, []byte("r"), []byte("staged")), txn.Truncate(), txn.Insert(1, []byte("r"), []byte("new"))); err != nil {
		t.Fatal(err)
	}
	if err := x.Apply(txn, Commit{Xid: 20, End: 100}); err != nil {
		t.Fatal(err)
	}
	for i := range 20 { // with a sweep after each
		if err := txn.Insert(int64(100+i), []byte("elsewhere"), []byte("somebody")); err != nil {
			t.Fatal(err)
		}
		if err := x.Apply(txn, Commit{Xid: uint64(21 + i), End: LSN(101 + i)}); err != nil {
			t.Fatal(err)
		}
	}
	if got, s := lookup(t, x, "s"), x.Stats(); len(got) > 0 || s.Clients != 2 {
		t.Errorf("s has %q; %d clients in the dictionary", got, s.Clients)
	}
	if e := x.cur.Load().dir.entry(mustFind(t, x.cur.Load().restaurants, "r")); e.rows != 1 {
		t.Errorf("r has %d rows, want the one inserted after the TRUNCATE", e.rows)
	}
}

func TestReplayBeginsAtTheLastTruncate(t *testing.T) {
	t.Parallel()
	p := newPosting([]uint32{1, 2}, new([]uint32))
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

// TestReadingThatEndsWhileATransactionIsApplied: what was found ahead of a restaurant's turn
// may be replaced before it, and the change belongs to what replaced it.
func TestReadingThatEndsWhileATransactionIsApplied(t *testing.T) {
	t.Parallel()
	src := &slow{&table{rows: map[string][]string{}, snap: Snapshot{Xmin: 10, Xmax: 10}}, make(chan struct{}, 1), make(chan struct{})}
	x := newIndex(t, 1<<20, src)
	store := &forgetful{lossy: x.shelf.lru}
	x.shelf.lru = store
	var rows [][2]string
	for i := range aheadLeast + 2 {
		r := fmt.Sprint(i)
		rows = append(rows, [2]string{r, "old"})
		src.rows[r] = []string{"old"}
	}
	load(t, x, false, rows...)
	number := func(row [2]string) uint32 {
		n, _ := x.cur.Load().restaurants.find([]byte(row[0]))
		return n
	}
	slices.SortFunc(rows, func(a, b [2]string) int { return cmp.Compare(number(a), number(b)) })
	first, last := rows[0][0], rows[len(rows)-1][0]

	store.miss.Store(true)
	read := make(chan error, 1)
	go func() {
		_, err := x.Lookup(context.Background(), last)
		read <- err
	}()
	<-src.began
	store.miss.Store(false)
	txn := x.NewTxn()
	for i := range breatheEvery { // so that it breathes behind the first restaurant
		rows = append(rows, [2]string{first, fmt.Sprint(i)})
	}
	for _, row := range rows {
		if err := txn.Insert(0, []byte(row[0]), []byte("new"+row[1])); err != nil {
			t.Fatal(err)
		}
	}
	breaths := 0
	txn.Breathe = func() {
		if breaths++; breaths == 2 { // the first is the sorting's
			close(src.end)
			if err := <-read; err != nil {
				t.Error(err)
			}
		}
	}
	if err := x.Apply(txn, Commit{Xid: 20, End: 100}); err != nil || breaths != 2 {
		t.Fatal(err, breaths)
	}
	x.shelf.settle()
	if got := lookup(t, x, last); !slices.Equal(slices.Sorted(slices.Values(got)), []string{"newold", "old"}) {
		t.Errorf("%q after the transaction", got)
	}
}

// TestBrokenReadingAnswersNobody: who waited for another lookup's reading reads on his own when
// that one breaks off.
func TestBrokenReadingAnswersNobody(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		down := errors.New("connection reset")
		src := &slow{&table{rows: map[string][]string{"r": {"a"}}, snap: Snapshot{Xmin: 10, Xmax: 10}, err: down}, make(chan struct{}, 1), make(chan struct{})}
		x := newIndex(t, 1, src) // nothing fits: every lookup reads
		load(t, x, false, [2]string{"r", "a"})
		broken, waited := make(chan error, 1), make(chan string, 1)
		go func() {
			_, err := x.Lookup(within(t), "r")
			broken <- err
		}()
		synctest.Wait() // it is in its reading
		go func() {
			r, err := x.Lookup(within(t), "r")
			if err != nil {
				waited <- err.Error()
				return
			}
			defer r.Release()
			waited <- fmt.Sprint(collect(r))
		}()
		synctest.Wait() // it waits for the reading
		e := x.cur.Load().dir.entry(mustFind(t, x.cur.Load().restaurants, "r"))
		reading := e.ticket
		src.err = nil
		close(src.end)
		if err := <-broken; !errors.Is(err, down) {
			t.Errorf("the lookup that read: %v, want the source's error", err)
		}
		e.mu.Lock()
		open := e.ticket == reading
		e.mu.Unlock()
		if open {
			t.Fatal("the ticket of the reading that failed is still open")
		}
		if got := <-waited; got != "[a]" {
			t.Errorf("the lookup that waited: %s, want what it read itself", got)
		}
	})
}

// TestContradictionOfAReadingEndsTheAnswers: the stream removed a row that a snapshot of before
// does not show. The lookup says so, and the next transaction leads to a rebuild.
func TestContradictionOfAReadingEndsTheAnswers(t *testing.T) {
	t.Parallel()
	src := &slow{&table{rows: map[string][]string{"r": {"b"}}, snap: Snapshot{Xmin: 15, Xmax: 15}}, make(chan struct{}, 1), make(chan struct{})}
	x := newIndex(t, 1, src)
	rows := [][2]string{{"r", "a"}, {"r", "b"}}
	load(t, x, false, rows...)
	read := make(chan error, 1)
	go func() {
		_, err := x.Lookup(within(t), "r")
		read <- err
	}()
	begun(t, src.began, read)
	txn := x.NewTxn()
	if err := errors.Join(txn.Delete(0, []byte("r"), []byte("a")), x.Apply(txn, Commit{Xid: 20, End: 100})); err != nil {
		t.Fatal(err)
	}
	close(src.end)
	if err := <-read; !errors.Is(err, ErrInconsistent) {
		t.Errorf("lookup: %v, want ErrInconsistent", err)
	}
	next := func() error {
		return errors.Join(txn.Insert(0, []byte("s"), []byte("c")), x.Apply(txn, Commit{Xid: 21, End: 200}))
	}
	if err := next(); !errors.Is(err, ErrInconsistent) {
		t.Errorf("the next transaction: %v, want ErrInconsistent", err)
	}
	if x.Stats().Loaded {
		t.Error("lookups are still answered")
	}
	load(t, x, false, rows...)
	if err := next(); err != nil {
		t.Errorf("after the rebuild: %v", err)
	}
}

// TestPostingThatMissedAChangeIsLeftAlone: a reading that broke off kept a change from the
// posting of before. What the stream brings next is not for that posting: it would contradict it.
func TestPostingThatMissedAChangeIsLeftAlone(t *testing.T) {
	t.Parallel()
	down := errors.New("connection reset")
	src := &slow{&table{rows: map[string][]string{"r": {"old"}}, snap: Snapshot{Xmin: 50, Xmax: 50}, err: down}, make(chan struct{}, 1), make(chan struct{})}
	x, read := comesBack(t, src)
	txn := x.NewTxn()
	if err := errors.Join(txn.Insert(0, []byte("r"), []byte("new")), x.Apply(txn, Commit{Xid: 20, End: 100})); err != nil {
		t.Fatal(err)
	}
	close(src.end)
	if err := <-read; !errors.Is(err, down) {
		t.Fatalf("lookup: %v, want the source's error", err)
	}
	if err := errors.Join(txn.Delete(0, []byte("r"), []byte("new")), x.Apply(txn, Commit{Xid: 21, End: 200})); err != nil {
		t.Fatalf("the row that the posting never had: %v", err)
	}
	src.err = nil
	if got := lookup(t, x, "r"); !slices.Equal(got, []string{"old"}) {
		t.Errorf("read %q", got)
	}
}

// undying is a store that keeps what it is told to delete.
type undying struct{ lossy }

func (undying) Del(uint64) {}

// TestPostingOfBeforeATruncateAnswersNobody: not even when it is still on the shelf.
func TestPostingOfBeforeATruncateAnswersNobody(t *testing.T) {
	t.Parallel()
	x := newIndex(t, 1<<20, &table{rows: map[string][]string{"r": {"new"}}, snap: Snapshot{Xmin: 50, Xmax: 50}})
	x.shelf.lru = undying{x.shelf.lru}
	load(t, x, false, [2]string{"r", "old"})
	txn := x.NewTxn()
	if err := errors.Join(txn.Truncate(), txn.Insert(0, []byte("r"), []byte("new")), x.Apply(txn, Commit{Xid: 20, End: 100})); err != nil {
		t.Fatal(err)
	}
	if got := lookup(t, x, "r"); !slices.Equal(got, []string{"new"}) {
		t.Errorf("answered %q, want what was inserted after the TRUNCATE", got)
	}
}

// TestPostingAheadOfTheStreamCountsOnce: what a reading saw already is not added when the stream
// brings it.
func TestPostingAheadOfTheStreamCountsOnce(t *testing.T) {
	t.Parallel()
	x := aheadOfTheStream(t, ahead("new"))
	txn := x.NewTxn()
	if err := errors.Join(
		txn.Insert(0, []byte("r"), []byte("new")), x.Apply(txn, Commit{Xid: 20, End: 100}),
		txn.Delete(0, []byte("r"), []byte("new")), x.Apply(txn, Commit{Xid: 6000, End: 200}),
	); err != nil {
		t.Fatal(err)
	}
	x.Settle(Snapshot{Xmin: 6001, Xmax: 6001}) // else a lookup that reads would wait for the source, which stays as it is
	if got := lookup(t, x, "r"); !slices.Equal(got, []string{"old"}) {
		t.Errorf("after the one row was removed: %q", got)
	}
}

// lagging is a Source that shows what was committed from its second reading on.
type lagging struct {
	first, then table
	readings    atomic.Int32
}

func (s *lagging) ReadRestaurant(ctx context.Context, restaurant string, add func([]byte) error) (Snapshot, error) {
	if s.readings.Add(1) == 1 {
		return s.first.ReadRestaurant(ctx, restaurant, add)
	}
	return s.then.ReadRestaurant(ctx, restaurant, add)
}

// TestReadingThatLacksWhatWasAppliedIsMadeAgain: a transaction is streamed before snapshots show
// it, and a lookup behind it must not answer without it.
func TestReadingThatLacksWhatWasAppliedIsMadeAgain(t *testing.T) {
	t.Parallel()
	src := &lagging{
		first: table{rows: map[string][]string{"r": {"old"}}, snap: Snapshot{Xmin: 20, Xmax: 20}},
		then:  table{rows: map[string][]string{"r": {"old", "new"}}, snap: Snapshot{Xmin: 21, Xmax: 21}},
	}
	x := newIndex(t, 1, src) // nothing fits: every lookup reads
	load(t, x, false, [2]string{"r", "old"})
	txn := x.NewTxn()
	if err := errors.Join(txn.Insert(0, []byte("r"), []byte("new")), x.Apply(txn, Commit{Xid: 20, End: 100})); err != nil {
		t.Fatal(err)
	}
	if got := lookup(t, x, "r"); !slices.Equal(got, []string{"new", "old"}) || src.readings.Load() != 2 {
		t.Errorf("%q after %d readings", got, src.readings.Load())
	}
}
