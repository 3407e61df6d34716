package cache

import (
	"encoding/binary"
	"fmt"
	"slices"
)

// A change in hand is restaurant<<32 | client<<1 | 1 if it removes a row. Sorted, the
// changes of a restaurant lie together, and an addition of a pair comes before its removal:
// within one transaction nothing but the sum matters.
func change(restaurant, client uint32, removes uint64) uint64 {
	return uint64(restaurant)<<32 | uint64(client)<<1 | removes
}

func restaurant(ch uint64) uint32     { return uint32(ch >> 32) }
func client(ch uint64) (uint32, bool) { return uint32(ch) >> 1, ch&1 == 1 }

const (
	// runMax changes are sorted in memory at a time: 4 MiB, and as much to sort them. A
	// transaction that has more spills sorted runs to a file, which are then merged.
	runMax = 1 << 19
	// portionMax changes of a run are in memory while runs are merged: 32 KiB.
	portionMax = 1 << 12
	// keptMax changes' room is kept for the next transaction: 512 KiB.
	keptMax = 1 << 16
)

// changes sorts what a transaction means for pairs, in bounded memory. First add, then
// sort, then next until it says 0, false; reset begins anew.
type changes struct {
	most    int // runMax; a test lowers it
	run     []uint64
	scratch []uint64
	file    spill
	spilled []int  // lengths of the runs in the file, in order
	failed  error  // of spilling: what follows stays in memory
	raw     []byte // of a run on its way from or to the file
	heads   []*head
	inHand  head // of the run that is not in the file
	portion []uint64
}

// add takes a change.
func (c *changes) add(ch uint64) {
	if len(c.run) == cap(c.run) || len(c.run) >= c.most {
		c.makeRoom()
	}
	c.run = append(c.run, ch)
}

// makeRoom spills a run that is long enough, and makes a shorter one twice as long: append would
// grow it by a quarter at a time, and leave four times as much behind.
func (c *changes) makeRoom() {
	switch n := len(c.run); {
	case c.failed != nil:
	case n >= c.most:
		c.spill()
	default:
		c.run = slices.Grow(c.run, max(1, min(n, c.most-n)))
	}
}

// spill writes the run in hand to the file. If that cannot be, the run stays in memory and
// goes on growing: nothing is lost but the bound.
func (c *changes) spill() {
	c.run, c.scratch = sortNumbers(c.run, c.scratch)
	end := c.file.end
	for part := range slices.Chunk(c.run, portionMax) {
		c.raw = c.raw[:0]
		for _, ch := range part {
			c.raw = binary.NativeEndian.AppendUint64(c.raw, ch)
		}
		if c.failed = c.file.append(c.raw); c.failed != nil {
			c.file.end = end
			return
		}
	}
	c.spilled = append(c.spilled, len(c.run))
	c.run = c.run[:0]
}

// sort makes the changes ready to be taken.
func (c *changes) sort() error {
	c.run, c.scratch = sortNumbers(c.run, c.scratch)
	at := int64(0)
	for _, n := range c.spilled {
		h := &head{file: &c.file, at: at, left: n}
		at += 8 * int64(n)
		if err := c.refill(h); err != nil {
			return err
		}
		c.heads = append(c.heads, h)
	}
	if len(c.run) > 0 {
		c.inHand.part = c.run
		c.heads = append(c.heads, &c.inHand)
	}
	for i := len(c.heads)/2 - 1; i >= 0; i-- {
		c.sift(i)
	}
	return nil
}

// next returns the restaurant of the next change.
func (c *changes) next() (uint32, bool) {
	if len(c.heads) == 0 {
		return 0, false
	}
	return restaurant(c.heads[0].part[0]), true
}

// inMemory returns the changes that are left, if they are all in memory and sorted.
func (c *changes) inMemory() []uint64 {
	if len(c.heads) == 1 && c.heads[0].file == nil {
		return c.heads[0].part
	}
	return nil
}

// take returns the next changes of restaurant r, valid until the next call; none when there
// are no more of it.
func (c *changes) take(r uint32) ([]uint64, error) {
	if c.inMemory() != nil {
		return c.takeAll(r), nil
	}
	c.portion = c.portion[:0]
	for len(c.heads) > 0 && len(c.portion) < portionMax {
		h := c.heads[0]
		if restaurant(h.part[0]) != r {
			break
		}
		c.portion = append(c.portion, h.part[0])
		if h.part = h.part[1:]; len(h.part) == 0 {
			if err := c.refill(h); err != nil {
				return nil, err
			}
		}
		if len(h.part) == 0 {
			last := len(c.heads) - 1
			c.heads[0] = c.heads[last]
			c.heads = c.heads[:last]
		}
		c.sift(0)
	}
	return c.portion, nil
}

// takeAll is take when one run in memory is all there is.
func (c *changes) takeAll(r uint32) []uint64 {
	h := c.heads[0]
	n := 0
	for n < len(h.part) && restaurant(h.part[n]) == r {
		n++
	}
	group := h.part[:n]
	if h.part = h.part[n:]; len(h.part) == 0 {
		c.heads = c.heads[:0]
	}
	return group
}

// reset forgets everything, and what a large transaction needed.
func (c *changes) reset() {
	c.run, c.heads, c.spilled, c.failed = c.run[:0], c.heads[:0], c.spilled[:0], nil
	c.file.close()
	if cap(c.run) > keptMax {
		c.run, c.scratch, c.heads, c.inHand, c.portion, c.raw = nil, nil, nil, head{}, nil, nil
	}
}

// head is the beginning of a sorted run of which the rest is in the file.
type head struct {
	part []uint64 // empty when the run is at its end
	room []uint64 // what part is the rest of
	file *spill
	at   int64 // of the rest in the file
	left int   // changes there
}

func (c *changes) refill(h *head) error {
	n := min(h.left, portionMax)
	if n == 0 {
		return nil
	}
	c.raw = slices.Grow(c.raw[:0], 8*n)[:8*n]
	if err := h.file.read(c.raw, h.at); err != nil {
		return fmt.Errorf("%w: %w", err, ErrInconsistent) // the id map has moved on already
	}
	h.room = slices.Grow(h.room[:0], n)[:n]
	for i := range h.room {
		h.room[i] = binary.NativeEndian.Uint64(c.raw[8*i:])
	}
	h.part, h.at, h.left = h.room, h.at+int64(8*n), h.left-n
	return nil
}

// sift restores the order of the heap of runs below i: the smallest change first.
func (c *changes) sift(i int) {
	for {
		least := i
		for _, child := range [2]int{2*i + 1, 2*i + 2} {
			if child < len(c.heads) && c.heads[child].part[0] < c.heads[least].part[0] {
				least = child
			}
		}
		if least == i {
			return
		}
		c.heads[i], c.heads[least] = c.heads[least], c.heads[i]
		i = least
	}
}
