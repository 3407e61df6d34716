package cache

import (
	"slices"
	"sync"
	"sync/atomic"
	"weak"
)

// directory is exact: per restaurant number its lock and its state. It is grown by whoever
// interns a restaurant and read without a lock.
type directory struct {
	first  uint64 // generation of a new entry
	mu     sync.Mutex
	chunks atomic.Pointer[[]*entryChunk]
}

// entry is what must be known of a restaurant, whether its posting is in memory or not:
// 40 bytes.
type entry struct {
	mu sync.Mutex
	// gen is what a posting's must equal to count. It grows whenever the posting that may be
	// in ristretto, or on its way there, is not the truth any more.
	gen    uint64
	ticket *ticket // the open fill, if there is one
	// near is the last posting that was made for the restaurant: the only one that can be of
	// this generation, whether ristretto holds it now or not. What it is nil for cannot come
	// back. Finding it costs a twentieth of asking ristretto.
	near weak.Pointer[posting]
	rows uint32 // exact
	// filled says that a posting of this generation was read through: it may name a client
	// whose row the stream has not brought yet.
	filled bool
}

type entryChunk [entryChunkLen]entry

const entryChunkLen = 256

// ticket is an open fill: it gathers what is applied while the rows are read.
type ticket struct {
	done chan struct{} // closed when the fill is over; what is below is then constant
	log  []gathered
	view *view // nil if the fill broke off
	// again says that what is being read may never have been: under the entry's lock.
	again bool
}

// gathered is one transaction's changes of the ticket's restaurant.
type gathered struct {
	xid      uint64
	truncate bool
	changes  []uint64
}

func newDirectory(first uint64) *directory {
	d := &directory{first: first}
	d.chunks.Store(&[]*entryChunk{})
	return d
}

// entry returns the entry of a restaurant's number, for as long as the directory lives.
func (d *directory) entry(n uint32) *entry {
	if chunks := *d.chunks.Load(); int(n/entryChunkLen) < len(chunks) {
		return &chunks[n/entryChunkLen][n%entryChunkLen]
	}
	return d.reach(n)
}

func (d *directory) reach(n uint32) *entry {
	d.mu.Lock()
	defer d.mu.Unlock()
	chunks := *d.chunks.Load()
	if int(n/entryChunkLen) >= len(chunks) {
		chunks = slices.Clone(chunks)
		for int(n/entryChunkLen) >= len(chunks) {
			c := new(entryChunk)
			for i := range c {
				c[i].gen = d.first
			}
			chunks = append(chunks, c)
		}
		d.chunks.Store(&chunks)
	}
	return &chunks[n/entryChunkLen][n%entryChunkLen]
}

// len is one more than the highest number that has an entry.
func (d *directory) len() uint32 { return uint32(len(*d.chunks.Load()) * entryChunkLen) }

func (d *directory) bytes() int64 { return int64(d.len()) * 40 }
