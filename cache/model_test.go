package cache

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

// TestAnswersAreExact is the proof of the package: random interleavings of commits, their
// visibility, their application, reconnects, rebuilds, evictions and lookups, against a plain
// map. Every answer must be one state of the table, with everything that was applied before
// the lookup began.
func TestAnswersAreExact(t *testing.T) {
	t.Parallel()
	steps := 1500
	if testing.Short() {
		steps = 800
	}
	for _, keyed := range []bool{false, true} {
		for _, store := range []string{"evicting", "roomy", "hostile", "hostile again"} {
			t.Run(fmt.Sprintf("keyed=%t/%s", keyed, store), func(t *testing.T) {
				t.Parallel()
				runModel(t, keyed, store, steps)
			})
		}
	}
}

// hostile is worse than ristretto: it answers with any posting it was ever given for the
// key, also after Del and Clear, or with none.
type hostile struct {
	mu  sync.Mutex
	rng *rand.Rand
	all map[uint64][]*posting
}

func (h *hostile) Get(key uint64) (*posting, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	list := h.all[key]
	if len(list) == 0 || h.rng.IntN(4) == 0 {
		return nil, false
	}
	if h.rng.IntN(3) == 0 {
		return list[h.rng.IntN(len(list))], true
	}
	return list[len(list)-1], true
}

func (h *hostile) Set(key uint64, p *posting, _ int64) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	list := h.all[key]
	if len(list) > 3 {
		list = list[1:]
	}
	h.all[key] = append(list, p)
	return h.rng.IntN(2) == 0
}

func (*hostile) Del(uint64)           {}
func (*hostile) Wait()                {}
func (*hostile) Clear()               {}
func (*hostile) Close()               {}
func (*hostile) RemainingCost() int64 { return 0 }

// model drives an index and the world that it indexes.
type model struct {
	t        *testing.T
	w        *world
	x        *Index
	txn      *Txn
	keyed    bool
	next     int // transaction to be streamed next
	reported LSN
	roomy    bool // nothing is evicted: there may be no reading at all
	lookups  atomic.Int64

	compared, counted int64 // restaurants by audits, with and without their posting
}

// leastLookups are few: on a busy machine the readers may hardly run.
const leastLookups = 100

func runModel(t *testing.T, keyed bool, store string, steps int) {
	runAudited(t, keyed, store, steps, 0)
}

// runAudited goes on until so many restaurants were audited.
func runAudited(t *testing.T, keyed bool, store string, steps int, audited int64) {
	budget := int64(1 << 20)
	if store == "evicting" {
		budget = 1200 // about two postings
	}
	seed := uint64(len(store)) // a failure is repeated often enough by the same seed
	w := newWorld(seed)
	x, err := New(Config{Budget: budget}, w)
	if err != nil {
		t.Fatal(err)
	}
	defer x.Close()
	if strings.HasPrefix(store, "hostile") {
		x.shelf.close()
		x.shelf.closed, x.shelf.lru = false, &hostile{rng: rand.New(rand.NewPCG(seed, 2)), all: map[uint64][]*posting{}}
	}
	x.sweepAt = 1
	if store == "hostile again" {
		x.changes.most = 4 // the rest of a transaction goes through a file
	}
	m := &model{t: t, w: w, x: x, txn: x.NewTxn(), keyed: keyed, roomy: store == "roomy"}
	for range 30 {
		w.commit()
		w.show()
	}
	m.rebuild()
	var readers sync.WaitGroup
	for i := range 4 {
		readers.Go(func() { m.reader(i, rand.New(rand.NewPCG(seed, uint64(100+i)))) })
	}
	var audits *auditing
	if audited > 0 {
		audits = &auditing{model: m}
		defer audits.end()
	}
	dice := rand.New(rand.NewPCG(seed, 3))
	for step := 0; step < steps || (m.lookups.Load() < leastLookups || min(m.compared, m.counted) < audited) && step < 20*steps; step++ {
		if t.Failed() {
			break
		}
		m.act(dice.IntN(1000))
		if audits != nil && dice.IntN(2) == 0 {
			audits.step()
		}
		w.step()
		runtime.Gosched()
	}
	for !t.Failed() && (m.next < len(w.txns) || w.visible < len(w.txns)) {
		w.show()
		m.stream()
	}
	w.finish()
	if t.Failed() {
		x.Close() // nobody shall wait for what does not come any more
	}
	readers.Wait()
	if !t.Failed() {
		m.checkEnd()
	}
}

