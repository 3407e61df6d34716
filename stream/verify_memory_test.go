package stream

import (
	"hash/maphash"
	"runtime"
	"testing"
)

// However many messages are compared, and however far the two sides lie apart, what is kept in
// memory is bounded, and what differs is found.
func TestTallyIsExactInBoundedMemory(t *testing.T) {
	t.Parallel()
	const limit, messages, lead = 5_000, 300_000, 60_000
	ta := newTally(limit)
	defer ta.close()
	seed := maphash.MakeSeed()
	hash := func(offset int64) uint64 { return maphash.Comparable(seed, offset) }
	rows, records := newTallySide(ta), newTallySide(ta)
	var before, during runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	// Records come 60,000 messages behind the rows; every 20,000th is missing, one is twice.
	for n := range int64(messages + lead) {
		if n < messages {
			at(t, rows, n).add(&sums{rows: 1, want: 1, a: hash(n), b: hash(-n)})
		}
		back := n - lead
		switch {
		case back < 0 || back%20_000 == 1:
		default:
			at(t, records, back).add(&sums{records: 1, a: -hash(back), b: -hash(-back)})
			if back == 777 {
				at(t, records, back).add(&sums{records: 1, a: -hash(back), b: -hash(-back)})
			}
		}
		if len(ta.open) > limit+2*batchOfSums {
			t.Fatalf("%d messages in memory, the limit is %d", len(ta.open), limit)
		}
		if n == messages {
			runtime.GC()
			runtime.ReadMemStats(&during)
		}
	}
	for _, s := range []*tallySide{rows, records} {
		if err := s.end(); err != nil {
			t.Fatal(err)
		}
	}
	found := map[int64]sums{}
	if err := ta.unbalanced(func(k tallyKey, s sums) error { found[k.offset] = s; return nil }); err != nil {
		t.Fatal(err)
	}
	if len(found) != 16 || found[777].records-found[777].rows != 1 {
		t.Errorf("%d differ, want 16: %v", len(found), found)
	}
	for n := int64(1); n < messages; n += 20_000 {
		if s := found[n]; s.rows != 1 || s.records != 0 || s.want != 1 || s.a != hash(n) || s.b != hash(-n) {
			t.Errorf("message %d: %+v", n, s)
		}
	}
	if ta.spill == nil {
		t.Error("nothing was spilled: the test proved nothing")
	}
	grown := int64(during.HeapAlloc) - int64(before.HeapAlloc)
	t.Logf("%d messages, %d apart: %d MB in memory", messages, lead, grown>>20)
}

func at(t *testing.T, s *tallySide, offset int64) *sums {
	t.Helper()
	sum, err := s.of(tallyKey{partition: 3, offset: offset})
	if err != nil {
		t.Fatal(err)
	}
	return sum
}

// The sums of equal sides are nothing in whatever order and pieces they come; a change of any
// byte, a swap between two messages, a null key for an empty one are not.
func TestFingerprintDoesNotDependOnOrder(t *testing.T) {
	t.Parallel()
	f := newFingerprint(maphash.MakeSeed(), maphash.MakeSeed())
	sum := func(of ...[2][]byte) (a, b uint64) {
		for _, d := range of {
			x, y := f.of(d[0], d[1])
			a, b = a+x, b+y
		}
		return a, b
	}
	x, y := [2][]byte{[]byte("a"), []byte("1")}, [2][]byte{[]byte("b"), []byte("2")}
	a1, b1 := sum(x, y)
	if a2, b2 := sum(y, x); a1 != a2 || b1 != b2 {
		t.Error("order matters")
	}
	for _, other := range [][][2][]byte{
		{x}, {x, y, y}, {x, x}, {y, y}, {{[]byte("a"), []byte("2")}, {[]byte("b"), []byte("1")}}, {{[]byte("a1"), {}}, y}, {{{}, []byte("a1")}, y},
	} {
		if a2, b2 := sum(other...); a1 == a2 || b1 == b2 {
			t.Errorf("%q is like %q", other, [][2][]byte{x, y})
		}
	}
	a1, b1 = sum([2][]byte{nil, []byte("1")})
	if a2, b2 := sum([2][]byte{{}, []byte("1")}); a1 == a2 || b1 == b2 {
		t.Error("a null key is like an empty one")
	}
}
