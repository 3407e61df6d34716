package cache

import "fmt"

// Txn gathers the changes of one source transaction, in order, in a few bytes each: texts
// become dictionary numbers at once, so that the caller's buffers are free when a method
// returns. It belongs to the writer goroutine. What the changes mean is decided by Apply:
// a transaction that the load has seen may well remove rows that the index never had.
type Txn struct {
	// Breathe, unless nil, is called by Apply every few milliseconds of a large transaction,
	// so that its goroutine can answer keepalives. No lock is held, but half of the
	// transaction is applied: it must not use the index as its writer.
	Breathe func()

	index *Index
	st    *state // what the numbers belong to; nil while empty
	pin   uint32
	// pending are the last changes, behind those of log. Until they are looked up, many at
	// once, their restaurant and client are 1 where restaurants and clients have a text, in
	// the same order.
	pending     []record
	restaurants texts
	clients     texts
	log         txnLog
	truncated   bool  // before everything in log
	fault       error // what Apply returns unless the transaction is skipped

	unbreathed int // changes since Breathe was called
}

// NewTxn returns an empty transaction. It may be used again after Apply or Discard.
func (x *Index) NewTxn() *Txn {
	return &Txn{index: x, log: txnLog{most: x.staged, file: spill{dir: x.dir}}}
}

// Len is the number of staged changes, a TRUNCATE counting as one.
func (t *Txn) Len() int {
	n := t.log.n + len(t.pending)
	if t.truncated {
		n++
	}
	return n
}

// Insert stages a new row. The id matters in keyed mode only. Errors: ErrNotLoaded,
// ErrFull, ErrInconsistent (a rebuild began after the first change).
func (t *Txn) Insert(id int64, restaurant, client []byte) error {
	return t.stage(record{op: opInsert, id: id}, restaurant, client)
}

// Delete stages the removal of a row whose pair is known: replica identity FULL, or USING
// INDEX with id 0. In keyed mode the row is found by its id.
func (t *Txn) Delete(id int64, restaurant, client []byte) error {
	if err := t.begin(); err != nil {
		return err
	}
	if !t.st.keyed {
		return t.stage(record{op: opDelete}, restaurant, client)
	}
	if id == 0 {
		t.refuse("delete by pair")
		return nil
	}
	return t.DeleteID(id)
}

// DeleteID stages the removal of a row of which only the id is known: replica identity
// DEFAULT. Apply returns ErrUnknownID if there is no such row.
func (t *Txn) DeleteID(id int64) error {
	return t.stageID(record{op: opDeleteID, id: id}, nil, nil)
}

// Nothing is the text of both columns of a row that is no subscription, because either holds a NULL.
// PostgreSQL has no such text.
const Nothing = "\x00"

// UpdateID stages an update that does not change the id, under replica identity DEFAULT. Nil
// says that the column did not change (an unchanged TOAST value is not sent); an empty text
// must not be nil. Apply returns ErrInconsistent if the row was Nothing and one column is nil:
// what that column holds was never noted.
func (t *Txn) UpdateID(id int64, restaurant, client []byte) error {
	return t.MoveID(id, id, restaurant, client)
}

// MoveID is UpdateID with a change of the id itself.
func (t *Txn) MoveID(id, newID int64, restaurant, client []byte) error {
	return t.stageID(record{op: opMoveID, id: id, newID: newID}, restaurant, client)
}

// Truncate stages the removal of all rows: what was staged before has no effect any more.
func (t *Txn) Truncate() error {
	if err := t.begin(); err != nil {
		return err
	}
	t.clear()
	t.truncated, t.fault = true, nil
	return nil
}

// Discard forgets what was staged.
func (t *Txn) Discard() {
	if t.st != nil {
		t.st.pins.leave(t.pin)
	}
	t.clear()
	t.st, t.truncated, t.fault = nil, false, nil
}

// clear forgets the changes.
func (t *Txn) clear() {
	t.log.reset()
	t.pending = t.pending[:0]
	t.restaurants.reset()
	t.clients.reset()
}

func (t *Txn) stageID(r record, restaurant, client []byte) error {
	if err := t.begin(); err != nil {
		return err
	}
	if !t.st.keyed {
		t.refuse(fmt.Sprintf("change of id %d", r.id))
		return nil
	}
	return t.stage(r, restaurant, client)
}

func (t *Txn) stage(r record, restaurant, client []byte) error {
	if err := t.begin(); err != nil {
		return err
	}
	given := r.op != opMoveID // an empty text may come as nil
	if r.op != opDeleteID {
		if given || restaurant != nil {
			r.restaurant = 1
			t.restaurants.add(restaurant)
		}
		if given || client != nil {
			r.client = 1
			t.clients.add(client)
		}
	}
	t.pending = append(t.pending, r)
	if len(t.pending) < pendingMax && !t.restaurants.heavy() && !t.clients.heavy() {
		return nil
	}
	return t.flush()
}

// pendingMax changes of 200 bytes stay in a core's own cache.
const pendingMax = 1024

// flush moves the pending changes to the log.
func (t *Txn) flush() error {
	if err := t.lookUp(); err != nil {
		return err
	}
	for i := range t.pending {
		t.log.append(&t.pending[i])
	}
	t.pending = t.pending[:0]
	return nil
}

// each calls do for every change in order, once lookUp has been called.
func (t *Txn) each(do func(*record) error) error {
	if err := t.log.each(do); err != nil {
		return err
	}
	for i := range t.pending {
		if err := do(&t.pending[i]); err != nil {
			return err
		}
	}
	return nil
}

// lookUp gives the pending changes their numbers.
func (t *Txn) lookUp() error {
	defer t.restaurants.reset()
	defer t.clients.reset()
	if err := t.st.restaurants.internFew(&t.restaurants); err != nil {
		return fmt.Errorf("stage restaurants: %w", err)
	}
	if err := t.st.clients.internFew(&t.clients); err != nil {
		return fmt.Errorf("stage clients: %w", err)
	}
	r, c := 0, 0
	for i := range t.pending {
		change := &t.pending[i]
		if change.restaurant != 0 {
			change.restaurant = uint64(t.restaurants.numbers[r]) + 1
			r++
		}
		if change.client != 0 {
			change.client = uint64(t.clients.numbers[c]) + 1
			c++
		}
	}
	return nil
}

// begin binds the transaction to the content that it will be applied to.
func (t *Txn) begin() error {
	st := t.index.cur.Load()
	switch {
	case st == nil:
		return fmt.Errorf("stage a change: %w", ErrNotLoaded)
	case t.st == nil:
		t.st, t.pin = st, st.pins.enter()
	case t.st != st:
		return fmt.Errorf("stage a change of a transaction begun before the last rebuild: %w", ErrInconsistent)
	}
	return nil
}

func (t *Txn) refuse(what string) {
	if t.fault == nil {
		t.fault = fmt.Errorf("%s: %w: %w", what, ErrIdentity, ErrInconsistent)
	}
}
