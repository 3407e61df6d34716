package cache

import (
	"cmp"
	"fmt"
)

// Apply makes a committed transaction part of the index, per restaurant at once, and empties
// t. Transactions come in commit order from the writer goroutine. One that the load's
// snapshot saw is skipped, and so is one that ends no later than the last one applied: the
// server sends it again after a reconnect. Per restaurant nobody sees a part of it. A
// transaction of more than half a million changes is sorted in a temporary file; see
// Txn.Breathe. Else it waits on no I/O.
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
	if t.st == st {
		if err := t.lookUp(); err != nil {
			return fmt.Errorf("apply transaction %d ending at %s: %w", c.Xid, c.End, err)
		}
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
	defer x.changes.reset()
	if err := x.resolve(t); err != nil {
		return x.fail(c, err)
	}
	x.unsettled.add(c.Xid, c.End)
	if err := x.applyAll(t, c.Xid); err != nil {
		return x.fail(c, err)
	}
	t.Discard() // before the sweep, which spares what a transaction may hold
	x.sweep(st)
	return nil
}

// breatheEvery changes take a few milliseconds.
const breatheEvery = 1 << 14

// breath counts changes and lets the transaction breathe.
func (t *Txn) breath(n int) {
	if t.unbreathed += n; t.unbreathed >= breatheEvery {
		t.unbreathed = 0
		if t.Breathe != nil {
			t.Breathe()
		}
	}
}

// resolve turns the log into sorted changes and brings the id map up to date.
func (x *Index) resolve(t *Txn) error {
	if t.fault != nil {
		return t.fault
	}
	ids := t.st.ids
	x.uncounted = x.uncounted[:0]
	if t.truncated {
		t.st.clients.forget()
		if ids != nil {
			ids.reset()
		}
	}
	err := t.each(func(r *record) error {
		t.breath(1)
		switch {
		case ids != nil && r.op != opDelete:
			return x.follow(t.st, r)
		case r.op == opDelete:
			return x.means(t.st, change(uint32(r.restaurant-1), uint32(r.client-1), 1))
		default:
			return x.means(t.st, change(uint32(r.restaurant-1), uint32(r.client-1), 0))
		}
	})
	if err == nil {
		err = x.count(t.st)
	}
	if err != nil {
		return err
	}
	if failed := cmp.Or(t.log.failed, x.changes.failed); failed != nil {
		x.log.Warn("a large transaction stays in memory: it could not be spilled", "changes", t.Len(), "err", failed)
	}
	return x.changes.sort()
}

// means takes what a record means for a pair: the clients' rows are counted at once, in the
// order of the log.
func (x *Index) means(st *state, ch uint64) error {
	x.changes.add(ch)
	x.uncounted = append(x.uncounted, ch)
	if len(x.uncounted) < pendingMax {
		return nil
	}
	return x.count(st)
}

// count brings the rows of the clients up to date.
func (x *Index) count(st *state) error {
	ok := st.clients.referAll(x.uncounted)
	x.uncounted = x.uncounted[:0]
	if !ok {
		return fmt.Errorf("removal of a client that has no rows: %w", ErrInconsistent)
	}
	return nil
}

// follow applies a record to the id map and adds what it means for pairs.
func (x *Index) follow(st *state, r *record) error {
	var old, next pair
	newID, known, free := r.id, true, true
	switch {
	case r.op == opInsert:
		next = r.pair(pair{})
		free = st.ids.put(newID, next)
	case r.op == opMoveID && r.newID == r.id:
		old, next, known = st.ids.alter(r)
	default:
		if old, known = st.ids.take(r.id); known && r.op == opMoveID {
			newID, next = r.newID, r.pair(old)
			free = st.ids.put(newID, next)
		}
	}
	if !known {
		return fmt.Errorf("change of row id %d: %w: %w", r.id, ErrUnknownID, ErrInconsistent)
	}
	if r.op == opMoveID && (r.restaurant == 0 || r.client == 0) && st.setAside(old) {
		return fmt.Errorf("row id %d: one of its columns was NULL, and the other does not come with the change: %w", r.id, ErrInconsistent)
	}
	if !free {
		return fmt.Errorf("new row id %d: there is a row of this id: %w", newID, ErrInconsistent)
	}
	if r.op != opInsert {
		if err := x.means(st, change(old.restaurant, old.client, 1)); err != nil || r.op == opDeleteID {
			return err
		}
	}
	return x.means(st, change(next.restaurant, next.client, 0))
}

