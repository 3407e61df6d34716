package cache

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"testing"
)

// newSmallIndex spills after 64 KiB staged and after a thousand changes resolved.
func newSmallIndex(t *testing.T, dir string, src Source) *Index {
	t.Helper()
	x, err := New(Config{Budget: 64 << 20, SpillDir: dir}, src)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(x.Close)
	x.staged, x.changes.most = 1, 1000
	return x
}

// bulk stages random changes by id, and keeps account of them.
type bulk struct {
	t    *testing.T
	txn  *Txn
	rng  *rand.Rand
	rows map[int64][2]string
	ids  []int64
	next int64
}

func (b *bulk) pair() (r, c string) {
	r = fmt.Sprintf("r%d", b.rng.IntN(40))
	if b.rng.IntN(3) == 0 {
		r = "large" // takes several portions, and a bitmap
	}
	return r, fmt.Sprintf("11111111-0000-4000-8000-%012x", b.rng.IntN(30_000))
}

func (b *bulk) change() {
	var err error
	r, c := b.pair()
	if len(b.ids) == 0 || b.rng.IntN(3) > 0 {
		b.next++
		b.ids = append(b.ids, b.next)
		b.rows[b.next] = [2]string{r, c}
		err = b.txn.Insert(b.next, []byte(r), []byte(c))
	} else if i := b.rng.IntN(len(b.ids)); b.rng.IntN(2) == 0 {
		b.rows[b.ids[i]] = [2]string{r, c}
		err = b.txn.UpdateID(b.ids[i], []byte(r), []byte(c))
	} else {
		err = b.txn.DeleteID(b.ids[i])
		delete(b.rows, b.ids[i])
		b.ids[i] = b.ids[len(b.ids)-1]
		b.ids = b.ids[:len(b.ids)-1]
	}
	if err != nil {
		b.t.Fatal(err)
	}
}

// load gives every restaurant a posting that the changes meet.
func (b *bulk) load(x *Index) {
	b.t.Helper()
	list := [][2]string{{"large", "c"}}
	for i := range 40 {
		list = append(list, [2]string{fmt.Sprintf("r%d", i), "c"})
	}
	for _, row := range list {
		b.next++
		b.rows[b.next] = row
		b.ids = append(b.ids, b.next)
	}
	load(b.t, x, true, list...)
}

// check compares all answers; what is not in memory is read from src.
func (b *bulk) check(x *Index, src *table, xid uint64) {
	b.t.Helper()
	src.rows, src.snap = map[string][]string{}, Snapshot{Xmin: xid, Xmax: xid}
	for _, row := range b.rows {
		src.rows[row[0]] = append(src.rows[row[0]], row[1])
	}
	want := map[string]map[string]bool{}
	for _, row := range b.rows {
		if want[row[0]] == nil {
			want[row[0]] = map[string]bool{}
		}
		want[row[0]][row[1]] = true
	}
	for r, clients := range want {
		if got := lookup(b.t, x, r); !slices.Equal(got, slices.Sorted(maps.Keys(clients))) {
			b.t.Fatalf("restaurant %s has %d clients, or others than the %d expected", r, len(got), len(clients))
		}
	}
	if s := x.Stats(); s.Subscriptions != int64(len(b.rows)) || s.Restaurants != int64(len(want)) {
		b.t.Fatalf("%d rows of %d restaurants, want %d of %d", s.Subscriptions, s.Restaurants, len(b.rows), len(want))
	}
}

// TestLargeTransactionIsExactFromAFile compares with a plain map; where no file can be had,
// memory takes its place.
func TestLargeTransactionIsExactFromAFile(t *testing.T) {
	t.Parallel()
	for name, dir := range map[string]string{"file": t.TempDir(), "no file": filepath.Join(t.TempDir(), "missing")} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			src := &table{}
			x := newSmallIndex(t, dir, src)
			b := &bulk{t: t, rng: rand.New(rand.NewPCG(1, 2)), rows: map[int64][2]string{}}
			b.load(x)
			b.txn = x.NewTxn()
			breaths := 0
			b.txn.Breathe = func() { breaths++ }
			for round := range 4 {
				if round == 2 {
					b.change() // in vain
					if err := b.txn.Truncate(); err != nil {
						t.Fatal(err)
					}
					clear(b.rows)
					b.ids = nil
				}
				for range 50_000 {
					b.change()
				}
				if spilled := len(b.txn.log.spilled) > 0; spilled != (name == "file") {
					t.Fatalf("part of the transaction lies in a file: %t", spilled)
				}
				if err := x.Apply(b.txn, Commit{Xid: uint64(100 + round), End: LSN(100 + round)}); err != nil {
					t.Fatal(err)
				}
				b.check(x, src, uint64(101+round))
			}
			if least := 200_000 / breatheEvery; breaths < least {
				t.Errorf("%d pauses for keepalives in 200,000 changes, want at least %d", breaths, least)
			}
			if left, _ := os.ReadDir(dir); len(left) > 0 {
				t.Errorf("%d files are left", len(left))
			}
		})
	}
}

