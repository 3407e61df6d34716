package cache

import (
	"math/rand/v2"
	"testing"
)

// TestIDMapAgainstMap uses dense and sparse ids, negative ones and numbers of growing width.
func TestIDMapAgainstMap(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(3, 0))
	m, want := newIDMap(), map[int64]pair{}
	for i := range 200_000 {
		id := rng.Int64N(20_000) - 5000
		if rng.IntN(20) == 0 {
			id = int64(rng.Uint64()) // sparse, of the whole range
		}
		if rng.IntN(3) == 0 {
			p, ok := m.take(id)
			if q, there := want[id]; ok != there || p != q {
				t.Fatalf("take %d: %v, %t, want %v, %t", id, p, ok, q, there)
			}
			delete(want, id)
			continue
		}
		p := pair{rng.Uint32N(uint32(i/4 + 1)), rng.Uint32N(uint32(min(1<<31-1, uint64(i)*uint64(i)+1)))}
		was, there := want[id]
		if rng.IntN(3) == 0 {
			r := record{op: opMoveID, id: id, newID: id, restaurant: uint64(p.restaurant) + 1, client: uint64(p.client) + 1}
			if rng.IntN(3) == 0 {
				p.restaurant, r.restaurant = was.restaurant, 0
			} else if rng.IntN(3) == 0 {
				p.client, r.client = was.client, 0
			}
			old, next, ok := m.alter(&r)
			if ok != there || ok && (old != was || next != p) {
				t.Fatalf("alter %d: %v to %v, %t, want %v to %v, %t", id, old, next, ok, was, p, there)
			}
			if there {
				want[id] = p
			}
			continue
		}
		if m.put(id, p) == there {
			t.Fatalf("put %d: there already is %t", id, there)
		}
		if !there {
			want[id] = p
		}
	}
	for id, p := range want {
		if q, ok := m.take(id); !ok || q != p {
			t.Fatalf("take %d: %v, %t, want %v", id, q, ok, p)
		}
	}
	if m.bytes() != 0 {
		t.Errorf("an empty map takes %d bytes", m.bytes())
	}
}

func TestDenseIDsTakeFewBytes(t *testing.T) {
	t.Parallel()
	m := newIDMap()
	const rows = 1 << 19
	for id := range int64(rows) {
		m.put(id, pair{uint32(id) % 100_000, uint32(id*7919) % 1_000_000})
	}
	if perRow := float64(m.bytes()) / rows; perRow > 5 { // 37 bits are 4.6 bytes
		t.Errorf("%.1f bytes a row, want at most 5", perRow)
	}
}

// TestFewRowsOfManyIDsTakeFewBytes: rows that stay where nearly all of their time are gone, as with a sequence over
// the years, do not keep their whole pages.
func TestFewRowsOfManyIDsTakeFewBytes(t *testing.T) {
	t.Parallel()
	m := newIDMap()
	const pages, every = 100, 1024 // four of a page stay
	for id := range int64(pages * idPageLen) {
		m.put(id, pair{uint32(id) % 100_000, uint32(id*7919) % 1_000_000})
	}
	for id := range int64(pages * idPageLen) {
		if id%every != 0 {
			m.take(id)
		}
	}
	rows := pages * idPageLen / every
	if perRow := m.bytes() / int64(rows); perRow > 100 {
		t.Errorf("%d bytes a row, want at most 100", perRow)
	}
	for id := int64(0); id < pages*idPageLen; id += every {
		if p, ok := m.get(id); !ok || p != (pair{uint32(id) % 100_000, uint32(id*7919) % 1_000_000}) {
			t.Fatalf("row %d: %v, %t", id, p, ok)
		}
	}
}
