package cache

import (
	"errors"
	"hash/maphash"
	"maps"
	"sync"
)

// Audit compares the index with one snapshot of the table while both go on changing, and
// holds neither of them back. What the index must hold of a restaurant is what the snapshot
// shows of it, and what was applied and the snapshot does not see: asked by xid, as
// everywhere. Both are sums: the number of rows and, for the clients' texts, two sums of
// 64-bit hashes that are seeded anew for each audit, so that no two tables look alike twice. So an audit takes some 100
// bytes a restaurant, whatever happens meanwhile. An audit of one restaurant keeps the clients
// themselves and can name what differs.
//
// In this order: BeginAudit; Covers, with a snapshot taken since; wait until the index has
// applied all that the snapshot sees; Add every row; then, until Next says false: Next, wait
// until all that was committed before Next is applied, Compare. At last, and in any case, End.
// All of it is for one goroutine; the index may be used by anybody meanwhile. Clients'
// numbers are not reclaimed before End.
type Audit struct {
	index  *Index
	st     *state
	pin    uint32
	only   string // the one restaurant whose clients are kept; empty for all
	number uint32 // its number
	before []applied
	seeds  [2]maphash.Seed
	table  []tally // what the snapshot shows, by restaurant
	row    []byte  // a text of Has

	mu       sync.Mutex // below the entries' locks
	next     uint32     // first restaurant not captured yet
	at       *Snapshot  // nil before Covers
	early    []early    // what was applied before the snapshot was known
	accounts map[uint32]account
	captures map[uint32]*capture
	text     []byte
}

// tally is a multiset of clients: a sum of it, and itself where clients is not nil.
type tally struct {
	rows, first, second uint64 // modulo 2^64
	clients             map[uint32]int64
}

// account is what was applied to a restaurant and the snapshot does not see.
type account struct {
	tally
	emptied bool // by a TRUNCATE: what the table showed counts no more
}

// early is a transaction's change of one restaurant.
type early struct {
	xid        uint64
	restaurant uint32
	account
}

// capture is a restaurant as the index had it at one moment.
type capture struct {
	rows    uint32
	want    account
	posting *tally    // nil when it is not in memory
	seen    *Snapshot // the posting's
	// ahead is want and, besides, what the posting has had since it was filled although the
	// stream brought it only after the capture.
	ahead account
}

// Doubt is a restaurant of which index and table differ.
type Doubt struct {
	Restaurant string
	// Index and Table are the numbers of rows.
	Index, Table int64
	// Clients are those of whom the posting in memory has another number of rows than the
	// table: named by an audit of one restaurant only.
	Clients []ClientDoubt
}

// ClientDoubt is a client of whom index and table have different numbers of rows.
type ClientDoubt struct {
	Client       string
	Index, Table int64
}

// ErrAuditing says that an audit is under way already: there is one at a time.
var ErrAuditing = errors.New("another audit of the index is under way")

// BeginAudit begins an audit of all restaurants or, unless only is empty, of that one.
// Errors: ErrNotLoaded, ErrAuditing. Safe for concurrent use.
func (x *Index) BeginAudit(only string) (*Audit, error) {
	st := x.serving.Load()
	if st == nil {
		return nil, ErrNotLoaded
	}
	a := &Audit{
		index: x, st: st, pin: st.pins.enter(), only: only,
		seeds:    [2]maphash.Seed{maphash.MakeSeed(), maphash.MakeSeed()},
		accounts: map[uint32]account{}, captures: map[uint32]*capture{},
	}
	if only != "" {
		var err error
		if a.number, err = st.restaurants.intern([]byte(only), 0); err != nil {
			st.pins.leave(a.pin)
			return nil, err
		}
	}
	if !x.audit.CompareAndSwap(nil, a) {
		st.pins.leave(a.pin)
		return nil, ErrAuditing
	}
	// Only now: what was applied to a restaurant before it was listened to is on this list,
	// or visible already.
	a.before = x.unsettled.list()
	return a, nil
}

// End ends the audit.
func (a *Audit) End() {
	if a.index.audit.CompareAndSwap(a, nil) {
		a.st.pins.leave(a.pin)
	}
}

// Covers takes the snapshot that the rows will be read in. It reports whether the snapshot
// sees all that was applied before the audit began; if not, take a later one.
func (a *Audit) Covers(s Snapshot) bool {
	if !allSeen(a.before, s) {
		return false
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.at = &s
	for _, e := range a.early {
		if !s.Sees(e.xid) {
			sum := a.accounts[e.restaurant]
			sum.plus(e.account)
			a.accounts[e.restaurant] = sum
		}
	}
	a.early = nil
	return true
}

// Add takes a row that the snapshot shows. It reports whether the index knows the restaurant:
// if not, the row is missing there. The bytes may be reused.
func (a *Audit) Add(restaurant, client []byte) (known bool, err error) {
	n, known := a.st.restaurants.find(restaurant)
	if !known {
		return false, nil
	}
	var number uint32
	if a.only != "" {
		if number, err = a.st.clients.intern(client, 0); err != nil {
			return true, err
		}
	}
	for uint32(len(a.table)) <= n {
		a.table = append(a.table, tally{})
	}
	a.count(&a.table[n], client, number, 1)
	return true, nil
}

// listening returns the audit of this content, if one is under way.
func (x *Index) listening(st *state) *Audit {
	if a := x.audit.Load(); a != nil && a.st == st {
		return a
	}
	return nil
}

// note is called by the writer, the restaurant's entry being locked.
func (a *Audit) note(n uint32, xid uint64, truncate bool, changes []uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	captured := a.captures[n]
	switch {
	case a.only != "" && n != a.number,
		captured == nil && a.at != nil && (a.at.Sees(xid) || n < a.next),
		captured != nil && (captured.seen == nil || !captured.seen.Sees(xid)):
		return
	}
	change := account{emptied: truncate}
	for _, ch := range changes {
		c, removes := client(ch)
		by := int64(1)
		if removes {
			by = -1
		}
		a.text = a.st.clients.appendText(a.text[:0], c)
		a.count(&change.tally, a.text, c, by)
	}
	switch {
	case captured != nil:
		captured.ahead.plus(change)
	case a.at == nil:
		a.early = append(a.early, early{xid, n, change})
	default:
		sum := a.accounts[n]
		sum.plus(change)
		a.accounts[n] = sum
	}
}

// captureMost restaurants are compared at a time.
const captureMost = 1024

// Next looks at the next restaurants; false when none is left.
func (a *Audit) Next() bool {
	end := a.st.dir.len()
	if a.only != "" {
		end = a.number + 1
		a.skip(a.number)
	}
	more := false
	for taken := 0; a.next < end && taken < captureMost; {
		more = true
		if a.capture(a.next) {
			taken++
		}
	}
	return more
}

func (a *Audit) skip(to uint32) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.next = max(a.next, to)
}

