package cache

import (
	"errors"
	"fmt"
	"slices"
	"testing"
)

// TestAuditNeverNamesWhatIsRight is the model test with an audit going on all the time.
func TestAuditNeverNamesWhatIsRight(t *testing.T) {
	t.Parallel()
	for _, store := range []string{"evicting", "hostile", "hostile again"} {
		t.Run(store, func(t *testing.T) {
			t.Parallel()
			runAudited(t, store != "hostile", store, 1000, 40)
		})
	}
}

// auditing makes one audit after the other, a step at a time between those of the world. It
// must never find a difference.
type auditing struct {
	*model
	audit  *Audit
	only   string
	number int
	table  map[string]map[string]int // what the snapshot shows
	until  int                       // transactions to be applied before the next step
	added  bool
	more   bool
}

func (a *auditing) step() {
	switch {
	case a.audit == nil:
		a.begin()
	case a.w.applied < a.until: // only this goroutine changes it
		a.stream() // after a reconnect there is much to come again
	case a.table == nil:
		a.cover()
	case !a.added:
		a.add()
	case !a.more:
		if a.more = a.audit.Next(); !a.more {
			a.end()
			return
		}
		a.until = len(a.w.txns)
	default:
		a.compare()
	}
}

func (a *auditing) begin() {
	a.number++
	if a.only = ""; a.number%3 > 0 {
		a.only = fmt.Sprintf("r%d", a.number%restaurants)
	}
	var err error
	if a.audit, err = a.x.BeginAudit(a.only); err != nil {
		a.t.Errorf("begin audit: %v", err)
	}
}

func (a *auditing) cover() {
	a.w.mu.Lock()
	defer a.w.mu.Unlock()
	if !a.audit.Covers(a.w.snapshot()) {
		return
	}
	a.until, a.table = a.w.lastVisible(), map[string]map[string]int{}
	for r := range restaurants {
		name := fmt.Sprintf("r%d", r)
		a.table[name] = a.w.state(name, func(t *worldTxn) bool { return t.seen >= 0 })
	}
}

func (a *auditing) add() {
	a.added = true
	for name, clients := range a.table {
		for c, n := range clients {
			for range n {
				known, err := a.audit.Add([]byte(name), []byte(c))
				if err != nil || !known && a.x.serving.Load() == a.audit.st {
					a.t.Errorf("audit: %s is known: %t, %v", name, known, err)
				}
			}
		}
	}
}

func (a *auditing) compare() {
	a.more = false
	resident, counted, err := a.audit.Compare(func(d Doubt) error {
		a.t.Errorf("audit of %q: false difference %+v", a.only, d)
		return nil
	})
	if err != nil {
		a.end() // a rebuild began
		return
	}
	a.compared += resident
	a.counted += counted
}

func (a *auditing) end() {
	if a.audit != nil {
		a.audit.End()
	}
	*a = auditing{model: a.model, number: a.number}
}

// lastVisible is the number of transactions that must be applied for the index to hold all
// that is visible; w.mu is held.
func (w *world) lastVisible() int {
	for i, t := range slices.Backward(w.txns) {
		if t.seen >= 0 {
			return i + 1
		}
	}
	return 0
}

// still audits an index in which nothing moves.
func still(t *testing.T, x *Index, only string, table ...[2]string) []Doubt {
	t.Helper()
	a, err := x.BeginAudit(only)
	if err != nil {
		t.Fatal(err)
	}
	defer a.End()
	if !a.Covers(Snapshot{Xmin: 100, Xmax: 100}) {
		t.Fatal("the snapshot sees all, and does not cover the index")
	}
	for _, row := range table {
		if _, err := a.Add([]byte(row[0]), []byte(row[1])); err != nil {
			t.Fatal(err)
		}
	}
	var doubts []Doubt
	for a.Next() {
		if _, _, err := a.Compare(func(d Doubt) error { doubts = append(doubts, d); return nil }); err != nil {
			t.Fatal(err)
		}
	}
	return doubts
}

