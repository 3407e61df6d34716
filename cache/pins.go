package cache

import (
	"sync"
	"sync/atomic"
)

// pins knows since when somebody may hold dictionary numbers: a Recipients, a fill, a
// transaction being staged. It is epoch-based reclamation (Fraser, "Practical lock-freedom",
// 2004, 5.2.3): a number that nobody could have obtained in or after epoch e is free once no
// pin of an epoch up to e is left.
type pins struct {
	mu     sync.Mutex
	epoch  atomic.Uint32 // changed under mu
	active []pinned      // ascending by epoch, no zero counts at the front
}

type pinned struct {
	epoch uint32
	count int
}

func newPins() *pins {
	p := &pins{}
	p.epoch.Store(1)
	return p
}

// enter must come before any number is read; its result goes to leave, once.
func (p *pins) enter() uint32 {
	p.mu.Lock()
	defer p.mu.Unlock()
	epoch := p.epoch.Load()
	if n := len(p.active); n > 0 && p.active[n-1].epoch == epoch {
		p.active[n-1].count++
	} else {
		p.active = append(p.active, pinned{epoch, 1})
	}
	return epoch
}

// leave ends a pin of the given epoch.
func (p *pins) leave(epoch uint32) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := range p.active {
		if p.active[i].epoch == epoch {
			p.active[i].count--
			break
		}
	}
	gone := 0
	for gone < len(p.active) && p.active[gone].count == 0 {
		gone++
	}
	p.active = append(p.active[:0], p.active[gone:]...)
}

// now returns the current epoch.
func (p *pins) now() uint32 { return p.epoch.Load() }

// advance begins a new epoch and returns it.
func (p *pins) advance() uint32 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.epoch.Add(1)
}

// oldest returns the epoch of the oldest pin, the current one if there is none.
func (p *pins) oldest() uint32 {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.active) > 0 {
		return p.active[0].epoch
	}
	return p.epoch.Load()
}
