package cache

import (
	"hash/maphash"
	"slices"
	"sync"
	"sync/atomic"
)

// dictionary gives texts dense numbers and counts the rows that refer to each. It is safe
// for concurrent use: sharded by hash, so that parallel loaders seldom meet. A number is
// local<<shardBits | shard.
//
// A text without rows keeps its number until the sweep (reclaim.go) has made sure that
// nobody can hold it.
type dictionary struct {
	seed   maphash.Seed
	pins   *pins
	shards [shardCount]shard
	live   atomic.Int64 // texts
	idle   atomic.Int64 // texts on the shards' idle lists: without rows, or lately so
	size   atomic.Int64 // bytes
	// longest is the length of the longest text ever interned, in bytes; it only grows.
	longest atomic.Uint32
}

const (
	shardBits  = 6 // 64 shards: two goroutines of a load meet in 1 of 64 additions
	shardCount = 1 << shardBits
	chunkBits  = 8
	chunkLen   = 1 << chunkBits // 6 KiB: small installations stay small
	maxLocal   = 1 << (31 - shardBits)
	// A slot is local number + 1 and, above, bits of the hash that tell most texts apart
	// without a look at them, which are two cache misses.
	slotBits = 32 - shardBits
	slotMask = 1<<slotBits - 1
)

func slotOf(h uint64, local uint32) uint32 { return uint32(h>>(64-shardBits))<<slotBits | (local + 1) }
func localOf(slot uint32) uint32           { return slot&slotMask - 1 }

type shard struct {
	mu    sync.Mutex
	table []uint32 // open addressing, linear probing; slots, 0 is empty
	used  int      // slots taken
	next  uint32   // first local number never given out
	free  []uint32 // local numbers to give out again
	idle  []uint32 // local numbers whose listed bit is set
	// chunks is replaced, never changed, when it grows: numbers are read without the lock.
	chunks atomic.Pointer[[]*chunk]
	_      [16]byte // a cache line of its own (two, of 64 bytes each)
}

// chunk holds the texts of consecutive local numbers. The bytes of a number are written
// before the number is first given to anybody and after nobody can hold it any more.
type chunk struct {
	long  atomic.Pointer[[chunkLen]string] // first: the collector reads up to the last pointer
	items [chunkLen]item
}

// item is what there is of a number, in one place: each place is a miss of the cache, and of the translation of
// its address.
type item struct {
	short [16]byte
	state uint32 // see the bits below; under the shard's lock
	kind  uint8
}

// The state of a number: with rows, their count; without, the epoch of the last moment when
// somebody may have taken it up.
const (
	stateIdle   = 1 << 31 // no rows: the low bits are an epoch
	stateListed = 1 << 30 // on the shard's idle list
	stateValue  = stateListed - 1
)

func newDictionary(p *pins) *dictionary {
	d := &dictionary{seed: maphash.MakeSeed(), pins: p}
	for i := range d.shards {
		d.shards[i].chunks.Store(&[]*chunk{})
	}
	return d
}

// intern returns the number of b and adds rows to its count. The caller holds a pin, unless
// rows > 0. The only error is ErrFull.
func (d *dictionary) intern(b []byte, rows uint32) (uint32, error) {
	var t text
	t.pack(b)
	return d.internText(&t, rows)
}

func (d *dictionary) internText(t *text, rows uint32) (uint32, error) {
	h := d.hash(t)
	s := &d.shards[h%shardCount]
	s.mu.Lock()
	defer s.mu.Unlock()
	local, ok := s.find(h, t)
	if !ok {
		var err error
		if local, err = d.add(s, h, t, rows); err != nil {
			return 0, err
		}
	} else {
		d.takeUp(s, local, rows)
	}
	return local<<shardBits | uint32(h%shardCount), nil
}

// takeUp adds rows to the count of a number, or notes that somebody may hold it from now on;
// its shard is locked.
func (d *dictionary) takeUp(s *shard, local uint32, rows uint32) {
	if rows > 0 {
		d.count(s, local, int64(rows))
	} else if st := s.state(local); *st&stateIdle != 0 {
		*st = *st&^stateValue | d.pins.now()&stateValue
	}
}

