package cache

import (
	"cmp"
	"math/bits"
	"slices"
	"sync/atomic"
)

// idPage is 4,096 neighbouring ids: a sorted list while few of them are rows, then one
// bit-packed array. A packed value is (restaurant+1)<<clientBits | client; 0 is no row.
type idPage struct {
	few            []idRow
	packed         []uint64 // one word more than needed, so that a read may cross
	restaurantBits uint8
	clientBits     uint8
	rows           uint16
}

type idRow struct {
	at uint16 // within the page
	pair
}

// fewMax is where packing pays: 256 rows of 12 bytes are 3 KiB, a packed page of 37 bits
// 18.5 KiB; a sequence passes this point soon, a sparse range never.
const fewMax = 256

// fewAgain is where a shrinking page is a list again: half, so that a page at the limit does not
// change its form at every row.
const fewAgain = fewMax / 2

func compareAt(r idRow, at uint16) int { return cmp.Compare(r.at, at) }

func (g *idPage) put(at uint16, p pair, widest *atomic.Uint32) bool {
	if g.packed == nil {
		i, found := slices.BinarySearchFunc(g.few, at, compareAt)
		if found {
			return false
		}
		g.few = slices.Insert(g.few, i, idRow{at, p})
		g.rows++
		if len(g.few) > fewMax {
			g.pack(widest)
		}
		return true
	}
	if g.value(at) != 0 {
		return false
	}
	g.set(at, p, widest)
	g.rows++
	return true
}

// alter gives the row at a place the pair that a record leaves it with.
func (g *idPage) alter(at uint16, r *record, widest *atomic.Uint32) (old, next pair, ok bool) {
	if g.packed == nil {
		i, found := slices.BinarySearchFunc(g.few, at, compareAt)
		if !found {
			return old, next, false
		}
		old = g.few[i].pair
		next = r.pair(old)
		g.few[i].pair = next
		return old, next, true
	}
	v := g.value(at)
	if v == 0 {
		return old, next, false
	}
	old = g.unpack(v)
	next = r.pair(old)
	g.set(at, next, widest)
	return old, next, true
}

func (g *idPage) get(at uint16) (pair, bool) {
	if g.packed == nil {
		i, found := slices.BinarySearchFunc(g.few, at, compareAt)
		if !found {
			return pair{}, false
		}
		return g.few[i].pair, true
	}
	v := g.value(at)
	if v == 0 {
		return pair{}, false
	}
	return g.unpack(v), true
}

func (g *idPage) take(at uint16) (pair, bool) {
	if g.packed == nil {
		i, found := slices.BinarySearchFunc(g.few, at, compareAt)
		if !found {
			return pair{}, false
		}
		p := g.few[i].pair
		g.few = slices.Delete(g.few, i, i+1)
		if 4*len(g.few) < cap(g.few) { // of a table that goes on shrinking most of the room would never be used
			g.few = append(make([]idRow, 0, 2*len(g.few)), g.few...)
		}
		g.rows--
		return p, true
	}
	v := g.value(at)
	if v == 0 {
		return pair{}, false
	}
	p := g.unpack(v)
	g.setValue(at, 0)
	if g.rows--; g.rows <= fewAgain {
		g.unpackAll()
	}
	return p, true
}

func (g *idPage) bytes() int64 { return int64(12*cap(g.few) + 8*len(g.packed)) }

// pack turns the list into the array.
func (g *idPage) pack(widest *atomic.Uint32) {
	few := g.few
	g.few = nil
	for _, r := range few {
		g.set(r.at, r.pair, widest)
	}
}

// unpackAll turns the array into the list.
func (g *idPage) unpackAll() {
	few := make([]idRow, 0, g.rows)
	for at := range uint16(idPageLen) {
		if v := g.value(at); v != 0 {
			few = append(few, idRow{at, g.unpack(v)})
		}
	}
	*g = idPage{few: few, rows: g.rows}
}

// set writes a pair into the array.
func (g *idPage) set(at uint16, p pair, widest *atomic.Uint32) {
	g.fit(p, widest)
	g.setValue(at, uint64(p.restaurant+1)<<g.clientBits|uint64(p.client))
}

// fit makes the array wide enough for p. Widths only grow, and a page starts with the widest
// seen in the map, so that a page is seldom rewritten.
func (g *idPage) fit(p pair, widest *atomic.Uint32) {
	rb, cb := uint8(bits.Len32(p.restaurant+1)), uint8(bits.Len32(p.client))
	if rb <= g.restaurantBits && cb <= g.clientBits && g.packed != nil {
		return
	}
	w := widest.Load()
	rb, cb = max(rb, g.restaurantBits, uint8(w>>8)), max(cb, g.clientBits, uint8(w))
	widest.Store(max(uint32(rb), w>>8)<<8 | max(uint32(cb), w&255)) // a hint: a lost race costs a rewriting
	old := *g
	g.restaurantBits, g.clientBits = rb, cb
	g.packed = make([]uint64, idPageLen*int(rb+cb)/64+1)
	if old.packed == nil {
		return
	}
	for at := range uint16(idPageLen) {
		if v := old.value(at); v != 0 {
			q := old.unpack(v)
			g.setValue(at, uint64(q.restaurant+1)<<cb|uint64(q.client))
		}
	}
}

func (g *idPage) unpack(v uint64) pair {
	return pair{uint32(v>>g.clientBits) - 1, uint32(v & (1<<g.clientBits - 1))}
}

func (g *idPage) value(at uint16) uint64 {
	width := uint(g.restaurantBits + g.clientBits)
	word, shift := uint(at)*width/64, uint(at)*width%64
	// A shift by 64 or more is 0 in Go: nothing crosses when shift is 0.
	return (g.packed[word]>>shift | g.packed[word+1]<<(64-shift)) & (1<<width - 1)
}

func (g *idPage) setValue(at uint16, v uint64) {
	width := uint(g.restaurantBits + g.clientBits)
	word, shift := uint(at)*width/64, uint(at)*width%64
	mask := uint64(1)<<width - 1
	g.packed[word] = g.packed[word]&^(mask<<shift) | v<<shift
	g.packed[word+1] = g.packed[word+1]&^(mask>>(64-shift)) | v>>(64-shift)
}