// Whatever an index may have wrong, an audit sees it, and that of one restaurant names it.
func TestAuditSeesWhatIsWrong(t *testing.T) {
	t.Parallel()
	table := [][2]string{{"r", "a"}, {"r", "a"}, {"r", "b"}, {"s", "c"}}
	for name, c := range map[string]struct {
		spoil func(*Index, *entry, *posting)
		want  Doubt
	}{
		"nothing":          {func(*Index, *entry, *posting) {}, Doubt{}},
		"a row too few":    {func(_ *Index, e *entry, _ *posting) { e.rows-- }, Doubt{Restaurant: "r", Index: 2, Table: 3}},
		"a duplicate lost": {func(_ *Index, _ *entry, p *posting) { clear(p.extra) }, Doubt{"r", 3, 3, []ClientDoubt{{"a", 1, 2}}}},
		"a client lost": {func(x *Index, _ *entry, p *posting) {
			n, _ := x.cur.Load().clients.find([]byte("b"))
			p.remove(n)
		}, Doubt{"r", 3, 3, []ClientDoubt{{"b", 0, 1}}}},
		"a client too many": {func(x *Index, e *entry, p *posting) {
			n, _ := x.cur.Load().clients.find([]byte("c"))
			p.add(n)
			e.rows++
		}, Doubt{"r", 4, 3, []ClientDoubt{{"c", 1, 0}}}},
		"one for another": {func(x *Index, _ *entry, p *posting) {
			b, _ := x.cur.Load().clients.find([]byte("b"))
			n, _ := x.cur.Load().clients.find([]byte("c"))
			p.remove(b)
			p.add(n)
		}, Doubt{"r", 3, 3, []ClientDoubt{{"b", 0, 1}, {"c", 1, 0}}}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			x := newIndex(t, 1<<20, ahead(""))
			load(t, x, false, table...)
			n, _ := x.cur.Load().restaurants.find([]byte("r"))
			p := x.shelf.find(n)
			if p == nil {
				t.Fatal("no posting in memory")
			}
			c.spoil(x, x.cur.Load().dir.entry(n), p)
			for only, want := range map[string]Doubt{"": {c.want.Restaurant, c.want.Index, c.want.Table, nil}, "r": c.want, "s": {}} {
				got := still(t, x, only, table...)
				for _, d := range got {
					slices.SortFunc(d.Clients, func(one, other ClientDoubt) int { return int(one.Client[0]) - int(other.Client[0]) })
				}
				if want.Restaurant == "" && len(got) == 0 {
					continue
				}
				if len(got) != 1 || fmt.Sprint(got[0]) != fmt.Sprint(want) {
					t.Errorf("audit of %q: %+v, want %+v", only, got, want)
				}
			}
		})
	}
}

// Restaurants that only the index, or only the table, has are differences, too.
func TestAuditSeesRestaurantsOfOneSide(t *testing.T) {
	t.Parallel()
	x := newIndex(t, 1<<20, ahead(""))
	load(t, x, true, [2]string{"r", "a"}, [2]string{"only here", "a"})
	a, err := x.BeginAudit("")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := x.BeginAudit(""); !errors.Is(err, ErrAuditing) {
		t.Errorf("a second audit at the same time: %v", err)
	}
	if known, _ := a.Add([]byte("only there"), []byte("a")); known {
		t.Error("the index knows a restaurant that it has not")
	}
	a.End()
	if got := still(t, x, "", [2]string{"r", "a"}); len(got) != 1 || got[0].Restaurant != "only here" || got[0].Index != 1 || got[0].Table != 0 {
		t.Errorf("differences %+v", got)
	}
	gone := map[string]bool{}
	for range 3 { // the one under way has ended
		for _, d := range still(t, x, "", [2]string{"r", "a"}, [2]string{"r", "b"}) {
			gone[d.Restaurant] = true
		}
	}
	if len(gone) != 2 {
		t.Errorf("differences in %v", gone)
	}
	x.BeginLoad(true)
	if _, err := x.BeginAudit(""); !errors.Is(err, ErrNotLoaded) {
		t.Errorf("an audit of an index that loads: %v", err)
	}
}

