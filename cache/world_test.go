package cache

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
)

// world is the source database of the model test: a table under MVCC whose commits are
// streamed in commit order and become visible to snapshots in an order of their own, before
// or after they are streamed. One goroutine, the driver, changes it.
type world struct {
	mu      sync.Mutex
	moved   sync.Cond  // steps or over changed
	rng     *rand.Rand // under mu
	steps   int
	over    bool
	rows    map[int64]*worldRow
	txns    []*worldTxn               // in commit order
	touches map[string][]*worldTxn    // by restaurant, in commit order, truncates included
	base    map[string]map[string]int // what was folded away from the front of touches
	lows    map[int]int               // by reader, while it looks up
	visible int                       // number of visible transactions
	nextXid uint64
	running []uint64 // xids without a commit
	nextID  int64
	freed   []freedID
	churn   int

	// What the index was given; begun counts a transaction when Apply is called, applied when
	// it has returned.
	begun, applied int
	rebuilds       int
	restart        int // applied at the last rebuild
	reads          int
}

// restaurants are few, so that what happens at once happens to the same ones.
const restaurants = 5

type worldRow struct {
	restaurant, client string
	by                 *worldTxn // nobody else may change the row before it is visible
}

// freedID is of a row that a transaction deleted.
type freedID struct {
	id int64
	by *worldTxn
}

type worldTxn struct {
	index    int
	xid      uint64
	end      LSN
	truncate bool
	ops      []worldOp
	seen     int // place in the order of visibility, -1 before
}

// worldOp replaces row id (old, unless it is an insert) by row newID (unless it is a delete).
type worldOp struct {
	id, newID        int64
	oldR, oldC       string
	newR, newC       string
	inserts, deletes bool
	sameR, sameC     bool
}

func newWorld(seed uint64) *world {
	w := &world{
		rng: rand.New(rand.NewPCG(seed, 1)), rows: map[int64]*worldRow{},
		touches: map[string][]*worldTxn{}, base: map[string]map[string]int{}, lows: map[int]int{}, nextXid: 700, nextID: 1,
	}
	w.moved.L = &w.mu
	return w
}

func (w *world) restaurant() string { return fmt.Sprintf("r%d", w.rng.IntN(restaurants)) }

func (w *world) client() string {
	switch n := w.rng.IntN(40); {
	case n == 0:
		return ""
	case n == 1:
		return "a client whose name takes more than sixteen bytes"
	case n < 10:
		return fmt.Sprintf("123e4567-e89b-12d3-a456-4266141740%02d", n)
	case n < 18: // somebody new: so that numbers die and are given out again
		w.churn++
		return fmt.Sprintf("new %d", w.churn)
	default:
		return fmt.Sprintf("c%d", n)
	}
}

// step lets readers who wait for something to happen go on.
func (w *world) step() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.steps++
	w.moved.Broadcast()
}

func (w *world) finish() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.over = true
	w.moved.Broadcast()
}

// commit makes a transaction durable: from now on it can be streamed.
func (w *world) commit() {
	w.mu.Lock()
	defer w.mu.Unlock()
	hidden := len(w.txns) - w.visible
	if hidden >= 5 || hidden > 0 && w.txns[len(w.txns)-1].truncate {
		return // TRUNCATE holds the table's lock until it is visible
	}
	for len(w.running) < 4 {
		w.running = append(w.running, w.nextXid)
		w.nextXid++
	}
	i := w.rng.IntN(len(w.running))
	t := &worldTxn{index: len(w.txns), xid: w.running[i], seen: -1, end: LSN(100 * (len(w.txns) + 1))}
	w.running = slices.Delete(w.running, i, i+1)
	if w.rng.IntN(20) == 0 { // and one that aborts
		w.running = w.running[1:]
	}
	if hidden == 0 && w.rng.IntN(60) == 0 {
		t.truncate = true
		clear(w.rows)
		for r := range restaurants {
			w.touch(fmt.Sprintf("r%d", r), t)
		}
	}
	size := 1 + w.rng.IntN(4)
	if w.rng.IntN(30) == 0 {
		size = 30
	}
	for range size {
		w.op(t)
	}
	w.txns = append(w.txns, t)
}

func (w *world) op(t *worldTxn) {
	var o worldOp
	id, row := w.changeable(t)
	o.deletes = row != nil && (len(w.rows) > 160 || w.rng.IntN(100) < 45)
	o.inserts = !o.deletes || w.rng.IntN(3) == 0 // both: an update
	if o.deletes {
		o.id, o.oldR, o.oldC = id, row.restaurant, row.client
		delete(w.rows, id)
		w.touch(o.oldR, t)
	}
	if o.inserts {
		o.newID, o.newR, o.newC = w.nextID, w.restaurant(), w.client()
		if o.deletes && w.rng.IntN(4) > 0 {
			o.newID = o.id
		} else {
			w.nextID += 1 + int64(w.rng.IntN(3))
			if again, ok := w.again(t); ok {
				o.newID = again
			}
		}
		if o.deletes && w.rng.IntN(3) == 0 {
			o.newR, o.sameR = o.oldR, true
		}
		if o.deletes && w.rng.IntN(3) == 0 {
			o.newC, o.sameC = o.oldC, true
		}
		w.rows[o.newID] = &worldRow{o.newR, o.newC, t}
		w.touch(o.newR, t)
	}
	if o.deletes && w.rows[o.id] == nil {
		w.freed = append(w.freed, freedID{o.id, t})
	}
	t.ops = append(t.ops, o)
}

