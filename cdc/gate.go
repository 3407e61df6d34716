package cdc

import (
	"sync"
	"sync/atomic"

	"example.com/tiffin/cache"
)

// gate lets fences wait for the applied position. One goroutine advances it; that costs two
// atomic operations when nobody waits.
type gate struct {
	at      atomic.Uint64
	waiting atomic.Int32

	shuts atomic.Uint64

	mu      sync.Mutex
	waiters map[*waiter]struct{}
}

// waiter is one fence. passed is closed when the gate is at its position, or when the gate
// was shut and the position means nothing any more.
type waiter struct {
	lsn    cache.LSN
	passed chan struct{}
	shut   bool // set before passed is closed
}

func (g *gate) position() cache.LSN { return cache.LSN(g.at.Load()) }

// advance opens the gate up to a position.
func (g *gate) advance(to cache.LSN) {
	g.at.Store(uint64(to))
	// A waiter counts itself before it looks at the position: one of the two sees the other.
	if g.waiting.Load() == 0 {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	for w := range g.waiters {
		if w.lsn <= to {
			g.dismiss(w)
		}
	}
}

// shut forgets the position: the index is loaded again, and positions of before may be those
// of another history.
func (g *gate) shut() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.at.Store(0)
	g.shuts.Add(1)
	for w := range g.waiters {
		w.shut = true
		g.dismiss(w)
	}
}

// history numbers the histories that positions are of.
func (g *gate) history() uint64 { return g.shuts.Load() }

// enter waits for a position of a history; the caller leaves with leave.
func (g *gate) enter(lsn cache.LSN, history uint64) *waiter {
	w := &waiter{lsn: lsn, passed: make(chan struct{})}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.waiters == nil {
		g.waiters = map[*waiter]struct{}{}
	}
	g.waiters[w] = struct{}{}
	g.waiting.Add(1)
	w.shut = history != g.history()
	if w.shut || g.position() >= lsn {
		g.dismiss(w)
	}
	return w
}

func (g *gate) leave(w *waiter) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if _, in := g.waiters[w]; in {
		g.dismiss(w)
	}
}

func (g *gate) dismiss(w *waiter) {
	delete(g.waiters, w)
	g.waiting.Add(-1)
	close(w.passed)
}