func (d *dictionary) lengthen(n uint32) {
	for {
		was := d.longest.Load()
		if n <= was || d.longest.CompareAndSwap(was, n) {
			return
		}
	}
}

// find returns the number of b if it has one.
func (d *dictionary) find(b []byte) (uint32, bool) {
	var t text
	t.pack(b)
	h := d.hash(&t)
	s := &d.shards[h%shardCount]
	s.mu.Lock()
	defer s.mu.Unlock()
	local, ok := s.find(h, &t)
	return local<<shardBits | uint32(h%shardCount), ok
}

// refer changes the count of rows of a number. It reports whether the count stays possible.
func (d *dictionary) refer(n uint32, by int64) bool {
	s := &d.shards[n%shardCount]
	s.mu.Lock()
	defer s.mu.Unlock()
	return d.count(s, n>>shardBits, by)
}

// appendText appends the text of a number that the caller holds by a pin.
func (d *dictionary) appendText(to []byte, n uint32) []byte {
	t := d.stored(n)
	return t.appendTo(to)
}

// stored is the text of a number that the caller holds by a pin.
func (d *dictionary) stored(n uint32) (t stored) {
	local := n >> shardBits
	c := (*d.shards[n%shardCount].chunks.Load())[local>>chunkBits]
	i := local % chunkLen
	t.short = c.items[i].short
	if t.kind = c.items[i].kind; t.kind == kindLong {
		t.long = c.long.Load()[i]
	}
	return t
}

// forget makes every count zero: the table was truncated.
func (d *dictionary) forget() {
	for i := range d.shards {
		s := &d.shards[i]
		s.mu.Lock()
		for local := range s.next {
			if st := *s.state(local); s.kind(local) != kindFree && st&stateIdle == 0 {
				d.count(s, local, -int64(st&stateValue))
			}
		}
		s.mu.Unlock()
	}
}

func (d *dictionary) len() int64   { return d.live.Load() }
func (d *dictionary) bytes() int64 { return d.size.Load() }

func (d *dictionary) hash(t *text) uint64 {
	if t.kind == kindLong {
		return maphash.Bytes(d.seed, t.long)
	}
	return maphash.Bytes(d.seed, t.short[:])
}

// count changes a number's rows; its shard is locked.
func (d *dictionary) count(s *shard, local uint32, by int64) bool {
	st := s.state(local)
	rows := int64(0)
	if *st&stateIdle == 0 {
		rows = int64(*st & stateValue)
	}
	rows += by
	if rows < 0 || rows > stateValue {
		return false
	}
	listed := *st & stateListed
	if rows > 0 {
		*st = listed | uint32(rows)
		return true
	}
	if listed == 0 {
		if len(s.idle) == cap(s.idle) { // twice as many: in steps of a quarter it would leave four times as much behind
			s.idle = slices.Grow(s.idle, max(16, len(s.idle)))
		}
		s.idle = append(s.idle, local)
		d.idle.Add(1)
	}
	*st = stateIdle | stateListed | d.pins.now()&stateValue
	return true
}

// add gives a new text with so many rows a number; its shard is locked.
func (d *dictionary) add(s *shard, h uint64, t *text, rows uint32) (uint32, error) {
	if 4*(s.used+1) > 3*len(s.table) { // three quarters: linear probing degrades above
		d.grow(s)
	}
	var local uint32
	if n := len(s.free); n > 0 {
		local, s.free = s.free[n-1], s.free[:n-1]
	} else {
		if s.next >= maxLocal {
			return 0, ErrFull
		}
		local = s.next
		s.next++
		d.reach(s, local)
	}
	c, i := s.chunk(local), local%chunkLen
	c.items[i].short = t.short
	c.items[i].kind = t.kind
	if t.kind == kindLong {
		if c.long.Load() == nil {
			c.long.Store(new([chunkLen]string))
			d.size.Add(chunkLen * 16)
		}
		c.long.Load()[i] = string(t.long)
		d.size.Add(int64(len(t.long)))
	}
	c.items[i].state = 0
	d.count(s, local, int64(rows))
	d.lengthen(t.len())
	s.place(h, local)
	s.used++
	d.live.Add(1)
	return local, nil
}