// TestLargeTransactionTakesLittleMemory bounds what staging and applying add to the heap at
// once, by the live heap whenever the transaction breathes.
func TestLargeTransactionTakesLittleMemory(t *testing.T) { //nolint:paralleltest // it measures the process's heap
	x := newSmallIndex(t, t.TempDir(), &table{})
	x.changes.most = 20_000 // 15 runs, as with 5 M changes in runs of half a million
	load(t, x, false)
	clients := make([][]byte, 2000)
	for i := range clients {
		clients[i] = fmt.Appendf(nil, "c%d", i)
	}
	pairs := func(do func(r, c []byte) error) {
		var r []byte
		for i := range 300_000 {
			r = fmt.Appendf(r[:0], "r%d", i%1000)
			if err := do(r, clients[(i/1000+i%1000)%2000]); err != nil {
				t.Fatal(err)
			}
		}
	}
	txn := x.NewTxn()
	pairs(func(r, c []byte) error { return txn.Insert(0, r, c) })
	if err := x.Apply(txn, Commit{Xid: 100, End: 100}); err != nil {
		t.Fatal(err)
	}
	rest, most := live(), uint64(0)
	pairs(func(r, c []byte) error { return txn.Delete(0, r, c) })
	txn.Breathe = func() { most = max(most, live()) }
	txn.Breathe()
	if err := x.Apply(txn, Commit{Xid: 101, End: 101}); err != nil {
		t.Fatal(err)
	}
	// In memory the log alone would take 1.2 MB and the changes 2.4 MB.
	if most > rest+(1<<20) {
		t.Errorf("%d bytes above rest in a transaction of 300,000 changes", most-rest)
	}
}

// TestLargeTransactionLeavesLittleGarbage bounds what is allocated for a change, all in all: the
// collector lets the heap double before it looks for garbage, so that what a transaction leaves
// behind counts as if it were kept.
func TestLargeTransactionLeavesLittleGarbage(t *testing.T) { //nolint:paralleltest // it measures the process's heap
	const restaurants, each = 2000, 100
	var names [5000][]byte
	for i := range names {
		names[i] = fmt.Appendf(nil, "n%d", i)
	}
	restaurant := func(i int) []byte { return names[i%restaurants] }
	client := func(i, shift int) []byte { return names[(i/restaurants*7+i+shift)%len(names)] }
	changes := map[string]func(txn *Txn, i int) error{
		"update by id": func(txn *Txn, i int) error { return txn.UpdateID(int64(i), restaurant(i), client(i, 1)) },
		"delete by id": func(txn *Txn, i int) error { return txn.DeleteID(int64(i)) },
		"update by pair": func(txn *Txn, i int) error {
			return errors.Join(txn.Delete(0, restaurant(i), client(i, 0)), txn.Insert(0, restaurant(i), client(i, 1)))
		},
	}
	for name, change := range changes {
		x := newSmallIndex(t, t.TempDir(), &table{})
		x.changes.most = 20_000
		l := x.BeginLoad(name != "update by pair")
		b := l.Batch()
		for i := range restaurants * each {
			if err := b.Add(int64(i), restaurant(i), client(i, 0)); err != nil {
				t.Fatal(err)
			}
		}
		if err := errors.Join(b.Flush(), l.Finish(Snapshot{Xmin: 10, Xmax: 10})); err != nil {
			t.Fatal(err)
		}
		txn := x.NewTxn()
		staged := allocated(func() {
			for i := range restaurants * each {
				if err := change(txn, i); err != nil {
					t.Fatal(err)
				}
			}
		})
		applied := allocated(func() {
			if err := x.Apply(txn, Commit{Xid: 100, End: 100}); err != nil {
				t.Fatal(err)
			}
		})
		t.Logf("%s: %d bytes to stage, %d to apply", name, staged, applied)
		// A record in the heap for each change is 48 bytes, new room for each part of a run that is
		// read back 16, a new slice for each posting 12; what is used again, 2 MB in all, under the
		// race detector 3.
		if most := uint64(16 * restaurants * each); staged+applied > most {
			t.Errorf("%s: %d bytes were allocated for %d rows, want at most %d", name, staged+applied, restaurants*each, most)
		}
	}
}

// allocated is what do allocates, in bytes.
func allocated(do func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	do()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

func live() uint64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// TestManyChangesOfAPostingAreTheSumOfEach: merging gives what one after another gives.
func TestManyChangesOfAPostingAreTheSumOfEach(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(8, 0))
	var room []uint32 // of one posting after the other
	for round := range 300 {
		want := map[uint32]int{}
		var rows []uint32
		for range rng.IntN(400) {
			c := rng.Uint32N(300)
			rows = append(rows, c)
			want[c]++
		}
		p := newPosting(rows, new([]uint32))
		before := &view{}
		if round%2 == 0 { // else they may be changed where they are
			before = p.view()
		}
		was := slices.Clone(before.small)
		var list []uint64
		for range mergeLeast + rng.IntN(100) {
			c := rng.Uint32N(300)
			if want[c] > 0 && rng.IntN(2) == 0 {
				want[c]--
				list = append(list, change(1, c, 1))
			} else {
				want[c]++
				list = append(list, change(1, c, 0))
			}
		}
		maps.DeleteFunc(want, func(_ uint32, n int) bool { return n == 0 })
		slices.Sort(list)
		if err := p.merge(list, &room); err != nil {
			t.Fatal(err)
		}
		checkPosting(t, p, want)
		if !slices.Equal(before.small, was) {
			t.Fatal("clients handed out have changed")
		}
	}
	if err := newPosting([]uint32{1}, new([]uint32)).merge([]uint64{change(1, 1, 1), change(1, 1, 1)}, &room); err == nil {
		t.Error("a row was removed that was not there")
	}
}
