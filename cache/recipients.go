package cache

import (
	"iter"
	"sync/atomic"
)

// Recipients are the distinct clients of a restaurant in one state of the table. They do not
// change. Methods are safe for concurrent use until Release.
type Recipients struct {
	clients  *view
	texts    *dictionary
	pins     *pins // nil when there is nothing to hold
	epoch    uint32
	released atomic.Bool
}

// Len returns the number of distinct clients.
func (r *Recipients) Len() int { return r.clients.len() }

// Range yields the clients numbered from to to-1, 0 being the first, in an order that is the
// same at every call on these Recipients and has no meaning. Numbers outside 0 to Len are
// left out. The bytes are valid until the next step.
func (r *Recipients) Range(from, to int) iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		var buf []byte
		for n := range r.clients.between(from, to) {
			buf = r.texts.appendText(buf[:0], n)
			if !yield(buf) {
				return
			}
		}
	}
}

// MaxLen returns a bound of the length of any client's text, in bytes: that of the longest
// the index has ever held.
func (r *Recipients) MaxLen() int { return int(r.texts.longest.Load()) }

// Release says that the Recipients are not used any more, so that dictionary numbers of
// clients that are gone can be given out again. Without it they are not, until a rebuild.
// Calls after the first do nothing.
func (r *Recipients) Release() {
	if r.pins != nil && !r.released.Swap(true) {
		r.pins.leave(r.epoch)
	}
}

// between yields the numbers at positions from to to-1, ascending.
func (v *view) between(from, to int) iter.Seq[uint32] {
	return func(yield func(uint32) bool) {
		from, to = max(from, 0), min(to, v.len())
		if from >= to {
			return
		}
		if v.big == nil {
			for _, n := range v.small[from:to] {
				if !yield(n) {
					return
				}
			}
			return
		}
		first, err := v.big.Select(uint32(from))
		if err != nil {
			return // from is below the length
		}
		it := v.big.Iterator()
		it.AdvanceIfNeeded(first)
		for range to - from {
			if !yield(it.Next()) {
				return
			}
		}
	}
}
