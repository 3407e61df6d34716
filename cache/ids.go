package cache

import (
	"fmt"
	"sync"
	"sync/atomic"
)

// idMap knows the pair of every row id: needed under replica identity DEFAULT, where a
// removal names the id only. Ids come from a sequence, so they are kept in pages of 4,096
// neighbours. A full page takes as many bits a row as its numbers need: 37, not 64, at 1 M
// clients and 100 k restaurants.
type idMap struct {
	shards [shardCount]idShard
	size   atomic.Int64  // bytes
	width  atomic.Uint32 // most bits seen: restaurant<<8 | client
}

// idShard holds every 64th page, so that parallel loaders seldom meet.
type idShard struct {
	mu    sync.Mutex
	pages map[uint64]*idPage
	// last is the page asked for last: neighbours come one after another.
	last   *idPage
	number uint64 // of last
}

// page returns a page or nil; the shard is locked.
func (s *idShard) page(number uint64) *idPage {
	if s.last == nil || s.number != number {
		s.last, s.number = s.pages[number], number
	}
	return s.last
}

type pair struct{ restaurant, client uint32 }

const (
	idPageBits = 12
	idPageLen  = 1 << idPageBits
	// idPageCost is a page without rows, with its share of the map's slots.
	idPageCost = 64 + 32
)

func newIDMap() *idMap {
	m := &idMap{}
	for i := range m.shards {
		m.shards[i].pages = make(map[uint64]*idPage)
	}
	return m
}

// put notes a new id; false says that it is there already.
func (m *idMap) put(id int64, p pair) bool {
	return m.putPage(uint64(id)>>idPageBits, []int64{id}, []uint32{p.restaurant}, []uint32{p.client}) == 1
}

// putAll notes new ids, of which neighbours cost least. It ends at one that is there already:
// ErrInconsistent.
func (m *idMap) putAll(ids []int64, restaurants, clients []uint32) error {
	for from := 0; from < len(ids); {
		number, to := uint64(ids[from])>>idPageBits, from+1
		for to < len(ids) && uint64(ids[to])>>idPageBits == number {
			to++
		}
		if at := m.putPage(number, ids[from:to], restaurants[from:to], clients[from:to]); at < to-from {
			return fmt.Errorf("row id %d: it came before: %w", ids[from+at], ErrInconsistent)
		}
		from = to
	}
	return nil
}

// putPage is putAll for ids of one page; it returns how many it noted.
func (m *idMap) putPage(number uint64, ids []int64, restaurants, clients []uint32) int {
	s := &m.shards[number%shardCount]
	s.mu.Lock()
	defer s.mu.Unlock()
	page := s.page(number)
	if page == nil {
		page = &idPage{}
		s.pages[number] = page
		s.last = page
		m.size.Add(idPageCost)
	}
	before, n := page.bytes(), 0
	for n < len(ids) && page.put(uint16(uint64(ids[n])%idPageLen), pair{restaurants[n], clients[n]}, &m.width) {
		n++
	}
	if grown := page.bytes() - before; grown != 0 {
		m.size.Add(grown)
	}
	return n
}

// alter gives a row another pair in its place: taking it out and putting it back would ask for
// its page twice, and make one anew where it is alone.
func (m *idMap) alter(r *record) (old, next pair, ok bool) {
	number := uint64(r.id) >> idPageBits
	s := &m.shards[number%shardCount]
	s.mu.Lock()
	defer s.mu.Unlock()
	page := s.page(number)
	if page == nil {
		return old, next, false
	}
	before := page.bytes()
	old, next, ok = page.alter(uint16(uint64(r.id)%idPageLen), r, &m.width)
	if grown := page.bytes() - before; grown != 0 {
		m.size.Add(grown)
	}
	return old, next, ok
}

// get returns an id's pair.
func (m *idMap) get(id int64) (pair, bool) {
	number := uint64(id) >> idPageBits
	s := &m.shards[number%shardCount]
	s.mu.Lock()
	defer s.mu.Unlock()
	page := s.page(number)
	if page == nil {
		return pair{}, false
	}
	return page.get(uint16(uint64(id) % idPageLen))
}

// take removes an id and returns its pair.
func (m *idMap) take(id int64) (pair, bool) {
	number := uint64(id) >> idPageBits
	s := &m.shards[number%shardCount]
	s.mu.Lock()
	defer s.mu.Unlock()
	page := s.page(number)
	if page == nil {
		return pair{}, false
	}
	before := page.bytes()
	p, ok := page.take(uint16(uint64(id) % idPageLen))
	if page.rows == 0 {
		delete(s.pages, number)
		s.last = nil
		m.size.Add(-before - idPageCost)
		return p, ok
	}
	if grown := page.bytes() - before; grown != 0 {
		m.size.Add(grown)
	}
	return p, ok
}

func (m *idMap) reset() {
	for i := range m.shards {
		s := &m.shards[i]
		s.mu.Lock()
		s.pages, s.last = make(map[uint64]*idPage), nil
		s.mu.Unlock()
	}
	m.size.Store(0)
}

func (m *idMap) bytes() int64 { return m.size.Load() }
