package cache

import "slices"

// texts are texts on their way into a dictionary, many at once, and then their numbers. A
// lookup by itself is three reads from all over the memory, each of which waits for the one
// before: 0.2 µs. Taken in steps, all texts together, the processor has many reads under way
// at a time. By shard, a lock is taken once.
type texts struct {
	list    []text
	long    []byte // what the long ones alias
	numbers []uint32
	// ends are where the shards' texts end in order.
	ends  [shardCount]uint32
	order []uint32 // places in list, by shard

	hashes []uint64
	near   []uint32 // by place: what the first step read, and the second found
	// touched is so that the reads of the third step are not left out.
	touched uint32
}

// add takes a text; b may be reused afterwards.
func (t *texts) add(b []byte) {
	t.list = append(t.list, text{})
	last := &t.list[len(t.list)-1]
	last.pack(b)
	if last.kind == kindLong {
		from := len(t.long)
		t.long = append(t.long, b...)
		last.long = t.long[from:len(t.long):len(t.long)]
	}
}

// longMax bytes of long texts are enough to be looked up, and their room is kept.
const longMax = 1 << 20

// heavy says that the texts should wait no longer.
func (t *texts) heavy() bool { return len(t.long) >= longMax }

func (t *texts) reset() {
	if len(t.long) > 0 {
		clear(t.list) // which would hold what is let go of
	}
	if t.list, t.long = t.list[:0], t.long[:0]; cap(t.long) > 2*longMax {
		t.long = nil
	}
}

// shard returns the places of the texts of a shard, once internAll has run.
func (t *texts) shard(i int) []uint32 {
	from := uint32(0)
	if i > 0 {
		from = t.ends[i-1]
	}
	return t.order[from:t.ends[i]]
}

// sort groups the texts by shard.
func (t *texts) sort(d *dictionary) {
	n := len(t.list)
	t.numbers = slices.Grow(t.numbers[:0], n)[:n]
	t.order = slices.Grow(t.order[:0], n)[:n]
	t.hashes = slices.Grow(t.hashes[:0], n)[:n]
	t.near = slices.Grow(t.near[:0], n)[:n]
	t.ends = [shardCount]uint32{}
	for i := range t.list {
		h := d.hash(&t.list[i])
		t.hashes[i] = h
		t.ends[h%shardCount]++
	}
	sum := uint32(0)
	for i, count := range t.ends {
		t.ends[i], sum = sum, sum+count
	}
	for i, h := range t.hashes {
		at := &t.ends[h%shardCount]
		t.order[*at] = uint32(i)
		*at++
	}
}

// internAll is intern of every text of t.
func (d *dictionary) internAll(t *texts, rows uint32) error {
	t.sort(d)
	for i := range d.shards {
		if places := t.shard(i); len(places) > 0 {
			if err := d.internShard(&d.shards[i], t, places, rows); err != nil {
				return err
			}
		}
	}
	return nil
}

// fewTexts are not worth sorting.
const fewTexts = 24

// internFew is internAll without rows, for any number of texts; there are no shards after it.
func (d *dictionary) internFew(t *texts) error {
	if len(t.list) > fewTexts {
		return d.internAll(t, 0)
	}
	t.numbers = t.numbers[:0]
	for i := range t.list {
		n, err := d.internText(&t.list[i], 0)
		if err != nil {
			return err
		}
		t.numbers = append(t.numbers, n)
	}
	return nil
}

func (d *dictionary) internShard(s *shard, t *texts, places []uint32, rows uint32) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.approach(t, places)
	for _, at := range places {
		text, h := &t.list[at], t.hashes[at]
		local, ok := t.near[at]-1, t.near[at] != 0
		if !ok || !s.holds(local, text) {
			local, ok = s.find(h, text) // new since the step before, or not the first of its slots
		}
		var err error
		if !ok {
			local, err = d.add(s, h, text, rows)
		} else {
			d.takeUp(s, local, rows)
		}
		if err != nil {
			return err
		}
		t.numbers[at] = local<<shardBits | uint32(h%shardCount)
	}
	return nil
}

// approach finds for each text the first slot that may be its, and leaves local number + 1,
// or 0.
func (s *shard) approach(t *texts, places []uint32) {
	if len(s.table) == 0 {
		for _, at := range places {
			t.near[at] = 0
		}
		return
	}
	mask := uint64(len(s.table) - 1)
	for _, at := range places {
		t.near[at] = s.table[t.hashes[at]>>shardBits&mask]
	}
	for _, at := range places {
		h := t.hashes[at]
		tag := slotOf(h, 0) &^ slotMask
		slot := t.near[at]
		for i := h>>shardBits + 1; slot != 0 && slot&^slotMask != tag; i++ {
			slot = s.table[i&mask]
		}
		t.near[at] = slot & slotMask
	}
	// What the text is compared with and its state are three cache lines: all under way before the first is
	// needed.
	chunks := *s.chunks.Load()
	for _, at := range places {
		if slot := t.near[at]; slot != 0 {
			c, i := chunks[localOf(slot)>>chunkBits], localOf(slot)%chunkLen
			t.touched += c.items[i].state + uint32(c.items[i].short[0])
		}
	}
}

// referAll counts the clients of at most pendingMax changes, a row each, and reports whether
// all counts stay possible. A shard's lock is taken once.
func (d *dictionary) referAll(changes []uint64) bool {
	if len(changes) <= fewTexts {
		for _, ch := range changes {
			if n, _ := client(ch); !d.refer(n, 1-2*int64(ch&1)) {
				return false
			}
		}
		return true
	}
	var ends [shardCount]uint32
	for _, ch := range changes {
		ends[ch>>1%shardCount]++
	}
	sum := uint32(0)
	for i, count := range ends {
		ends[i], sum = sum, sum+count
	}
	var sorted [pendingMax]uint32 // client<<1 | removal, in order within a shard
	for _, ch := range changes {
		at := &ends[ch>>1%shardCount]
		sorted[*at] = uint32(ch)
		*at++
	}
	from := uint32(0)
	for i, end := range ends {
		if from < end && !d.referShard(&d.shards[i], sorted[from:end]) {
			return false
		}
		from = end
	}
	return true
}

func (d *dictionary) referShard(s *shard, clients []uint32) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range clients {
		if !d.count(s, c>>1>>shardBits, 1-2*int64(c&1)) {
			return false
		}
	}
	return true
}
