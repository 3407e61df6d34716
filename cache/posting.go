package cache

import (
	"slices"

	"github.com/RoaringBitmap/roaring/v2"
)

// posting is the multiset of clients of one restaurant, as dictionary numbers: sorted in a
// slice up to smallMax, a roaring bitmap above (3.5 bytes a subscription over a Zipf
// distribution; roaring's own limit of an array container is 4,096, too). It is guarded by
// the lock of the restaurant's directory entry.
type posting struct {
	gen   uint64    // of the entry; the posting counts only while the two are equal
	seen  *Snapshot // the fill's: what it sees is in the posting already; nil: a load's
	small []uint32
	big   *roaring.Bitmap   // nil while small
	extra map[uint32]uint32 // rows of a client beyond the first
	out   *view             // handed out: small may no longer be changed in place
	cost  int64             // what the shelf was told last, in bytes
}

const (
	smallMax = 4096
	// smallAgain is where a shrinking posting leaves roaring: half, so that a posting at the
	// limit does not change its form at every row.
	smallAgain = smallMax / 2
	// postingOverhead is what a posting costs besides its numbers, in bytes: ristretto's
	// entry (222 measured, its map and policy), the struct and the snapshot.
	postingOverhead = 384
	// extraEntry is a map entry of 8 bytes with the map's spare room.
	extraEntry = 24
)

// view is an unchanging set of clients: what a lookup hands out.
type view struct {
	small []uint32
	big   *roaring.Bitmap
}

func (v *view) len() int {
	if v.big != nil {
		return int(v.big.GetCardinality())
	}
	return len(v.small)
}

// newPosting takes the client of every row, in any order; the slice is the posting's from then on. What is in
// room does not matter: it is sorted in, and used again by the next call.
func newPosting(rows []uint32, room *[]uint32) *posting {
	rows, *room = sortNumbers(rows, *room)
	p := &posting{}
	kept := rows[:0]
	for i, c := range rows {
		if i > 0 && c == rows[i-1] {
			p.more(c)
			continue
		}
		kept = append(kept, c)
	}
	p.small = kept
	switch {
	case len(kept) > smallMax:
		p.enlarge()
	case cap(kept) > len(kept)+len(kept)/4:
		p.small = append(make([]uint32, 0, len(kept)), kept...)
	default:
		return p
	}
	if cap(kept) > cap(*room) {
		*room = kept
	}
	return p
}

// add counts one row more of client c.
func (p *posting) add(c uint32) {
	if p.big != nil {
		if p.big.CheckedAdd(c) {
			p.out = nil
			return
		}
		p.more(c)
		return
	}
	at, found := slices.BinarySearch(p.small, c)
	if found {
		p.more(c)
		return
	}
	p.own(1)
	p.small = slices.Insert(p.small, at, c)
	if len(p.small) > smallMax {
		p.enlarge()
	}
}

// remove counts one row less of client c. It reports whether there was one.
func (p *posting) remove(c uint32) bool {
	if n := p.extra[c]; n > 1 {
		p.extra[c] = n - 1
		return true
	} else if n == 1 {
		delete(p.extra, c)
		return true
	}
	if p.big != nil {
		if !p.big.CheckedRemove(c) {
			return false
		}
		p.out = nil
		if p.big.GetCardinality() < smallAgain {
			p.small, p.big = p.big.ToArray(), nil
		}
		return true
	}
	at, found := slices.BinarySearch(p.small, c)
	if !found {
		return false
	}
	p.own(0)
	p.small = slices.Delete(p.small, at, at+1)
	return true
}

// apply changes the posting as one transaction does, or a part of it; changes are sorted. The
// room is used again from one posting to the next.
func (p *posting) apply(changes []uint64, room *[]uint32) error {
	if p.big == nil && len(changes) >= mergeLeast && len(changes) >= len(p.small)/mergeShare {
		return p.merge(changes, room)
	}
	for _, ch := range changes {
		if c, removes := client(ch); !removes {
			p.add(c)
		} else if !p.remove(c) {
			return errNoRow
		}
	}
	return nil
}

