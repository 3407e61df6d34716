package cache

import (
	"iter"
	"slices"
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
		var room [uuidLen]byte // most texts are UUIDs: on the stack of who ranges
		buf := room[:0]
		var texts [textsAtOnce]stored
		for numbers := range r.clients.blocks(from, to) {
			for i, n := range numbers {
				texts[i] = r.texts.stored(n)
			}
			for i := range numbers {
				buf = texts[i].appendTo(buf[:0])
				if !yield(buf) {
					return
				}
			}
		}
	}
}

// textsAtOnce are read before the first is used: they lie all over the memory, and the processor
// waits for several at once, but for one after the other if something is done with each in between.
const textsAtOnce = 16

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
		for numbers := range v.blocks(from, to) {
			for _, n := range numbers {
				if !yield(n) {
					return
				}
			}
		}
	}
}

// blocks yields the same, up to textsAtOnce of them a step. They are not to be changed, and valid until
// the next step.
func (v *view) blocks(from, to int) iter.Seq[[]uint32] {
	return func(yield func([]uint32) bool) {
		from, to = max(from, 0), min(to, v.len())
		if from >= to {
			return
		}
		if v.big == nil {
			for numbers := range slices.Chunk(v.small[from:to], textsAtOnce) {
				if !yield(numbers) {
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
		var numbers [textsAtOnce]uint32
		for left := to - from; left > 0; {
			block := numbers[:min(left, len(numbers))]
			for i := range block {
				block[i] = it.Next()
			}
			if left -= len(block); !yield(block) {
				return
			}
		}
	}
}
