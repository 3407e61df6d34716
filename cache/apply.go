package cache

import (
	"fmt"
	"slices"
)

// A change in hand is restaurant<<32 | client<<1 | 1 if it removes a row. Sorted, the
// changes of a restaurant lie together, and an addition of a pair comes before its removal:
// within one transaction nothing but the sum matters.
func change(restaurant, client uint32, removes uint64) uint64 {
	return uint64(restaurant)<<32 | uint64(client)<<1 | removes
}

func restaurant(ch uint64) uint32     { return uint32(ch >> 32) }
func client(ch uint64) (uint32, bool) { return uint32(ch) >> 1, ch&1 == 1 }

// scratchMax is how many changes' room is kept for the next transaction: 8 MiB.
const scratchMax = 1 << 20

// Apply makes a committed transaction part of the index, per restaurant at once, and empties
// t. Transactions come in commit order from the writer goroutine. One that the load's
// snapshot saw is skipped, and so is one that ends no later than the last one applied: the
// server sends it again after a reconnect. It waits on no I/O.
//
// After ErrInconsistent (or ErrUnknownID, ErrIdentity, which come with it) lookups wait until
// the index is loaded anew. ErrNotLoaded: no load has finished.
func (x *Index) Apply(t *Txn, c Commit) error {
	defer t.Discard()
	st := x.serving.Load()
	if st == nil {
		return fmt.Errorf("apply transaction %d: %w", c.Xid, ErrNotLoaded)
	}
	if f := x.fault.Load(); f != nil && f.st == st {
		return x.fail(c, f.err)
	}
	if c.End <= x.applied && c.End != 0 {
		return nil
	}
	x.applied = c.End
	if st.since.Sees(c.Xid) {
		x.unsettled.skip(c.End)
		return nil
	}
	if t.Len() == 0 && t.fault == nil {
		return nil
	}
	if t.st != st {
		return x.fail(c, fmt.Errorf("it was staged before the last rebuild: %w", ErrInconsistent))
	}
	changes, err := x.resolve(t)
	if err != nil {
		return x.fail(c, err)
	}
	x.unsettled.add(c.Xid, c.End)
	if err := x.applyAll(st, c.Xid, t.truncated, changes); err != nil {
		return x.fail(c, err)
	}
	t.Discard() // before the sweep, which spares what a transaction may hold
	x.sweep(st)
	return nil
}

// resolve turns the log into sorted changes and brings the id map up to date.
func (x *Index) resolve(t *Txn) ([]uint64, error) {
	if t.fault != nil {
		return nil, t.fault
	}
	if cap(x.scratch) > scratchMax {
		x.scratch = nil
	}
	out := slices.Grow(x.scratch[:0], t.log.n)
	ids := t.st.ids
	if t.truncated && ids != nil {
		ids.reset()
	}
	err := t.log.each(func(r record) error {
		var err error
		switch {
		case r.op == opDelete || ids == nil:
			var removes uint64
			if r.op == opDelete {
				removes = 1
			}
			out = append(out, change(uint32(r.restaurant-1), uint32(r.client-1), removes))
		default:
			out, err = ids.follow(out, r)
		}
		return err
	})
	slices.Sort(out)
	x.scratch = out
	return out, err
}

// follow applies a record to the id map and appends what it means for pairs.
func (m *idMap) follow(out []uint64, r record) ([]uint64, error) {
	next := pair{uint32(r.restaurant - 1), uint32(r.client - 1)}
	newID := r.id
	if r.op != opInsert {
		old, ok := m.take(r.id)
		if !ok {
			return out, fmt.Errorf("change of row id %d: %w: %w", r.id, ErrUnknownID, ErrInconsistent)
		}
		out = append(out, change(old.restaurant, old.client, 1))
		if r.op == opDeleteID {
			return out, nil
		}
		newID = r.newID
		if r.restaurant == 0 {
			next.restaurant = old.restaurant
		}
		if r.client == 0 {
			next.client = old.client
		}
	}
	if !m.put(newID, next) {
		return out, fmt.Errorf("new row id %d: there is a row of this id: %w", newID, ErrInconsistent)
	}
	return append(out, change(next.restaurant, next.client, 0)), nil
}

func (x *Index) applyAll(st *state, xid uint64, truncate bool, changes []uint64) error {
	if truncate {
		st.clients.forget()
	}
	for _, ch := range changes {
		by := int64(1)
		c, removes := client(ch)
		if removes {
			by = -1
		}
		if !st.clients.refer(c, by) {
			return fmt.Errorf("removal of a client that has no rows: %w", ErrInconsistent)
		}
	}
	next := uint32(0) // for a TRUNCATE, which concerns the restaurants between the groups too
	for len(changes) > 0 {
		r := restaurant(changes[0])
		size := slices.IndexFunc(changes, func(ch uint64) bool { return restaurant(ch) != r })
		if size < 0 {
			size = len(changes)
		}
		if truncate {
			x.empty(st, xid, next, r)
			next = r + 1
		}
		if err := x.applyTo(st, xid, r, gathered{xid, truncate, changes[:size]}); err != nil {
			return err
		}
		changes = changes[size:]
	}
	if truncate {
		x.empty(st, xid, next, st.dir.len())
	}
	return nil
}

// empty applies a TRUNCATE to the restaurants numbered from to to-1.
func (x *Index) empty(st *state, xid uint64, from, to uint32) {
	for r := from; r < to; r++ {
		// Nothing is removed that could be missing: there is no error.
		_ = x.applyTo(st, xid, r, gathered{xid: xid, truncate: true})
	}
}

// applyTo is a transaction's one hold of a restaurant's lock.
func (x *Index) applyTo(st *state, xid uint64, r uint32, g gathered) error {
	e := st.dir.entry(r)
	e.mu.Lock()
	defer e.mu.Unlock()
	if err := st.countRows(e, g); err != nil {
		return err
	}
	if e.ticket != nil {
		g.changes = slices.Clone(g.changes)
		e.ticket.log = append(e.ticket.log, g)
		e.disown()
		return nil
	}
	if g.truncate {
		e.disown()
		x.shelf.drop(r)
		return nil
	}
	p := x.shelf.find(r)
	if p == nil || p.gen != e.gen {
		e.disown() // a Set may still sit in ristretto's buffer
		return nil
	}
	if p.seen != nil && p.seen.Sees(xid) {
		return nil
	}
	if err := p.apply(g.changes); err != nil {
		e.disown() // it holds a part of the transaction
		return err
	}
	if !x.shelf.recharge(r, p) {
		e.disown()
		x.shelf.drop(r)
	}
	return nil
}

// disown makes every posting of the restaurant that exists now count no more.
func (e *entry) disown() {
	e.gen++
	e.filled = false
}

// countRows brings the exact number of rows up to date.
func (st *state) countRows(e *entry, g gathered) error {
	before := int64(e.rows)
	rows := before
	if g.truncate {
		rows = 0
	}
	for _, ch := range g.changes {
		if _, removes := client(ch); removes {
			rows--
		} else {
			rows++
		}
	}
	if rows < 0 {
		return fmt.Errorf("%d more rows of a restaurant removed than it has: %w", -rows, ErrInconsistent)
	}
	e.rows = uint32(rows)
	st.rows.Add(rows - before)
	switch {
	case before == 0 && rows > 0:
		st.peopled.Add(1)
	case before > 0 && rows == 0:
		st.peopled.Add(-1)
	}
	return nil
}