// remove takes a text out; its shard is locked, and nobody holds the number.
func (d *dictionary) remove(s *shard, local uint32) {
	h := d.hashOf(s, local)
	mask := uint64(len(s.table) - 1)
	at := h >> shardBits & mask
	for s.table[at]&slotMask != local+1 {
		at = (at + 1) & mask
	}
	// Backward shift (Knuth, TAOCP 6.4, algorithm R): no tombstones.
	for next := (at + 1) & mask; s.table[next] != 0; next = (next + 1) & mask {
		home := d.hashOf(s, localOf(s.table[next])) >> shardBits & mask
		if (next-home)&mask >= (next-at)&mask {
			s.table[at], at = s.table[next], next
		}
	}
	s.table[at] = 0
	c, i := s.chunk(local), local%chunkLen
	if c.items[i].kind == kindLong {
		d.size.Add(-int64(len(c.long.Load()[i])))
		c.long.Load()[i] = ""
	}
	c.items[i].kind, c.items[i].state = kindFree, 0
	s.free = append(s.free, local)
	s.used--
	d.live.Add(-1)
}

// hashOf is the hash of a text that has a number; its shard is locked.
func (d *dictionary) hashOf(s *shard, local uint32) uint64 {
	c, i := s.chunk(local), local%chunkLen
	if c.items[i].kind == kindLong {
		return maphash.String(d.seed, c.long.Load()[i])
	}
	return maphash.Bytes(d.seed, c.items[i].short[:])
}

func (d *dictionary) grow(s *shard) {
	old := s.table
	s.table = make([]uint32, max(16, 2*len(old)))
	d.size.Add(int64(4 * (len(s.table) - len(old))))
	for _, slot := range old {
		if slot != 0 {
			s.place(d.hashOf(s, localOf(slot)), localOf(slot))
		}
	}
}

// reach makes sure that the chunk of a new local number exists.
func (d *dictionary) reach(s *shard, local uint32) {
	chunks := *s.chunks.Load()
	if int(local>>chunkBits) < len(chunks) {
		return
	}
	longer := append(slices.Clone(chunks), new(chunk))
	s.chunks.Store(&longer)
	d.size.Add(chunkLen*24 + 16)
}

func (s *shard) find(h uint64, t *text) (uint32, bool) {
	if len(s.table) == 0 {
		return 0, false
	}
	mask := uint64(len(s.table) - 1)
	tag := slotOf(h, 0) &^ slotMask
	for at := h >> shardBits & mask; s.table[at] != 0; at = (at + 1) & mask {
		if s.table[at]&^slotMask != tag {
			continue
		}
		if local := localOf(s.table[at]); s.holds(local, t) {
			return local, true
		}
	}
	return 0, false
}

// holds reports whether a number is that of a text.
func (s *shard) holds(local uint32, t *text) bool {
	c, i := s.chunk(local), local%chunkLen
	return c.items[i].kind == t.kind && c.items[i].short == t.short && (t.kind != kindLong || c.long.Load()[i] == string(t.long))
}

// place puts a number into the first empty slot of its probe sequence.
func (s *shard) place(h uint64, local uint32) {
	mask := uint64(len(s.table) - 1)
	at := h >> shardBits & mask
	for s.table[at] != 0 {
		at = (at + 1) & mask
	}
	s.table[at] = slotOf(h, local)
}

func (s *shard) chunk(local uint32) *chunk  { return (*s.chunks.Load())[local>>chunkBits] }
func (s *shard) state(local uint32) *uint32 { return &s.chunk(local).items[local%chunkLen].state }
func (s *shard) kind(local uint32) uint8    { return s.chunk(local).items[local%chunkLen].kind }