// TestAuditForgetsWhatWasTruncated: what the snapshot shows counts no more once a TRUNCATE was
// applied that it does not see, and nor does what was applied before the TRUNCATE.
func TestAuditForgetsWhatWasTruncated(t *testing.T) {
	t.Parallel()
	x := newIndex(t, 1<<20, ahead(""))
	load(t, x, false, [2]string{"r", "a"}, [2]string{"s", "a"})
	a := beginAudit(t, x)
	txn := x.NewTxn()
	if err := errors.Join(
		txn.Insert(0, []byte("r"), []byte("b")), x.Apply(txn, Commit{Xid: 20, End: 100}),
		txn.Truncate(), txn.Insert(0, []byte("r"), []byte("c")), x.Apply(txn, Commit{Xid: 21, End: 200}),
	); err != nil {
		t.Fatal(err)
	}
	for _, restaurant := range []string{"r", "s"} {
		if _, err := a.Add([]byte(restaurant), []byte("a")); err != nil {
			t.Fatal(err)
		}
	}
	judged := int64(0)
	for a.Next() {
		resident, counted, err := a.Compare(func(d Doubt) error { t.Errorf("false difference %+v", d); return nil })
		if err != nil {
			t.Fatal(err)
		}
		judged += resident + counted
	}
	if judged < 2 {
		t.Errorf("%d restaurants were compared, want both", judged)
	}
}

// beginAudit begins an audit of all restaurants by the snapshot of load.
func beginAudit(t *testing.T, x *Index) *Audit {
	t.Helper()
	a, err := x.BeginAudit("")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(a.End)
	if !a.Covers(Snapshot{Xmin: 10, Xmax: 10}) {
		t.Fatal("the load's snapshot does not cover the index")
	}
	return a
}

// TestAuditKnowsAPostingThatIsAhead: a posting that was read from the source has what the stream brings only
// after the audit has looked at it.
func TestAuditKnowsAPostingThatIsAhead(t *testing.T) {
	t.Parallel()
	x := newIndex(t, 1<<20, &table{rows: map[string][]string{"r": {"a", "b"}}, snap: Snapshot{Xmin: 30, Xmax: 30}})
	load(t, x, false, [2]string{"r", "a"})
	x.cur.Load().dir.entry(mustFind(t, x.cur.Load().restaurants, "r")).gen++ // its posting was lost
	if got := lookup(t, x, "r"); len(got) != 2 {
		t.Fatalf("clients of r: %q", got)
	}
	a := beginAudit(t, x)
	if _, err := a.Add([]byte("r"), []byte("a")); err != nil {
		t.Fatal(err)
	}
	judged := int64(0)
	for a.Next() {
		txn := x.NewTxn()
		if err := errors.Join(txn.Insert(0, []byte("r"), []byte("b")), x.Apply(txn, Commit{Xid: 20, End: 100})); err != nil {
			t.Fatal(err)
		}
		resident, _, err := a.Compare(func(d Doubt) error { t.Errorf("false difference %+v", d); return nil })
		if err != nil {
			t.Fatal(err)
		}
		judged += resident
	}
	if judged != 1 {
		t.Errorf("%d postings were compared, want that of r", judged)
	}
}

// TestAuditKeepsItsClientsNumbers: a client that only the table has is named at the end by his
// own name, whoever else got a number meanwhile. Nothing is held after the audit.
func TestAuditKeepsItsClientsNumbers(t *testing.T) {
	t.Parallel()
	x := newIndex(t, 1<<20, ahead(""))
	x.sweepAt = 1
	load(t, x, false, [2]string{"r", "old"}, [2]string{"elsewhere", "x"})
	a, err := x.BeginAudit("r")
	if err != nil {
		t.Fatal(err)
	}
	defer a.End()
	if !a.Covers(Snapshot{Xmin: 10, Xmax: 10}) {
		t.Fatal("the load's snapshot does not cover the index")
	}
	for _, client := range []string{"old", "missing"} {
		if _, err := a.Add([]byte("r"), []byte(client)); err != nil {
			t.Fatal(err)
		}
	}
	elsewhere(t, x, manyMore)
	var doubts []Doubt
	for a.Next() {
		if _, _, err := a.Compare(func(d Doubt) error { doubts = append(doubts, d); return nil }); err != nil {
			t.Fatal(err)
		}
	}
	if want := (Doubt{"r", 1, 2, []ClientDoubt{{"missing", 0, 1}}}); len(doubts) != 1 || fmt.Sprint(doubts[0]) != fmt.Sprint(want) {
		t.Errorf("differences %+v, want %+v", doubts, want)
	}
	if a.End(); len(x.cur.Load().pins.active) > 0 {
		t.Error("numbers are still held after the audit")
	}
}
