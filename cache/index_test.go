package cache

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// table is a Source of fixed rows.
type table struct {
	rows map[string][]string
	snap Snapshot
	err  error
}

func (s *table) ReadRestaurant(_ context.Context, restaurant string, add func([]byte) error) (Snapshot, error) {
	for _, c := range s.rows[restaurant] {
		if err := add([]byte(c)); err != nil {
			return Snapshot{}, err
		}
	}
	return s.snap, s.err
}

func newIndex(t *testing.T, budget int64, src Source) *Index {
	t.Helper()
	x, err := New(Config{Budget: budget}, src)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(x.Close)
	return x
}

// load fills the index with rows "restaurant", "client", ids counting from 1.
func load(t *testing.T, x *Index, keyed bool, rows ...[2]string) {
	t.Helper()
	l := x.BeginLoad(keyed)
	for i, r := range rows {
		if err := l.Add(int64(i+1), []byte(r[0]), []byte(r[1])); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Finish(Snapshot{Xmin: 10, Xmax: 10}); err != nil {
		t.Fatal(err)
	}
}

func lookup(t *testing.T, x *Index, restaurant string) []string {
	t.Helper()
	r, err := x.Lookup(within(t), restaurant)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Release()
	return collect(r)
}

// within bounds a lookup: only a failing test waits that long.
func within(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func TestConfigFaultsAreNamed(t *testing.T) {
	t.Parallel()
	if _, err := New(Config{}, &table{}); err == nil {
		t.Error("a budget of 0 was taken")
	}
	if _, err := New(Config{Budget: 1}, nil); err == nil {
		t.Error("no source was taken")
	}
}

// A row that a snapshot shows twice is no row: what the load believes to know is wrong.
func TestLoadRefusesAnIDTwice(t *testing.T) {
	t.Parallel()
	x := newIndex(t, 1<<20, &table{})
	l := x.BeginLoad(true)
	b := l.Batch()
	for id := range int64(batchMax) {
		if err := b.Add(id, []byte("r"), fmt.Append(nil, id)); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(b.Add(7, []byte("r"), []byte("c")), b.Flush()); !errors.Is(err, ErrInconsistent) {
		t.Errorf("7 twice: %v, want ErrInconsistent", err)
	}
	l.Abort()
}

func TestLookupsWaitForTheLoad(t *testing.T) {
	t.Parallel()
	x := newIndex(t, 1<<20, &table{})
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if _, err := x.Lookup(ctx, "r"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("before the load: %v, want the deadline's error", err)
	}
	got := make(chan []string)
	go func() {
		r, err := x.Lookup(within(t), "r")
		if err != nil {
			close(got)
			return
		}
		defer r.Release()
		got <- collect(r)
	}()
	load(t, x, false, [2]string{"r", "a"}, [2]string{"r", "b"}, [2]string{"r", "a"})
	if g := <-got; !slices.Equal(g, []string{"a", "b"}) {
		t.Errorf("after the load: %q, want a and b once each", g)
	}
	l := x.BeginLoad(false)
	waiting := make(chan error)
	go func() {
		_, err := x.Lookup(within(t), "r")
		waiting <- err
	}()
	l.Abort()
	x.Close()
	if err := <-waiting; !errors.Is(err, ErrClosed) {
		t.Errorf("after Close: %v, want ErrClosed", err)
	}
}

// TestContradictionsStopAnswers: what cannot be true is an error that leads to a rebuild,
// and no lookup is answered from what is left.
func TestContradictionsStopAnswers(t *testing.T) {
	t.Parallel()
	b := func(s string) []byte { return []byte(s) }
	for name, c := range map[string]struct {
		keyed bool
		do    func(*Txn) error
		want  error
	}{
		"unknown id deleted":    {true, func(t *Txn) error { return t.DeleteID(99) }, ErrUnknownID},
		"unknown id updated":    {true, func(t *Txn) error { return t.UpdateID(99, b("r"), b("c")) }, ErrUnknownID},
		"id inserted twice":     {true, func(t *Txn) error { return t.Insert(1, b("r"), b("c")) }, ErrInconsistent},
		"id moved onto another": {true, func(t *Txn) error { return t.MoveID(1, 2, nil, nil) }, ErrInconsistent},
		"half of one set aside": {true, func(t *Txn) error {
			return errors.Join(t.Insert(50, b(Nothing), b(Nothing)), t.UpdateID(50, b("r"), nil))
		}, ErrInconsistent},
		"pair only, ids needed": {true, func(t *Txn) error { return t.Delete(0, b("r"), b("a")) }, ErrIdentity},
		"id only, pairs needed": {false, func(t *Txn) error { return t.DeleteID(1) }, ErrIdentity},
		"unknown client":        {false, func(t *Txn) error { return t.Delete(0, b("r"), b("nobody")) }, ErrInconsistent},
		"client of others":      {false, func(t *Txn) error { return t.Delete(0, b("r"), b("z")) }, ErrInconsistent},
		"unknown restaurant":    {false, func(t *Txn) error { return t.Delete(0, b("nowhere"), b("a")) }, ErrInconsistent},
		"more removed than there is": {false, func(t *Txn) error {
			return errors.Join(t.Delete(0, b("r2"), b("z")), t.Delete(0, b("r2"), b("z")))
		}, ErrInconsistent},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			x := newIndex(t, 1<<20, &table{})
			rows := [][2]string{{"r", "a"}, {"r", "b"}, {"r2", "z"}}
			load(t, x, c.keyed, rows...)
			txn := x.NewTxn()
			if err := c.do(txn); err != nil {
				t.Fatal(err)
			}
			err := x.Apply(txn, Commit{Xid: 20, End: 100})
			if !errors.Is(err, c.want) || !errors.Is(err, ErrInconsistent) {
				t.Errorf("apply: %v, want %v", err, c.want)
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
			defer cancel()
			if _, err := x.Lookup(ctx, "r"); err == nil {
				t.Error("a lookup was answered")
			}
			if err := x.Apply(txn, Commit{Xid: 21, End: 200}); !errors.Is(err, ErrNotLoaded) {
				t.Errorf("apply once more: %v, want ErrNotLoaded", err)
			}
			load(t, x, c.keyed, rows...)
			if got := lookup(t, x, "r"); !slices.Equal(got, []string{"a", "b"}) {
				t.Errorf("after the rebuild: %q", got)
			}
		})
	}
}

// blocked is a Source whose reading ends when the test says so.
type blocked struct {
	table
	began, end chan struct{}
}

func (s *blocked) ReadRestaurant(ctx context.Context, restaurant string, add func([]byte) error) (Snapshot, error) {
	signal(s.began)
	<-s.end
	return s.table.ReadRestaurant(ctx, restaurant, add)
}

func TestReadingIsNotAnsweredAfterAContradiction(t *testing.T) {
	t.Parallel()
	src := &blocked{
		table: table{rows: map[string][]string{"r": {"stale"}}, snap: Snapshot{Xmin: 10, Xmax: 10}},
		began: make(chan struct{}, 1), end: make(chan struct{}),
	}
	x := newIndex(t, 1, src)
	load(t, x, true, [2]string{"r", "a"})
	got := make(chan error, 1)
	go func() {
		_, err := x.Lookup(within(t), "r")
		got <- err
	}()
	begun(t, src.began, got)
	txn := x.NewTxn()
	if err := txn.DeleteID(99); err != nil {
		t.Fatal(err)
	}
	if err := x.Apply(txn, Commit{Xid: 20, End: 100}); !errors.Is(err, ErrUnknownID) {
		t.Fatal(err)
	}
	close(src.end)
	x.Close()
	if err := <-got; !errors.Is(err, ErrClosed) {
		t.Errorf("lookup: %v, want ErrClosed", err)
	}
}

// TestPartOfATransactionAnswersNobody: a lookup that began before a contradiction was met starts
// again, whatever the transaction has already changed.
func TestPartOfATransactionAnswersNobody(t *testing.T) {
	t.Parallel()
	x := newIndex(t, 1<<20, &table{rows: map[string][]string{"r": {"a"}}, snap: Snapshot{Xmin: 50, Xmax: 50}})
	load(t, x, false, [2]string{"r", "a"}, [2]string{"s", "elsewhere"})
	st := x.serving.Load()
	txn := x.NewTxn()
	if err := errors.Join(txn.Insert(0, []byte("r"), []byte("new")), txn.Delete(0, []byte("r"), []byte("elsewhere"))); err != nil {
		t.Fatal(err)
	}
	if err := x.Apply(txn, Commit{Xid: 20, End: 100}); !errors.Is(err, ErrInconsistent) {
		t.Fatalf("apply: %v, want ErrInconsistent", err)
	}
	if r, err := x.lookup(within(t), st, "r", math.MaxInt); !errors.Is(err, errWithdrawn) {
		t.Errorf("lookup: %v, %v, want that it starts again", r, err)
	}
}

// TestLoadedTransactionMayNameWhatTheIndexNeverHad: it is skipped before it is understood.
func TestLoadedTransactionMayNameWhatTheIndexNeverHad(t *testing.T) {
	t.Parallel()
	x := newIndex(t, 1<<20, &table{})
	load(t, x, true, [2]string{"r", "a"})
	txn := x.NewTxn()
	if err := errors.Join(txn.DeleteID(77), txn.Delete(0, []byte("r"), []byte("x"))); err != nil {
		t.Fatal(err)
	}
	if err := x.Apply(txn, Commit{Xid: 9, End: 50}); err != nil {
		t.Errorf("a transaction that the load saw: %v", err)
	}
	if got := x.Settle(Snapshot{}); got != MaxLSN {
		t.Errorf("settled up to %s, want everything", got)
	}
}

// TestTransactionSentAgainIsSkipped: until the index is loaded anew. Then positions of before say
// nothing about what it holds.
func TestTransactionSentAgainIsSkipped(t *testing.T) {
	t.Parallel()
	x := newIndex(t, 1<<20, &table{})
	load(t, x, false)
	txn := x.NewTxn()
	for _, want := range []int64{1, 1} {
		if err := errors.Join(txn.Insert(0, []byte("r"), []byte("a")), x.Apply(txn, Commit{Xid: 20, End: 100})); err != nil {
			t.Fatal(err)
		}
		if got := x.Stats().Subscriptions; got != want {
			t.Errorf("%d rows, want %d", got, want)
		}
	}
	load(t, x, false, [2]string{"r", "a"})
	if err := errors.Join(txn.Insert(0, []byte("r"), []byte("b")), x.Apply(txn, Commit{Xid: 19, End: 90})); err != nil {
		t.Fatal(err)
	}
	if got := lookup(t, x, "r"); !slices.Equal(got, []string{"a", "b"}) {
		t.Errorf("after the rebuild: %q", got)
	}
}

func TestSettleStopsBeforeTheFirstInvisible(t *testing.T) {
	t.Parallel()
	x := newIndex(t, 1<<20, &table{})
	load(t, x, false)
	for i, xid := range []uint64{20, 22, 21} {
		txn := x.NewTxn()
		if err := txn.Insert(0, []byte("r"), fmt.Append(nil, i)); err != nil {
			t.Fatal(err)
		}
		if err := x.Apply(txn, Commit{Xid: xid, End: LSN(100 * (i + 1))}); err != nil {
			t.Fatal(err)
		}
	}
	for _, step := range []struct {
		s    Snapshot
		want LSN
	}{
		{Snapshot{Xmin: 20, Xmax: 20}, 0},
		{Snapshot{Xmin: 21, Xmax: 23, InProgress: []uint64{22}}, 100},
		{Snapshot{Xmin: 23, Xmax: 23}, MaxLSN},
	} {
		if got := x.Settle(step.s); got != step.want {
			t.Errorf("snapshot %v: settled up to %s, want %s", step.s, got, step.want)
		}
	}
}

func TestSourceErrorReachesTheLookupAlone(t *testing.T) {
	t.Parallel()
	down := errors.New("connection refused")
	src := &table{rows: map[string][]string{"r": {"a"}}, snap: Snapshot{Xmin: 10, Xmax: 10}, err: down}
	x := newIndex(t, 1, src) // nothing fits: every lookup reads
	load(t, x, false, [2]string{"r", "a"})
	if _, err := x.Lookup(t.Context(), "r"); !errors.Is(err, down) {
		t.Errorf("lookup: %v, want the source's error", err)
	}
	if e := x.cur.Load().dir.entry(mustFind(t, x.cur.Load().restaurants, "r")); e.ticket != nil {
		t.Fatal("the ticket of the reading that failed is still open")
	}
	src.err = nil
	if got := lookup(t, x, "r"); !slices.Equal(got, []string{"a"}) {
		t.Errorf("after the source came back: %q", got)
	}
	if oldest := x.cur.Load().pins.oldest(); len(x.cur.Load().pins.active) != 0 {
		t.Errorf("a pin of epoch %d was left behind", oldest)
	}
}

func TestLoadStaysWithinTheBudget(t *testing.T) {
	t.Parallel()
	const budget = 64 << 10
	src := &table{rows: map[string][]string{}, snap: Snapshot{Xmin: 10, Xmax: 10}}
	x := newIndex(t, budget, src)
	l := x.BeginLoad(false)
	most := int64(0)
	for i := range 100_000 {
		r, c := fmt.Sprint(i%300), fmt.Sprint(i)
		src.rows[r] = append(src.rows[r], c)
		if err := l.Add(0, []byte(r), []byte(c)); err != nil {
			t.Fatal(err)
		}
		most = max(most, l.taken.Load())
	}
	if err := l.Finish(src.snap); err != nil {
		t.Fatal(err)
	}
	if used := x.Stats().PostingBytes; most > budget || used > budget {
		t.Errorf("%d bytes while loading, %d afterwards, of %d", most, used, budget)
	}
	for r, want := range src.rows {
		slices.Sort(want)
		if got := lookup(t, x, r); !slices.Equal(got, want) {
			t.Fatalf("restaurant %s has %d clients, want %d", r, len(got), len(want))
		}
	}
}

// TestRestaurantWithoutRowsIsNotRead: that it has none is known exactly, whatever has become of
// its posting.
func TestRestaurantWithoutRowsIsNotRead(t *testing.T) {
	t.Parallel()
	x := newIndex(t, 1<<20, &table{err: errors.New("connection refused")})
	load(t, x, false, [2]string{"r", "a"}, [2]string{"s", "a"})
	txn := x.NewTxn()
	if err := errors.Join(txn.Truncate(), txn.Insert(0, []byte("s"), []byte("b")), x.Apply(txn, Commit{Xid: 20, End: 100})); err != nil {
		t.Fatal(err)
	}
	if got := lookup(t, x, "r"); len(got) > 0 {
		t.Errorf("after a TRUNCATE: %q", got)
	}
}

// TestPostingThatOutgrowsTheBudgetLeavesTheShelf: what a posting takes is known again at every
// change, and one that is too large is read through like one that never fitted.
func TestPostingThatOutgrowsTheBudgetLeavesTheShelf(t *testing.T) {
	t.Parallel()
	src := &table{rows: map[string][]string{"r": {"0"}}, snap: Snapshot{Xmin: 50, Xmax: 50}}
	x := newIndex(t, 2048, src)
	load(t, x, false, [2]string{"r", "0"})
	n := mustFind(t, x.cur.Load().restaurants, "r")
	if x.shelf.find(n) == nil {
		t.Fatal("a posting that fits is not in memory")
	}
	txn := x.NewTxn()
	for i := range 1000 {
		src.rows["r"] = append(src.rows["r"], fmt.Sprint(i+1))
		if err := txn.Insert(0, []byte("r"), fmt.Append(nil, i+1)); err != nil {
			t.Fatal(err)
		}
	}
	if err := x.Apply(txn, Commit{Xid: 20, End: 100}); err != nil {
		t.Fatal(err)
	}
	if x.shelf.settle(); x.shelf.find(n) != nil {
		t.Error("a posting of twice the budget stays in memory")
	}
	if err := errors.Join(txn.Delete(0, []byte("r"), []byte("0")), x.Apply(txn, Commit{Xid: 21, End: 200})); err != nil {
		t.Fatal(err)
	}
	src.rows["r"] = src.rows["r"][1:]
	if got := lookup(t, x, "r"); len(got) != 1000 {
		t.Errorf("%d clients, want 1000", len(got))
	}
}

func TestMetricsShowTheIndex(t *testing.T) {
	t.Parallel()
	reg := prometheus.NewPedanticRegistry()
	src := &table{rows: map[string][]string{"r": {"a"}}, snap: Snapshot{Xmin: 10, Xmax: 10}}
	x, err := New(Config{Budget: 1, Metrics: NewMetrics(reg)}, src)
	if err != nil {
		t.Fatal(err)
	}
	defer x.Close()
	load(t, x, true, [2]string{"r", "a"}, [2]string{"r", "a"})
	lookup(t, x, "r")
	lookup(t, x, "elsewhere")
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			name := f.GetName()
			for _, l := range m.GetLabel() {
				name += "/" + l.GetValue()
			}
			got[name] = m.GetGauge().GetValue() + m.GetCounter().GetValue()
		}
	}
	for name, want := range map[string]float64{
		"tiffin_index_subscriptions": 2, "tiffin_index_restaurants": 1,
		"tiffin_index_lookups_total/filled": 1, "tiffin_index_lookups_total/empty": 1, "tiffin_index_lookups_total/resident": 0,
	} {
		if got[name] != want {
			t.Errorf("%s is %v, want %v", name, got[name], want)
		}
	}
	if got["tiffin_index_bytes"] < 100 {
		t.Errorf("tiffin_index_bytes is %v", got["tiffin_index_bytes"])
	}
}