const (
	// From mergeLeast changes on, one for mergeShare clients, writing all anew costs less than
	// moving the clients behind each change.
	mergeLeast = 8
	mergeShare = 32
	// roomMax numbers' room is kept from one merge to the next: 64 KiB, twice of what a small
	// posting and a portion of changes need.
	roomMax = 1 << 14
)

// merge is apply of many changes to a small posting.
func (p *posting) merge(changes []uint64, room *[]uint32) error {
	old := p.small
	merged := slices.Grow((*room)[:0], len(old)+len(changes))
	for len(changes) > 0 {
		c, _ := client(changes[0])
		at := 0
		for at < len(old) && old[at] < c {
			at++
		}
		merged, old = append(merged, old[:at]...), old[at:]
		rows := int64(0)
		if len(old) > 0 && old[0] == c {
			rows, old = 1+int64(p.extra[c]), old[1:]
		}
		for len(changes) > 0 {
			next, removes := client(changes[0])
			if next != c {
				break
			}
			if changes = changes[1:]; removes {
				rows--
			} else {
				rows++
			}
		}
		if rows < 0 {
			return errNoRow
		}
		if rows > 0 {
			merged = append(merged, c)
		}
		p.setExtra(c, rows-1)
	}
	merged = append(merged, old...)
	if cap(merged) <= roomMax {
		*room = merged
	}
	if p.replace(merged); len(p.small) > smallMax {
		p.enlarge()
	}
	return nil
}

// replace copies the clients, where the old ones are if nobody holds those and there is room,
// but not much of it: a new slice for each posting that a large transaction changes is garbage
// by the tens of megabytes, and so is room that nobody needs.
func (p *posting) replace(clients []uint32) {
	n := len(clients)
	if p.out != nil || n > cap(p.small) || n < cap(p.small)/2 {
		p.small, p.out = make([]uint32, 0, n+n/8), nil
	}
	p.small = append(p.small[:0], clients...)
}

// setExtra notes the rows of a client beyond the first; at most 0 for none.
func (p *posting) setExtra(c uint32, rows int64) {
	if rows > 0 {
		if p.extra == nil {
			p.extra = make(map[uint32]uint32)
		}
		p.extra[c] = uint32(rows)
	} else if len(p.extra) > 0 {
		delete(p.extra, c)
	}
}

// view returns the clients as they are now; later changes do not touch it.
func (p *posting) view() *view {
	if p.out == nil {
		p.out = &view{small: p.small}
		if p.big != nil {
			// Copy on write, a container at a time: a restaurant of a million clients does
			// not copy 4 MB for every row that comes in between two lookups.
			p.out = &view{big: p.big.Clone()}
		}
	}
	return p.out
}

func (p *posting) len() int {
	if p.big != nil {
		return int(p.big.GetCardinality())
	}
	return len(p.small)
}

// bytes is what the posting takes, with its share of ristretto's tables.
func (p *posting) bytes() int64 {
	sum := int64(postingOverhead + 4*cap(p.small) + extraEntry*len(p.extra))
	if p.big != nil {
		sum += int64(p.big.GetSizeInBytes())
	}
	if p.seen != nil {
		sum += int64(8 * len(p.seen.InProgress))
	}
	return sum
}

// containsAny reports whether one of the numbers is in the posting.
func (p *posting) containsAny(of *roaring.Bitmap) bool {
	if p.big != nil {
		return p.big.Intersects(of)
	}
	return slices.ContainsFunc(p.small, of.Contains)
}

func (p *posting) more(c uint32) {
	if p.extra == nil {
		p.extra = make(map[uint32]uint32)
	}
	p.extra[c]++
}

// own makes small safe to change, with room for n more.
func (p *posting) own(n int) {
	if p.out != nil {
		p.small = append(make([]uint32, 0, len(p.small)+n+len(p.small)/8), p.small...)
		p.out = nil
	}
}

func (p *posting) enlarge() {
	p.big = roaring.BitmapOf(p.small...)
	p.big.SetCopyOnWrite(true)
	p.small, p.out = nil, nil
}