// capture takes restaurant n, the next one, and reports whether there is anything to compare.
func (a *Audit) capture(n uint32) bool {
	e := a.st.dir.entry(n)
	e.mu.Lock()
	c := &capture{rows: e.rows}
	var v *view
	var extra map[uint32]uint32
	if e.rows == 0 {
		v = &view{} // is what a lookup answers, whatever the shelf has
	} else if p := a.index.shelf.find(n); p != nil && p.gen == e.gen {
		v, extra, c.seen = p.view(), maps.Clone(p.extra), p.seen
	}
	a.mu.Lock()
	c.want = a.accounts[n]
	c.ahead.plus(c.want)
	delete(a.accounts, n)
	some := c.rows > 0 || c.want.some() || int(n) < len(a.table) && a.table[n].some()
	if some {
		a.captures[n] = c
	}
	a.next = n + 1
	a.mu.Unlock()
	e.mu.Unlock()
	if v != nil && some {
		c.posting = a.weigh(v, extra)
	}
	return some
}

// weigh counts a posting.
func (a *Audit) weigh(v *view, extra map[uint32]uint32) *tally {
	t := &tally{}
	var text []byte
	for c := range v.between(0, v.len()) {
		text = a.st.clients.appendText(text[:0], c)
		a.count(t, text, c, 1+int64(extra[c]))
	}
	return t
}

// Compare calls differs for every restaurant of the last Next of which index and table
// differ, and returns of how many the clients were compared and of how many, whose posting is
// not in memory, the number of rows. It fails with ErrNotLoaded when the index was loaded
// anew since the audit began: what was found until then was found of the old one.
func (a *Audit) Compare(differs func(Doubt) error) (resident, counted int64, err error) {
	a.mu.Lock()
	captures := a.captures
	a.captures = map[uint32]*capture{}
	a.mu.Unlock()
	if a.index.serving.Load() != a.st {
		return 0, 0, ErrNotLoaded
	}
	for n, c := range captures {
		counted++
		table := tally{}
		if int(n) < len(a.table) {
			table = a.table[n]
		}
		want := c.want.on(table)
		d := Doubt{Index: int64(c.rows), Table: int64(want.rows)}
		differ := d.Index != d.Table
		if c.posting != nil {
			resident, counted = resident+1, counted-1
			ahead := c.ahead.on(table)
			differ = differ || !c.posting.equals(&ahead)
			d.Clients = a.unlike(c.posting, &ahead)
		}
		if !differ {
			continue
		}
		d.Restaurant = string(a.st.restaurants.appendText(nil, n))
		if err := differs(d); err != nil {
			return resident, counted, err
		}
	}
	return resident, counted, nil
}

// unlike names the clients of whom two tallies have different numbers.
func (a *Audit) unlike(index, table *tally) []ClientDoubt {
	var out []ClientDoubt
	all := maps.Clone(index.clients)
	if all == nil {
		all = map[uint32]int64{}
	}
	maps.Copy(all, table.clients)
	for c := range all {
		if has, want := index.clients[c], table.clients[c]; has != want {
			out = append(out, ClientDoubt{string(a.st.clients.appendText(nil, c)), has, want})
		}
	}
	return out
}

// count adds rows of a client.
func (a *Audit) count(t *tally, client []byte, number uint32, by int64) {
	times := uint64(by)
	t.rows += times
	t.first += times * maphash.Bytes(a.seeds[0], client)
	t.second += times * maphash.Bytes(a.seeds[1], client)
	if a.only == "" {
		return
	}
	if t.clients == nil {
		t.clients = map[uint32]int64{}
	}
	t.clients[number] += by
}

func (t *tally) plus(other tally) {
	t.rows, t.first, t.second = t.rows+other.rows, t.first+other.first, t.second+other.second
	if len(other.clients) > 0 && t.clients == nil {
		t.clients = map[uint32]int64{}
	}
	for c, by := range other.clients {
		t.clients[c] += by
	}
}

func (t *tally) equals(other *tally) bool {
	return t.rows == other.rows && t.first == other.first && t.second == other.second
}

func (t *tally) some() bool { return t.rows != 0 || t.first != 0 || t.second != 0 }

func (c *account) some() bool { return c.emptied || c.tally.some() }

// plus adds what was applied later.
func (c *account) plus(later account) {
	if later.emptied {
		*c = account{emptied: true}
	}
	c.tally.plus(later.tally)
}

// on returns what becomes of the rows that the snapshot shows.
func (c *account) on(table tally) tally {
	var sum tally
	if !c.emptied {
		sum.plus(table)
	}
	sum.plus(c.tally)
	return sum
}
