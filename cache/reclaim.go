package cache

import "github.com/RoaringBitmap/roaring/v2"

// A number without rows may still be read from a Recipients, from a transaction being
// staged, from an open fill and from a posting that was filled in a state of the table that
// the stream has not reached yet. The first three hold a pin. So a number is given out again
// when, in this order,
//
//  1. it has no rows and was last taken up in an epoch before every pin of now;
//  2. no posting that counts contains it: those that do are disowned;
//  3. every pin from before the end of step 2 is gone, and nobody took it up since.

// minSweep is how many idle clients make a sweep worth while, at least: it looks at every
// filled posting.
const minSweep = 4096

// condemned are the numbers between steps 2 and 3.
type condemned struct {
	numbers *roaring.Bitmap
	chosen  uint32 // epoch of step 1: who takes a number up now does it in this one or later
	barred  uint32 // last epoch in which a posting could have contained one
	next    int64  // number of idle clients at which the next sweep begins
}

// sweep runs after a transaction, on the writer's goroutine, which alone changes rows.
func (x *Index) sweep(st *state) {
	if !x.release(st) || st.clients.idle.Load() < max(st.dead.next, int64(x.sweepAt)) {
		return
	}
	chosen := st.pins.advance()
	numbers := st.clients.choose(st.pins.oldest())
	// The next one is due when an eighth of the dictionary has died: a sweep's cost, a look
	// at every number of the filled postings, is shared by as many.
	st.dead.next = st.clients.idle.Load() - int64(numbers.GetCardinality()) + st.clients.len()/8
	if numbers.IsEmpty() {
		return
	}
	x.bar(st, numbers)
	st.dead.numbers, st.dead.chosen, st.dead.barred = numbers, chosen, st.pins.advance()-1
	x.release(st)
}

// release is step 3. It reports whether nothing is condemned any more.
func (x *Index) release(st *state) bool {
	dead := &st.dead
	if dead.numbers == nil {
		return true
	}
	if st.pins.oldest() <= dead.barred {
		return false
	}
	freed := st.clients.release(dead.numbers, dead.chosen)
	x.log.Debug("reclaimed clients without subscriptions", "clients", freed)
	dead.numbers = nil
	return true
}

// bar disowns every posting that contains one of the numbers, or may: also of a restaurant that is being read anew, because
// ristretto may show again what it did not show for a moment.
func (x *Index) bar(st *state, numbers *roaring.Bitmap) {
	for n := range st.dir.len() {
		e := st.dir.entry(n)
		e.mu.Lock()
		if e.filled {
			if p := x.shelf.find(n); p == nil || p.gen != e.gen || p.containsAny(numbers) {
				e.disown()
			}
		}
		e.mu.Unlock()
	}
}

// choose returns the numbers without rows that nobody took up in epoch oldest or later, and
// takes those with rows off the idle lists.
func (d *dictionary) choose(oldest uint32) *roaring.Bitmap {
	out := roaring.New()
	for i := range d.shards {
		s := &d.shards[i]
		s.mu.Lock()
		kept := s.idle[:0]
		for _, local := range s.idle {
			st := s.state(local)
			if *st&stateIdle == 0 {
				*st &^= stateListed
				d.idle.Add(-1)
				continue
			}
			kept = append(kept, local)
			if *st&stateValue < oldest {
				out.Add(local<<shardBits | uint32(i))
			}
		}
		s.idle = kept
		s.mu.Unlock()
	}
	return out
}

// release frees those of the numbers that nobody took up in epoch since or later, and
// returns how many they are.
func (d *dictionary) release(numbers *roaring.Bitmap, since uint32) int {
	freed := 0
	for i := range d.shards {
		s := &d.shards[i]
		s.mu.Lock()
		kept := s.idle[:0]
		for _, local := range s.idle {
			st := *s.state(local)
			if st&stateIdle == 0 || st&stateValue >= since || !numbers.Contains(local<<shardBits|uint32(i)) {
				kept = append(kept, local)
				continue
			}
			d.remove(s, local)
			freed++
		}
		d.idle.Add(int64(len(kept) - len(s.idle)))
		s.idle = kept
		s.mu.Unlock()
	}
	return freed
}