func (m *model) act(dice int) {
	switch {
	case dice < 280:
		m.w.commit()
	case dice < 560:
		m.w.show()
	case dice < 950: // oftener than commits: else the stream lags, and all it brings is visible
		m.stream()
	case dice < 985:
		m.settle()
	case dice < 995: // reconnect: the server sends again what was not confirmed
		m.next = m.confirmed()
	default:
		m.rebuild()
	}
}

// stream gives the next committed transaction to the index.
func (m *model) stream() {
	if m.next == len(m.w.txns) {
		return
	}
	t := m.w.txns[m.next]
	if err := stage(m.txn, t, m.keyed); err != nil {
		m.t.Errorf("stage transaction %d: %v", t.xid, err)
	}
	m.w.mu.Lock()
	m.w.begun = max(m.w.begun, m.next+1)
	m.w.mu.Unlock()
	if err := m.x.Apply(m.txn, Commit{Xid: t.xid, End: t.end}); err != nil {
		m.t.Errorf("apply: %v", err)
	}
	m.next++
	m.w.mu.Lock()
	m.w.applied = max(m.w.applied, m.next)
	m.w.mu.Unlock()
}

func stage(to *Txn, t *worldTxn, keyed bool) error {
	if t.truncate {
		if err := to.Truncate(); err != nil {
			return err
		}
	}
	for _, o := range t.ops {
		if err := stageOp(to, o, keyed); err != nil {
			return err
		}
	}
	return nil
}

func stageOp(to *Txn, o worldOp, keyed bool) error {
	if !keyed || !o.deletes || !o.inserts {
		if o.deletes && keyed {
			return to.DeleteID(o.id)
		}
		if o.deletes {
			if err := to.Delete(0, []byte(o.oldR), []byte(o.oldC)); err != nil {
				return err
			}
		}
		if o.inserts {
			return to.Insert(o.newID, []byte(o.newR), []byte(o.newC))
		}
		return nil
	}
	r, c := []byte(o.newR), []byte(o.newC)
	if o.sameR {
		r = nil
	}
	if o.sameC {
		c = nil
	}
	if o.newID != o.id {
		return to.MoveID(o.id, o.newID, r, c)
	}
	return to.UpdateID(o.id, r, c)
}

func (m *model) settle() {
	m.w.mu.Lock()
	s := m.w.snapshot()
	m.w.mu.Unlock()
	var applied LSN
	if m.next > 0 {
		applied = m.w.txns[m.next-1].end
	}
	m.reported = max(m.reported, min(applied, m.x.Settle(s)))
	m.w.fold(m.confirmed())
}

// confirmed is the first transaction that the server sends after a reconnect.
func (m *model) confirmed() int { return min(m.next, int(m.reported/100)) }

// rebuild loads the index anew, while the world goes on, and streams what was not confirmed.
func (m *model) rebuild() {
	m.next = m.confirmed()
	m.w.mu.Lock()
	m.w.rebuilds++
	// begun stays: until BeginLoad a lookup may still be answered from the old content.
	m.w.applied, m.w.restart = m.next, m.next
	s := m.w.snapshot()
	rows := map[int64][2]string{}
	for _, t := range m.w.txns {
		if t.seen < 0 {
			if t.index < m.next {
				m.t.Errorf("transaction %d was confirmed before a snapshot saw it", t.xid)
			}
			continue
		}
		if t.truncate {
			clear(rows)
		}
		for _, o := range t.ops {
			if o.deletes {
				delete(rows, o.id)
			}
			if o.inserts {
				rows[o.newID] = [2]string{o.newR, o.newC}
			}
		}
	}
	m.w.mu.Unlock()
	l := m.x.BeginLoad(m.keyed)
	var parts sync.WaitGroup
	ids := slices.Collect(maps.Keys(rows))
	for part := range slices.Chunk(ids, len(ids)/2+1) {
		parts.Go(func() {
			for _, id := range part {
				if err := l.Add(id, []byte(rows[id][0]), []byte(rows[id][1])); err != nil {
					m.t.Errorf("load: %v", err)
				}
			}
		})
	}
	for range 6 {
		m.w.commit()
		m.w.show()
		m.w.step()
	}
	parts.Wait()
	if err := l.Finish(s); err != nil {
		m.t.Errorf("finish the load: %v", err)
	}
}

