package stream

import (
	"context"
	"maps"
	"slices"
	"sync"
)

// claim is this process's right to a partition: the epoch that Postgres checks and the
// position up to which messages are planned.
type claim struct {
	partition int32
	epoch     int64
	// planned is the offset behind the last message that was admitted: ahead of the ledger by what
	// is in flight, and behind what is gathered.
	planned int64
	// seen is the position behind everything read that is on its way, transaction markers included.
	seen int64
	// inflight counts the batches under way that advance the partition.
	inflight int
	// given says that the partition is being given up: nothing new is admitted.
	given bool
	// onGive, if any, is called when the partition is to be given up.
	onGive func()
	// cut says that a lane of the partition stopped before its end: the sinks are not level.
	cut bool
}

// claims are the partitions that this process owns. The group's callbacks and the delivering
// goroutines share it.
type claims struct {
	mu      sync.Mutex
	owned   map[int32]*claim
	changed chan struct{} // closed and replaced at every change that a waiter may wait for
	// onForget, if any, is called when claims were forgotten.
	onForget func()
}

func newClaims() *claims {
	return &claims{owned: map[int32]*claim{}, changed: make(chan struct{})}
}

func (c *claims) put(cl *claim) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.owned[cl.partition] = cl
	c.broadcast()
}

// all returns the claims by partition.
func (c *claims) all() map[int32]*claim {
	c.mu.Lock()
	defer c.mu.Unlock()
	return maps.Clone(c.owned)
}

// watch returns the claims by partition, and has call called when one of them is forgotten. It replaces what was to
// be called before.
func (c *claims) watch(call func()) map[int32]*claim {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.onForget = call
	return maps.Clone(c.owned)
}

// forget is called with mu held.
func (c *claims) forget(partitions []int32) {
	for _, p := range partitions {
		delete(c.owned, p)
	}
	if c.onForget != nil {
		c.onForget()
	}
	c.broadcast()
}

// position returns the offset from which messages of a partition are to be planned; ok is false when that is not ours, or
// not as it was when the message was read.
func (c *claims) position(m message) (next int64, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	cl := c.owned[m.Partition]
	if cl == nil || cl.given || cl != m.claim {
		return 0, false
	}
	return cl.planned, true
}

// admit drops from the batch what is not, or no longer, ours to deliver, and enters the
// rest as in flight. What was planned under an earlier claim is read again under the present
// one: a part of it may have been dropped before, and what is left would pass over that.
func (c *claims) admit(b *batch) {
	c.mu.Lock()
	defer c.mu.Unlock()
	advances := map[int32]*advance{}
	all := b.triggers
	b.triggers, b.deliveries, b.bulky = all[:0], 0, false
	for _, t := range all {
		cl := c.owned[t.partition]
		if cl == nil || cl.given || cl != t.claim || t.offset < cl.planned {
			t.drop()
			continue
		}
		a := advances[t.partition]
		if a == nil {
			a = &advance{claim: cl, expected: cl.planned}
			advances[t.partition] = a
			cl.inflight++
		}
		cl.planned = t.offset + 1
		a.next, a.leader = cl.planned, t.leader
		b.add(t)
	}
	clear(all[len(b.triggers):])
	for _, partition := range slices.Sorted(maps.Keys(advances)) {
		b.advances = append(b.advances, *advances[partition])
	}
}

// settle takes a batch out of flight.
func (c *claims) settle(b *batch) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, a := range b.advances {
		a.claim.inflight--
	}
	c.broadcast()
}

// give stops admitting messages of the partitions, waits until what is in flight is
// delivered, and forgets the claims. It returns them with their last positions.
func (c *claims) give(ctx context.Context, partitions []int32) ([]*claim, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var going []*claim
	for _, p := range partitions {
		if cl := c.owned[p]; cl != nil {
			cl.given = true
			if cl.onGive != nil {
				cl.onGive()
			}
			going = append(going, cl)
		}
	}
	busy := func() bool {
		return slices.ContainsFunc(going, func(cl *claim) bool { return cl.inflight > 0 })
	}
	if err := c.wait(ctx, func() bool { return !busy() }); err != nil {
		return nil, err
	}
	c.forget(partitions)
	return going, nil
}

// settled waits until nothing is in flight.
func (c *claims) settled(ctx context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.wait(ctx, func() bool {
		for _, cl := range c.owned {
			if cl.inflight > 0 {
				return false
			}
		}
		return true
	})
}

// onGive has call called once the claim is to be given up; at once if it is already.
func (c *claims) onGive(cl *claim, call func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	cl.onGive = call
	if cl.given {
		call()
	}
}

// leave takes a lane out of flight; done says that it came to its end.
func (c *claims) leave(cl *claim, done bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	cl.inflight--
	cl.onGive = nil
	cl.cut = cl.cut || !done
	c.broadcast()
}

// lose forgets the claims at once: another member may own the partitions already.
func (c *claims) lose(partitions []int32) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.forget(partitions)
}

func (c *claims) partitions() []int32 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Sorted(maps.Keys(c.owned))
}

// saw notes that everything up to a message has been read and planned.
func (c *claims) saw(m message) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if cl := c.owned[m.Partition]; cl != nil && cl == m.claim && !cl.given {
		cl.seen = max(cl.seen, m.Offset+1)
		c.broadcast()
	}
}

// reached returns what has been read and delivered of each partition without a message in
// flight, and a channel that is closed at the next change.
func (c *claims) reached() (map[int32]int64, <-chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	at := map[int32]int64{}
	for p, cl := range c.owned {
		if cl.inflight == 0 {
			at[p] = max(cl.seen, cl.planned)
		}
	}
	return at, c.changed
}

// wait blocks, the mutex given up meanwhile, until ok or ctx ends. c.mu is held.
func (c *claims) wait(ctx context.Context, ok func() bool) error {
	for !ok() {
		changed := c.changed
		c.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
		}
		c.mu.Lock()
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
	return nil
}

func (c *claims) broadcast() {
	close(c.changed)
	c.changed = make(chan struct{})
}
