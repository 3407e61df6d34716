package cache

import (
	"sync"

	"github.com/dgraph-io/ristretto/v2"
)

// shelf holds postings under the byte budget, in ristretto, which may drop, keep or forget
// any of them at any time: nothing here is a promise. Keys are restaurant numbers; ristretto
// does not hash a uint64, so that no two collide.
type shelf struct {
	// mu is held for reading by every use and for writing by clear and close, which
	// ristretto does not allow beside other calls.
	mu     sync.RWMutex
	lru    lossy
	budget int64 // what ristretto is to keep within: the index's, less slack
	closed bool
	growth int64 // bytes by which postings grew since ristretto was waited for: the writer's own
}

// lossy is what is used of ristretto. The model test puts something worse in its place: it
// returns any posting that was ever set for a key, or none.
type lossy interface {
	Get(key uint64) (*posting, bool)
	Set(key uint64, p *posting, cost int64) bool
	Del(key uint64)
	Wait()
	Clear()
	Close()
	RemainingCost() int64
}

// maxCounters are enough for 100,000 postings in memory, and take 3 MiB. Above, what is
// evicted is chosen somewhat less well.
const maxCounters = 1 << 20

// slackPart of the budget is for growth that ristretto has yet to hear of.
const slackPart = 64

func newShelf(budget int64) (*shelf, error) {
	budget -= budget / slackPart
	lru, err := ristretto.NewCache(&ristretto.Config[uint64, *posting]{
		// ristretto asks for ten counters an entry. A posting of 10 M subscriptions and
		// 100 k restaurants takes about 800 bytes; a counter takes 3, so that a large budget
		// for few postings would take more than these do.
		NumCounters:        min(max(1024, budget/128), maxCounters),
		MaxCost:            budget,
		BufferItems:        64,   // as ristretto advises
		IgnoreInternalCost: true, // counted in postingOverhead
	})
	if err != nil {
		return nil, err
	}
	return &shelf{lru: lru, budget: budget}, nil
}

func (s *shelf) find(restaurant uint32) *posting {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.closed {
		return nil
	}
	p, _ := s.lru.Get(uint64(restaurant))
	return p
}

// put offers a posting. The entry of the restaurant is locked.
func (s *shelf) put(restaurant uint32, p *posting) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	cost := p.bytes()
	if s.closed || cost > s.budget {
		return // ristretto would refuse it: read through each time
	}
	p.cost = cost
	s.lru.Set(uint64(restaurant), p, cost)
}

// recharge tells ristretto that a posting changed its size, when it did so noticeably. The
// entry of the restaurant is locked. It reports whether the posting may stay.
func (s *shelf) recharge(restaurant uint32, p *posting) bool {
	cost := p.bytes()
	if cost > s.budget {
		return false
	}
	slack := p.cost / 8
	grown := cost > p.cost+slack
	if grown && s.outgrown(cost-p.cost) {
		s.drop(restaurant) // so that it is new, and ristretto makes room for it or leaves it out
	}
	if grown || cost < p.cost-slack {
		s.put(restaurant, p)
	}
	return true
}

// outgrown reports whether the postings would take more than the budget once one has grown by so many
// bytes: ristretto makes room for what is new only (sampledLFU.updateIfHas). It hears of growth later,
// and is waited for when that may be as much as the slack. The writer's own.
func (s *shelf) outgrown(by int64) bool {
	if s.growth += by; s.growth > s.budget/slackPart {
		s.settle()
		s.growth = by
	}
	return s.used()+by > s.budget
}

// drop frees a posting that no longer counts. The entry of the restaurant is locked.
func (s *shelf) drop(restaurant uint32) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if !s.closed {
		s.lru.Del(uint64(restaurant))
	}
}

// settle waits until the postings put so far are shelved or refused: a load puts more of
// them at once than ristretto's buffer of 32,768 holds.
func (s *shelf) settle() {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if !s.closed {
		s.lru.Wait()
	}
}

func (s *shelf) clear() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed {
		s.lru.Clear()
	}
}

func (s *shelf) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed {
		s.closed = true
		s.lru.Close()
	}
}

// used is what the postings on the shelf cost, in bytes.
func (s *shelf) used() int64 {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.closed {
		return 0
	}
	return s.budget - s.lru.RemainingCost()
}
