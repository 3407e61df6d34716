package cache

import (
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"weak"
)

// Load fills an index from a consistent snapshot of the table. Batch and Add are safe for
// concurrent use; Finish or Abort comes after the last Flush or Add, once.
type Load struct {
	index *Index
	st    *state
	build [shardCount]buildShard
	taken atomic.Int64 // bytes of all lists
	ended bool
}

// buildShard holds the rows of every 64th restaurant number.
type buildShard struct {
	mu    sync.Mutex
	lists []list // by number / shardCount
	_     [96]byte
}

// list is one restaurant's rows.
type list struct {
	clients []uint32
	rows    uint32
	dropped bool // the budget was used up: it will be read through
}

// BeginLoad forgets everything and returns the load that fills the index anew; until it is
// finished lookups wait. Keyed says that changes will name rows by id alone (replica
// identity DEFAULT), so that the pair of every id must be kept. Writer goroutine.
func (x *Index) BeginLoad(keyed bool) *Load {
	x.serving.Store(nil)
	x.cur.Store(nil) // so that the old content can be collected before the new one grows
	x.shelf.clear()
	x.unsettled.reset()
	x.fault.Store(nil)
	x.applied = 0
	x.changes.reset()
	x.mu.Lock()
	x.loads++
	st := newState(keyed, x.loads)
	x.mu.Unlock()
	x.cur.Store(st)
	return &Load{index: x, st: st}
}

// Batch gathers rows of a load, so that they are looked up and noted many at once. It belongs
// to one goroutine; several batches of a load may be filled at the same time.
type Batch struct {
	load        *Load
	ids         []int64
	restaurants texts
	clients     texts
}

// batchMax rows of 150 bytes stay in a core's own cache, also the second time they are looked at.
const batchMax = 2048

// Batch returns an empty batch.
func (l *Load) Batch() *Batch { return &Batch{load: l} }

// Add takes one row; the bytes may be reused afterwards. The id matters in keyed mode only.
// Errors are Flush's, of this row or one before.
func (b *Batch) Add(id int64, restaurant, client []byte) error {
	b.ids = append(b.ids, id)
	b.restaurants.add(restaurant)
	b.clients.add(client)
	if len(b.ids) < batchMax && !b.restaurants.heavy() && !b.clients.heavy() {
		return nil
	}
	return b.Flush()
}

// Flush brings the rows added so far into the load: it comes after the last Add. Errors:
// ErrFull, ErrInconsistent (an id came twice).
func (b *Batch) Flush() error {
	defer b.reset()
	st := b.load.st
	if err := st.restaurants.internAll(&b.restaurants, 0); err != nil {
		return fmt.Errorf("load restaurants: %w", err)
	}
	if err := st.clients.internAll(&b.clients, 1); err != nil {
		return fmt.Errorf("load clients: %w", err)
	}
	if st.ids != nil {
		if err := st.ids.putAll(b.ids, b.restaurants.numbers, b.clients.numbers); err != nil {
			return fmt.Errorf("load rows: %w", err)
		}
	}
	for i := range b.load.build {
		if places := b.restaurants.shard(i); len(places) > 0 {
			b.load.note(&b.load.build[i], b.restaurants.numbers, b.clients.numbers, places)
		}
	}
	return nil
}

func (b *Batch) reset() {
	b.ids = b.ids[:0]
	b.restaurants.reset()
	b.clients.reset()
}

// Add takes one row, as a batch of it. Safe for concurrent use.
func (l *Load) Add(id int64, restaurant, client []byte) error {
	b := l.Batch()
	return errors.Join(b.Add(id, restaurant, client), b.Flush())
}

// note adds rows to their restaurants' lists, all of one shard.
func (l *Load) note(b *buildShard, restaurants, clients, places []uint32) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, i := range places {
		at := int(restaurants[i] / shardCount)
		if at >= len(b.lists) {
			b.lists = slices.Grow(b.lists, at+1-len(b.lists))[:at+1]
		}
		l.lengthen(&b.lists[at], clients[i])
	}
}

// lengthen adds a row to a list. The lists never take more than the budget: past it, a
// restaurant whose list would grow loses it and is read through when it is asked for.
func (l *Load) lengthen(list *list, c uint32) {
	list.rows++
	if list.dropped {
		return
	}
	before := cap(list.clients)
	list.clients = append(list.clients, c)
	if cap(list.clients) == before {
		return
	}
	if l.taken.Add(int64(4*(cap(list.clients)-before))) > l.index.shelf.budget {
		l.taken.Add(int64(-4 * cap(list.clients)))
		list.clients, list.dropped = nil, true
	}
}

// Finish makes the loaded rows, all read in snapshot s, the content of the index and lets
// lookups go on. Writer goroutine.
func (l *Load) Finish(s Snapshot) error {
	x := l.index
	if l.ended || x.cur.Load() != l.st {
		return fmt.Errorf("finish a load that has ended: %w", ErrNotLoaded)
	}
	l.ended = true
	select {
	case <-x.closed:
		return fmt.Errorf("finish a load: %w", ErrClosed)
	default:
	}
	l.st.since = s
	shards := make(chan int)
	var done sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		done.Go(func() {
			var room []uint32
			for i := range shards {
				l.shelve(i, &room)
			}
		})
	}
	for i := range l.build {
		shards <- i
	}
	close(shards)
	done.Wait()
	x.shelf.settle()
	x.serve(l.st)
	return nil
}

// Abort gives the load up: lookups go on waiting for another one. Writer goroutine.
func (l *Load) Abort() {
	if l.ended {
		return
	}
	l.ended = true
	l.build = [shardCount]buildShard{}
	l.index.cur.CompareAndSwap(l.st, nil)
}

// shelve turns a shard's lists into postings, which are sorted in room.
func (l *Load) shelve(shard int, room *[]uint32) {
	b := &l.build[shard]
	for i, list := range b.lists {
		if list.rows == 0 {
			continue
		}
		n := uint32(i*shardCount + shard)
		e := l.st.dir.entry(n)
		e.mu.Lock()
		e.rows = list.rows
		if !list.dropped {
			p := newPosting(list.clients, room)
			p.gen = e.gen
			e.near = weak.Make(p)
			l.index.shelf.put(n, p)
		}
		e.mu.Unlock()
		l.st.rows.Add(int64(list.rows))
		l.st.peopled.Add(1)
		b.lists[i].clients = nil
		if i%shelveBatch == shelveBatch-1 {
			l.index.shelf.settle()
		}
	}
	b.lists = nil
}

// shelveBatch times the goroutines of Finish stays below ristretto's buffer of 32,768.
const shelveBatch = 256