// reader looks up restaurants until the world ends, and keeps some answers for a while.
func (m *model) reader(me int, rng *rand.Rand) {
	type kept struct {
		r    *Recipients
		want []string
	}
	var held []kept
	for over := false; !over; {
		r, got := m.lookup(me, fmt.Sprintf("r%d", rng.IntN(restaurants+1)))
		held = append(held, kept{r, got})
		if len(held) > rng.IntN(40) {
			for _, k := range held {
				if now := collect(k.r); !slices.Equal(now, k.want) {
					m.t.Errorf("recipients changed after they were handed out:\n was %q\n now %q", k.want, now)
				}
				k.r.Release()
			}
			held = held[:0]
		}
		m.w.mu.Lock()
		m.w.wait(rng.IntN(3))
		over = m.w.over || m.t.Failed()
		m.w.mu.Unlock()
	}
	for _, k := range held {
		k.r.Release()
	}
}

// lookup checks one answer.
func (m *model) lookup(me int, restaurant string) (*Recipients, []string) {
	w := m.w
	w.mu.Lock()
	low, rebuilds := w.applied, w.rebuilds
	w.lows[me] = min(low, w.restart)
	w.mu.Unlock()
	r, err := m.x.Lookup(context.Background(), restaurant)
	if err != nil {
		if !m.t.Failed() {
			m.t.Errorf("lookup: %v", err)
		}
		return &Recipients{clients: &view{}}, nil
	}
	m.lookups.Add(1)
	got := collect(r)
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.lows, me)
	if w.rebuilds != rebuilds {
		low = min(low, w.restart)
	}
	if !w.explains(restaurant, got, low) {
		var want []string
		for c := range w.state(restaurant, func(t *worldTxn) bool { return t.index < w.begun }) {
			want = append(want, c)
		}
		slices.Sort(want)
		m.t.Errorf("restaurant %s, %d to %d transactions applied, %d visible: no state of the table has\n      %q\n now %q",
			restaurant, low, w.begun, w.visible, got, want)
	}
	return r, got
}

// explains reports whether a state of the table has exactly these clients: a state is what
// was applied (at least low transactions) and what some snapshot saw. w.mu is held.
func (w *world) explains(restaurant string, got []string, low int) bool {
	applied, visible := []int{low}, []int{0}
	for _, t := range w.touches[restaurant] {
		if t.index < low {
			continue
		}
		if t.index < w.begun {
			applied = append(applied, t.index+1)
		}
		if t.seen >= 0 {
			visible = append(visible, t.seen+1)
		}
	}
	for _, k := range applied {
		for _, v := range visible {
			state := w.state(restaurant, func(t *worldTxn) bool { return t.index < k || 0 <= t.seen && t.seen < v })
			if slices.Equal(got, slices.Sorted(maps.Keys(state))) {
				return true
			}
		}
	}
	return false
}

// checkEnd compares everything, now that nothing moves.
func (m *model) checkEnd() {
	rows, peopled := 0, 0
	for i := range restaurants + 1 {
		name := fmt.Sprintf("r%d", i)
		want := m.w.state(name, func(*worldTxn) bool { return true })
		r, got := m.lookup(0, name)
		r.Release()
		if !slices.Equal(got, slices.Sorted(maps.Keys(want))) {
			m.t.Errorf("at the end %s has %q, want %q", name, got, slices.Sorted(maps.Keys(want)))
		}
		if len(want) > 0 {
			peopled++
		}
		for _, n := range want {
			rows += n
		}
	}
	s := m.x.Stats()
	if s.Subscriptions != int64(rows) || s.Restaurants != int64(peopled) {
		m.t.Errorf("stats: %d rows of %d restaurants, want %d of %d", s.Subscriptions, s.Restaurants, rows, peopled)
	}
	if m.lookups.Load() < leastLookups || m.w.reads < 20 && !m.roomy {
		m.t.Errorf("%d lookups with %d readings prove little", m.lookups.Load(), m.w.reads)
	}
	m.t.Logf("%d transactions, %d rebuilds, %d lookups, %d readings, %d clients in the dictionary of %d ever, %d and %d restaurants audited with and without posting",
		len(m.w.txns), m.w.rebuilds, m.lookups.Load(), m.w.reads, s.Clients, m.w.churn+32, m.compared, m.counted)
}

// collect returns the clients, sorted; a client that comes twice comes twice.
func collect(r *Recipients) []string {
	var out []string
	for c := range r.Range(0, r.Len()) {
		out = append(out, string(c))
	}
	slices.Sort(out)
	return out
}
