package cache

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"
	"weak"
)

// Lookup returns the restaurant's distinct subscribers in one state of the table that holds
// at least every transaction applied before the call; it may hold later ones that the source
// has committed. Release the result. It waits, as long as ctx allows, while no load is
// finished, and reads from the Source when the posting is not in memory. Errors: of ctx, of
// the Source (worth a retry), ErrClosed, ErrInconsistent. Safe for concurrent use.
func (x *Index) Lookup(ctx context.Context, restaurant string) (*Recipients, error) {
	return x.LookupReading(ctx, restaurant, math.MaxInt)
}

// LookupReading is Lookup, but that it fails with ErrManyRows, and reads nothing, where more than so
// many rows of the restaurant would have to be read from the source. Safe for concurrent use.
func (x *Index) LookupReading(ctx context.Context, restaurant string, most int) (*Recipients, error) {
	for {
		st, err := x.await(ctx)
		if err != nil {
			return nil, fmt.Errorf("look up restaurant %q: %w", restaurant, err)
		}
		r, err := x.lookup(ctx, st, restaurant, most)
		if errors.Is(err, errWithdrawn) {
			continue // a rebuild began: its content will answer
		}
		if err != nil {
			return nil, fmt.Errorf("look up restaurant %q: %w", restaurant, err)
		}
		return r, nil
	}
}

func (x *Index) lookup(ctx context.Context, st *state, restaurant string, most int) (*Recipients, error) {
	n, ok := st.restaurants.find([]byte(restaurant))
	if !ok {
		x.metrics.lookup(resultEmpty)
		return &Recipients{clients: &view{}, texts: st.clients}, nil
	}
	r := &Recipients{texts: st.clients, pins: st.pins, epoch: st.pins.enter()}
	clients, result, err := x.clients(ctx, st, restaurant, n, most)
	if err != nil {
		r.Release()
		return nil, err
	}
	x.metrics.lookup(result)
	r.clients = clients
	return r, nil
}

// clients finds a restaurant's clients by the rules of the package. The caller holds a pin.
func (x *Index) clients(ctx context.Context, st *state, restaurant string, n uint32, most int) (*view, string, error) {
	e := st.dir.entry(n)
	for {
		e.mu.Lock()
		if e.rows == 0 {
			e.mu.Unlock()
			return &view{}, resultEmpty, nil
		}
		if p := x.shelf.find(n); p != nil && p.gen == e.gen {
			v := p.view()
			e.mu.Unlock()
			return v, resultResident, nil
		}
		if int64(e.rows) > int64(most) {
			e.mu.Unlock()
			return nil, "", ErrManyRows
		}
		t := e.ticket
		if t == nil {
			t = &ticket{done: make(chan struct{})}
			e.ticket = t
			e.mu.Unlock()
			v, err := x.fill(ctx, st, restaurant, n, e, t)
			return v, resultFilled, err
		}
		e.mu.Unlock()
		select {
		case <-t.done:
		case <-ctx.Done():
			return nil, "", fmt.Errorf("wait for another reading of the restaurant: %w", ctx.Err())
		}
		// The fill closed after this lookup began, so its answer holds all that this one
		// must hold.
		if t.view != nil && x.serving.Load() == st {
			return t.view, resultFilled, nil
		}
		if x.serving.Load() != st {
			return nil, "", errWithdrawn
		}
	}
}

// fill reads a restaurant under an open ticket and closes the ticket.
func (x *Index) fill(ctx context.Context, st *state, restaurant string, n uint32, e *entry, t *ticket) (*view, error) {
	rows, snap, err := x.read(ctx, st, restaurant)
	e.mu.Lock()
	defer e.mu.Unlock()
	for err == nil && t.again {
		t.again = false
		e.mu.Unlock()
		rows, snap, err = x.read(ctx, st, restaurant)
		e.mu.Lock()
	}
	defer close(t.done)
	e.ticket = nil
	if err != nil {
		return nil, err
	}
	p := newPosting(rows, new([]uint32))
	p.seen = &snap
	if err := p.replay(t.log, snap); err != nil {
		err = fmt.Errorf("replay what was applied while it was read: %w", err)
		x.fault.CompareAndSwap(nil, &fault{st, err})
		return nil, err
	}
	if x.serving.Load() != st {
		return nil, errWithdrawn
	}
	e.gen++
	p.gen = e.gen
	e.filled = true
	e.near = weak.Make(p)
	t.view = p.view()
	x.shelf.put(n, p)
	return t.view, nil // never what the shelf says now: it may be an older posting
}

// read reads a restaurant until its rows hold every transaction that was applied before the
// ticket was opened. Those applied since are in the ticket.
func (x *Index) read(ctx context.Context, st *state, restaurant string) ([]uint32, Snapshot, error) {
	before := x.unsettled.list()
	for pause := firstPause; ; pause = min(2*pause, longestPause) {
		var rows []uint32
		snap, err := x.source.ReadRestaurant(ctx, restaurant, func(client []byte) error {
			c, err := st.clients.intern(client, 0)
			rows = append(rows, c)
			return err
		})
		if err != nil {
			return nil, Snapshot{}, fmt.Errorf("read its rows: %w", err)
		}
		x.unsettled.settle(snap)
		if allSeen(before, snap) {
			return rows, snap, nil
		}
		select {
		case <-time.After(pause):
		case <-x.closed:
			return nil, Snapshot{}, ErrClosed
		case <-ctx.Done():
			return nil, Snapshot{}, fmt.Errorf("wait for an applied transaction to become visible on the source: %w", ctx.Err())
		}
	}
}

// A transaction is streamed before it is visible by the time of a few instructions, or by a
// synchronous standby's answer.
const (
	firstPause   = 200 * time.Microsecond
	longestPause = 50 * time.Millisecond
)

// replay applies to the rows that a snapshot showed what the ticket gathered and the
// snapshot did not show.
func (p *posting) replay(log []gathered, snap Snapshot) error {
	// TRUNCATE does not wait for snapshots: a reading in an older one may find the table
	// empty already. So everything before it is left out, the rows as well.
	first := 0
	for i, g := range log {
		if g.truncate && !snap.Sees(g.xid) {
			first = i
			*p = posting{seen: p.seen}
		}
	}
	var room []uint32
	for _, g := range log[first:] {
		if snap.Sees(g.xid) {
			continue
		}
		if err := p.apply(g.changes, &room); err != nil {
			return fmt.Errorf("transaction %d: %w", g.xid, err)
		}
	}
	return nil
}
