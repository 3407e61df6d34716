package stream

import (
	"math/rand/v2"
	"slices"
	"testing"
)

// Ranges behave as the list of ids that they stand for, whatever was added and skipped.
func TestIDRangesAreTheListOfTheirIDs(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(1, 1))
	for range 2000 {
		var ranges idRanges
		var ids []int64
		next := int64(random.IntN(5))
		for range random.IntN(12) {
			next += 1 + int64(random.IntN(2))*int64(random.IntN(9))
			ranges.add(next, next)
			ids = append(ids, next)
		}
		n := int64(random.IntN(len(ids) + 2))
		cut := min(int(n), len(ids))
		check := func(what string, got idRanges, want []int64) {
			t.Helper()
			if list := expand(got); !slices.Equal(list, want) {
				t.Fatalf("%s of %v, %d: got %v, want %v", what, ranges, n, list, want)
			}
		}
		check("all", ranges, ids)
		d := dealer{left: slices.Clone(ranges)}
		check("first", d.take(n), ids[:cut])
		check("rest", d.take(100), ids[cut:])
		check("skip", ranges.skip(n), ids[cut:])
		if got := ranges.count(); got != int64(len(ids)) {
			t.Fatalf("count of %v: %d", ranges, got)
		}
		for i, id := range ids {
			if got := ranges.before(id); got != int64(i) {
				t.Fatalf("%d ids before %d in %v: want %d", got, id, ranges, i)
			}
		}
	}
}

func expand(r idRanges) []int64 {
	var ids []int64
	for _, run := range r {
		for id := run.first; id <= run.last; id++ {
			ids = append(ids, id)
		}
	}
	return ids
}

func TestMultirangeIsReadAsPostgresWritesIt(t *testing.T) {
	t.Parallel()
	got, err := parseMultirange("{[-3,1),[5,6),[9,12)}")
	if err != nil || !slices.Equal(got, idRanges{{-3, 0}, {5, 5}, {9, 11}}) {
		t.Errorf("%v, %v", got, err)
	}
	if got, err := parseMultirange("{}"); err != nil || got != nil {
		t.Errorf("empty: %v, %v", got, err)
	}
	for _, bad := range []string{"", "{", "[1,2)", "{[1,2]}", "{[a,2)}", "{[1)}"} {
		if _, err := parseMultirange(bad); err == nil {
			t.Errorf("%q: no error", bad)
		}
	}
}