// again sometimes gives an id that another row had, whose end t sees.
func (w *world) again(t *worldTxn) (int64, bool) {
	n := len(w.freed) - 1
	if n < 0 || w.rng.IntN(2) == 0 {
		return 0, false
	}
	f := w.freed[n]
	if w.rows[f.id] != nil || f.by != t && f.by.seen < 0 {
		return 0, false
	}
	w.freed = w.freed[:n]
	return f.id, true
}

// changeable finds a row that t may change: its last change is visible, or t's own.
func (w *world) changeable(t *worldTxn) (int64, *worldRow) {
	ids := slices.Sorted(maps.Keys(w.rows))
	for range min(5, len(ids)) {
		id := ids[w.rng.IntN(len(ids))]
		if row := w.rows[id]; row.by == t || row.by.seen >= 0 {
			return id, row
		}
	}
	return 0, nil
}

func (w *world) touch(r string, t *worldTxn) {
	if list := w.touches[r]; len(list) == 0 || list[len(list)-1] != t {
		w.touches[r] = append(list, t)
	}
}

// show makes some committed transaction visible to snapshots.
func (w *world) show() {
	w.mu.Lock()
	defer w.mu.Unlock()
	var hidden []*worldTxn
	for i := len(w.txns) - 1; i >= 0 && len(hidden) < len(w.txns)-w.visible; i-- {
		if w.txns[i].seen < 0 {
			hidden = append(hidden, w.txns[i])
		}
	}
	if len(hidden) > 0 {
		hidden[w.rng.IntN(len(hidden))].seen = w.visible
		w.visible++
	}
}

// snapshot is pg_current_snapshot(); w.mu is held.
func (w *world) snapshot() Snapshot {
	s := Snapshot{Xmax: w.nextXid, InProgress: slices.Clone(w.running)}
	for i, hidden := len(w.txns)-1, len(w.txns)-w.visible; hidden > 0; i-- {
		if w.txns[i].seen < 0 {
			s.InProgress = append(s.InProgress, w.txns[i].xid)
			hidden--
		}
	}
	slices.Sort(s.InProgress)
	s.Xmin = s.Xmax
	if len(s.InProgress) > 0 {
		s.Xmin = s.InProgress[0]
	}
	return s
}

// state is a restaurant's rows by client in the state of the table that holds the
// transactions for which in is true; w.mu is held.
func (w *world) state(r string, in func(*worldTxn) bool) map[string]int {
	out := maps.Clone(w.base[r])
	if out == nil {
		out = map[string]int{}
	}
	for _, t := range w.touches[r] {
		if in(t) {
			t.changes(out, r)
		}
	}
	maps.DeleteFunc(out, func(_ string, n int) bool { return n == 0 })
	return out
}

func (t *worldTxn) changes(rows map[string]int, r string) {
	if t.truncate {
		clear(rows)
	}
	for _, o := range t.ops {
		if o.deletes && o.oldR == r {
			rows[o.oldC]--
		}
		if o.inserts && o.newR == r {
			rows[o.newC]++
		}
	}
}

// fold makes one map of the transactions that every state holds from now on.
func (w *world) fold(upTo int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, low := range w.lows {
		upTo = min(upTo, low)
	}
	for i := len(w.txns) - 1; i >= 0 && i > len(w.txns)-30; i-- {
		if w.txns[i].seen < 0 {
			upTo = min(upTo, i)
		}
	}
	for r, list := range w.touches {
		if w.base[r] == nil {
			w.base[r] = map[string]int{}
		}
		for len(list) > 0 && list[0].index < upTo {
			list[0].changes(w.base[r], r)
			list = list[1:]
		}
		w.touches[r] = list
	}
}

// ReadRestaurant implements Source. The rows are those of the snapshot, but they arrive
// after any number of steps of the world.
func (w *world) ReadRestaurant(_ context.Context, restaurant string, add func([]byte) error) (Snapshot, error) {
	w.mu.Lock()
	w.wait(w.rng.IntN(3))
	w.reads++
	s := w.snapshot()
	var rows []string
	for c, n := range w.state(restaurant, func(t *worldTxn) bool { return t.seen >= 0 }) {
		for range n {
			rows = append(rows, c)
		}
	}
	w.wait(w.rng.IntN(6))
	w.mu.Unlock()
	var buf []byte
	for _, c := range rows {
		buf = append(buf[:0], c...)
		if err := add(buf); err != nil {
			return Snapshot{}, err
		}
	}
	return s, nil
}

// wait waits for a number of steps; w.mu is held.
func (w *world) wait(steps int) {
	for until := w.steps + steps; w.steps < until && !w.over; {
		w.moved.Wait()
	}
}