// A lookup that may not read much fails where it would have to: by the exact number of rows, and by
// whether the posting counts.
func TestLookupReadsNoMoreThanItMay(t *testing.T) {
	t.Parallel()
	x := newIndex(t, 1<<20, &table{rows: map[string][]string{"r": {"a", "b", "c"}}, snap: Snapshot{Xmin: 1000, Xmax: 1000}})
	store := &forgetful{lossy: x.shelf.lru}
	x.shelf.lru = store
	load(t, x, false, [2]string{"r", "a"}, [2]string{"r", "b"}, [2]string{"r", "c"})
	x.shelf.lru.Wait()
	try := func(restaurant string, rows int) error {
		r, err := x.LookupReading(t.Context(), restaurant, rows)
		if err == nil {
			r.Release()
		}
		return err
	}
	if err := try("r", 2); err != nil {
		t.Errorf("a posting in memory is not read: %v", err)
	}
	if err := try("unknown", 0); err != nil {
		t.Errorf("an unknown restaurant is not read: %v", err)
	}
	store.miss.Store(true)
	if err := try("r", 2); !errors.Is(err, ErrManyRows) {
		t.Errorf("three rows, of which two may be read: %v", err)
	}
	if err := try("r", 3); err != nil {
		t.Errorf("three rows, all of which may be read: %v", err)
	}
}
