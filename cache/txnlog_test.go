package cache

import (
	"math/rand/v2"
	"slices"
	"testing"
)

func TestTxnLogReturnsWhatItWasGiven(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(5, 0))
	l := txnLog{most: 3, file: spill{dir: t.TempDir()}} // most of it in a file
	for range 3 {                                       // the log is used again
		var want []record
		for range 50_000 {
			r := record{op: op(rng.IntN(4))}
			if r.op != opDelete {
				r.id = int64(rng.Uint64() >> rng.IntN(64))
			}
			if r.op == opMoveID {
				r.newID = int64(rng.Uint64() >> rng.IntN(64))
			}
			if r.op != opDeleteID {
				r.restaurant, r.client = uint64(rng.Uint32()), uint64(rng.Uint32()>>rng.IntN(32))
			}
			want = append(want, r)
			l.append(&r)
		}
		var got []record
		if err := l.each(func(r *record) error { got = append(got, *r); return nil }); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(got, want) || l.n != len(want) {
			t.Fatal("the log returned something else")
		}
		l.reset()
	}
}

// TestBulkChangesStageCompactly: 5 M changes of one transaction must fit into 64 MB.
func TestBulkChangesStageCompactly(t *testing.T) {
	t.Parallel()
	l := txnLog{most: 1 << 20}
	const rows = 200_000
	for i := range int64(rows) {
		l.append(&record{op: opInsert, id: 1<<40 + i, restaurant: uint64(i) % 100_000, client: uint64(i*7919) % 1_000_000})
	}
	if perRow := float64(len(l.chunks)*chunkBytes) / rows; perRow > 9 {
		t.Errorf("%.1f bytes a change, want at most 9", perRow)
	}
}
