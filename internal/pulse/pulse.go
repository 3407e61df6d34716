// Package pulse tells who hangs. A goroutine that owns something beats as it goes on; whoever looks
// notices how long that is ago. A wait is no hang while it is within its bound, nor is having
// nothing to do.
//
// Its one rule: to beat costs next to nothing, and reads no clock: the time is taken by those who
// look, who must do so every few seconds. Nothing here starts a goroutine.
package pulse

import (
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Limit is how long a goroutine may go without a beat. It is generous: what it waits for by itself is
// bounded by less (a question to a server, a statement, the acknowledgement of a transaction), and
// a machine that is short of everything is slow, not dead.
const Limit = 5 * time.Minute

// resting is the bound of a pulse that nothing is expected of.
const resting = time.Duration(0)

// Pulse is the sign of life of one goroutine, or of several that share their fate. It begins at rest.
// Beat, Await and Rest may be called from several goroutines at once, and on nil: nobody looks.
type Pulse struct {
	who   string
	alive atomic.Bool
	bound atomic.Int64 // of the silence from now on, in nanoseconds

	// Of those who look, under the lock of Pulses.
	seen time.Time
}

// Beat says that the goroutine goes on; the next beat comes within Limit.
func (p *Pulse) Beat() { p.Await(Limit) }

// Await says that the next beat may take so long: a wait that is bounded by it.
func (p *Pulse) Await(bound time.Duration) {
	if p == nil {
		return
	}
	if p.bound.Load() != int64(bound) {
		p.bound.Store(int64(bound))
	}
	if !p.alive.Load() {
		p.alive.Store(true)
	}
}

// Rest says that the goroutine has nothing to do, or waits for what its part tells of elsewhere.
func (p *Pulse) Rest() { p.Await(resting) }

// Pulses are those of one part. The zero value has none. Safe for concurrent use.
type Pulses struct {
	mu  sync.Mutex
	all []*Pulse
}

// New adds a pulse; who names the goroutine for people.
func (p *Pulses) New(who string) *Pulse {
	n := &Pulse{who: who}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.all = append(p.all, n)
	return n
}

// Remove forgets a pulse whose goroutine has ended.
func (p *Pulses) Remove(gone *Pulse) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.all = slices.DeleteFunc(p.all, func(n *Pulse) bool { return n == gone })
}

// Hangs names who has been silent for longer than it may, with the time since somebody saw it alive.
func (p *Pulses) Hangs(now time.Time) (hangs []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, n := range p.all {
		if n.alive.Swap(false) || n.seen.IsZero() {
			n.seen = now
		}
		bound := time.Duration(n.bound.Load())
		if silent := now.Sub(n.seen); bound != resting && silent > bound {
			hangs = append(hangs, fmt.Sprintf("%s hangs: no sign of life for %s", n.who, silent.Round(time.Second)))
		}
	}
	return hangs
}