// setAside reports whether a row's pair is Nothing.
func (st *state) setAside(p pair) bool {
	var text [len(Nothing) + 1]byte
	return string(st.restaurants.appendText(text[:0], p.restaurant)) == Nothing
}

func (x *Index) applyAll(t *Txn, xid uint64) error {
	st := t.st
	defer x.ahead.forget()
	from := uint32(0) // for a TRUNCATE, which concerns the restaurants between the groups too
	for {
		r, more := x.changes.next()
		if t.truncated {
			to := r
			if !more {
				to = st.dir.len()
			}
			x.empty(t, xid, from, to)
			from = r + 1
		}
		if !more {
			return nil
		}
		if x.ahead.done() && !t.truncated {
			x.ahead.look(st.dir, x.changes.inMemory())
		}
		n, err := x.applyTo(st, xid, r, t.truncated, &x.changes)
		if err != nil {
			return err
		}
		t.breath(n)
	}
}

// empty applies a TRUNCATE to the restaurants numbered from to to-1.
func (x *Index) empty(t *Txn, xid uint64, from, to uint32) {
	var nothing changes
	for r := from; r < to; r++ {
		// Nothing is removed that could be missing: there is no error.
		_, _ = x.applyTo(t.st, xid, r, true, &nothing)
		t.breath(1)
	}
}

// applyTo is a transaction's one hold of a restaurant's lock. It takes the restaurant's
// changes, which may come in several portions, and returns their number.
func (x *Index) applyTo(st *state, xid uint64, r uint32, truncate bool, in *changes) (int, error) {
	e := st.dir.entry(r)
	e.mu.Lock()
	defer e.mu.Unlock()
	rows := int64(e.rows)
	if truncate {
		rows = 0
	}
	p := x.begin(e, x.ahead.posting(r), xid, r, truncate)
	listening := x.listening(st)
	if listening != nil && truncate {
		listening.note(r, xid, true, nil)
	}
	n := 0
	for {
		portion, err := in.take(r)
		if err != nil {
			return n, err
		}
		if len(portion) == 0 {
			break
		}
		n += len(portion)
		rows += balance(portion)
		if listening != nil {
			listening.note(r, xid, false, portion)
		}
		if err := e.applyPortion(p, portion, &x.room); err != nil {
			e.disown() // it holds a part of the transaction
			return n, err
		}
	}
	if p != nil && !x.shelf.recharge(r, p) {
		x.shelf.drop(r) // it stays right, for whom ristretto may still show it to
	}
	return n, st.countRows(e, rows)
}

// begin decides what becomes of the restaurant's posting; it is returned if it counts and
// does not have the transaction already. The entry is locked; p may be its posting.
func (x *Index) begin(e *entry, p *posting, xid uint64, r uint32, truncate bool) *posting {
	if e.ticket != nil {
		g := gathered{xid: xid, truncate: truncate}
		e.ticket.log = append(e.ticket.log, g)
		e.disown()
		return nil
	}
	if truncate {
		e.disown()
		x.shelf.drop(r)
		return nil
	}
	if p == nil || p.gen != e.gen { // a reading may have replaced it since
		if p = e.near.Value(); p == nil || p.gen != e.gen {
			return nil
		}
	}
	if p.seen != nil && p.seen.Sees(xid) {
		return nil
	}
	return p
}

// applyPortion gives changes to the open fill, or to the posting if there is one.
func (e *entry) applyPortion(p *posting, portion []uint64, room *[]uint32) error {
	if e.ticket != nil {
		g := &e.ticket.log[len(e.ticket.log)-1]
		g.changes = append(g.changes, portion...)
		return nil
	}
	if p == nil {
		return nil
	}
	return p.apply(portion, room)
}

// disown makes every posting of the restaurant that exists now count no more.
func (e *entry) disown() {
	e.gen++
	e.filled = false
}

// balance is by how much changes change the number of rows.
func balance(changes []uint64) int64 {
	removals := int64(0)
	for _, ch := range changes {
		removals += int64(ch & 1)
	}
	return int64(len(changes)) - 2*removals
}

// countRows sets the exact number of rows.
func (st *state) countRows(e *entry, rows int64) error {
	if rows < 0 {
		return fmt.Errorf("%d more rows of a restaurant removed than it has: %w", -rows, ErrInconsistent)
	}
	before := int64(e.rows)
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
