package cache

import (
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
)

// checkPosting compares a posting with the map that it should equal.
func checkPosting(t *testing.T, p *posting, want map[uint32]int) {
	t.Helper()
	got := slices.Collect(p.view().between(0, p.len()))
	if !slices.Equal(got, slices.Sorted(maps.Keys(want))) {
		t.Fatalf("posting has %d clients, want %d", len(got), len(want))
	}
	extra := 0
	for c, n := range want {
		if n > 1 {
			extra++
			if p.extra[c] != uint32(n-1) {
				t.Fatalf("client %d has %d extra rows, want %d", c, p.extra[c], n-1)
			}
		}
	}
	if len(p.extra) != extra {
		t.Fatalf("%d clients have extra rows, want %d", len(p.extra), extra)
	}
}

func TestPostingIsTheMultisetOfItsRows(t *testing.T) {
	t.Parallel()
	for seed := range uint64(4) {
		rng := rand.New(rand.NewPCG(seed, 0))
		want := map[uint32]int{}
		var rows []uint32
		for range rng.IntN(3 * smallMax) {
			c := rng.Uint32N(200_000)
			rows = append(rows, c)
			want[c]++
		}
		p := newPosting(rows, new([]uint32))
		checkPosting(t, p, want)
		type kept struct {
			v    *view
			want []uint32
		}
		var held []kept
		for _, grow := range []int{70, 20, 70, 20} { // across the change of form, both ways
			for range 2 * smallMax {
				c := rng.Uint32N(200_000)
				if rng.IntN(100) >= grow && len(want) > 0 {
					c = slices.Collect(p.view().between(p.len()/2, p.len()/2+1))[0]
					if want[c]--; want[c] == 0 {
						delete(want, c)
					}
					if !p.remove(c) {
						t.Fatalf("client %d is not there", c)
					}
				} else {
					p.add(c)
					want[c]++
				}
				if rng.IntN(300) == 0 {
					v := p.view()
					held = append(held, kept{v, slices.Collect(v.between(0, v.len()))})
				}
			}
			checkPosting(t, p, want)
		}
		for _, k := range held {
			if !slices.Equal(slices.Collect(k.v.between(0, k.v.len())), k.want) {
				t.Fatal("a view changed after it was handed out")
			}
		}
		if p.remove(500_000) {
			t.Fatal("removed a row that is not there")
		}
	}
}

// TestViewFollowsTheRows in both forms, when one was handed out before each change.
func TestViewFollowsTheRows(t *testing.T) {
	t.Parallel()
	for _, n := range []int{10, smallMax + 10} {
		rows := make([]uint32, n)
		for i := range rows {
			rows[i] = uint32(i)
		}
		p := newPosting(rows, new([]uint32))
		for i := range 5 {
			if p.view().len() != n+i {
				t.Fatalf("%d clients, want %d", p.view().len(), n+i)
			}
			p.add(uint32(n + i))
		}
		for i := range 5 {
			if p.view().len() != n+5-i {
				t.Fatalf("%d clients, want %d", p.view().len(), n+5-i)
			}
			p.remove(uint32(i))
		}
	}
}

func TestViewYieldsAnyRange(t *testing.T) {
	t.Parallel()
	for _, n := range []int{0, 1, 100, smallMax + 1000} {
		rows := make([]uint32, n)
		for i := range rows {
			rows[i] = uint32(i * 37)
		}
		v := newPosting(rows, new([]uint32)).view()
		for _, r := range [][2]int{{0, n}, {0, 1}, {n / 3, n / 2}, {n - 1, n}, {-5, n + 5}, {n, n + 1}, {5, 2}} {
			got := slices.Collect(v.between(r[0], r[1]))
			var want []uint32
			for i := max(0, r[0]); i < min(n, r[1]); i++ {
				want = append(want, uint32(i*37))
			}
			if !slices.Equal(got, want) {
				t.Errorf("%d clients, range %v: got %d numbers, want %d", n, r, len(got), len(want))
			}
		}
	}
}

func FuzzPosting(f *testing.F) {
	f.Add([]byte{1, 2, 3, 129, 1, 1, 130})
	f.Fuzz(func(t *testing.T, ops []byte) {
		p, want := newPosting(nil, new([]uint32)), map[uint32]int{}
		for _, o := range ops {
			c := uint32(o & 127)
			if o < 128 {
				p.add(c)
				want[c]++
			} else if ok := p.remove(c); ok != (want[c] > 0) {
				t.Fatalf("remove %d: %t, want %t", c, ok, want[c] > 0)
			} else if want[c]--; want[c] <= 0 {
				delete(want, c)
			}
		}
		checkPosting(t, p, want)
	})
}
