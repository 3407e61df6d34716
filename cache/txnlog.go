package cache

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
)

// txnLog is the staged changes of one transaction, encoded in chunks: about 8 bytes a
// change, no pointers, never copied to grow. Chunks are plain bytes in order: past a bound
// they lie in a file.
type txnLog struct {
	most    int // chunksMax; a test lowers it
	chunks  [][]byte
	spare   [][]byte // emptied chunks: of what was spilled, or for the next transaction
	n       int
	lastID  int64  // ids are differences: neighbours in a bulk change
	given   record // what each gives, one after the other: 5 M of them would be 240 MB of garbage
	file    spill
	spilled []int // sizes of the chunks in the file, in order; they come before chunks
	failed  error // of spilling: what follows stays in memory
}

// record is one staged change. A number of 0 says unchanged, or not given; others are one
// more than the dictionary's.
type record struct {
	op         op
	id, newID  int64
	restaurant uint64
	client     uint64
}

// pair is the row's after the change; old is the one before.
func (r *record) pair(old pair) pair {
	if r.restaurant != 0 {
		old.restaurant = uint32(r.restaurant - 1)
	}
	if r.client != 0 {
		old.client = uint32(r.client - 1)
	}
	return old
}

type op uint8

const (
	opInsert   op = iota // id, restaurant, client
	opDelete             // restaurant, client
	opDeleteID           // id
	opMoveID             // id, newID, restaurant, client
)

const (
	chunkBytes = 64 << 10
	recordMax  = 1 + 4*binary.MaxVarintLen64
	// spareMax chunks are what a large transaction leaves behind: 1 MiB.
	spareMax = 16
	// chunksMax chunks stay in memory: 4 MiB, half a million changes.
	chunksMax = 64
)

// errLog cannot happen: the log reads what it wrote.
var errLog = errors.New("transaction log is damaged")

func (l *txnLog) append(r *record) {
	last := len(l.chunks) - 1
	if last < 0 || cap(l.chunks[last])-len(l.chunks[last]) < recordMax {
		if len(l.chunks) >= l.most && l.failed == nil {
			l.spill()
		}
		l.chunks = append(l.chunks, l.fresh())
		last = len(l.chunks) - 1
	}
	b := append(l.chunks[last], byte(r.op))
	switch r.op {
	case opInsert:
		b = binary.AppendVarint(b, r.id-l.lastID)
		b = binary.AppendUvarint(b, r.restaurant)
		b = binary.AppendUvarint(b, r.client)
	case opDelete:
		b = binary.AppendUvarint(b, r.restaurant)
		b = binary.AppendUvarint(b, r.client)
	case opDeleteID:
		b = binary.AppendVarint(b, r.id-l.lastID)
	case opMoveID:
		b = binary.AppendVarint(b, r.id-l.lastID)
		b = binary.AppendVarint(b, r.newID-r.id)
		b = binary.AppendUvarint(b, r.restaurant)
		b = binary.AppendUvarint(b, r.client)
	}
	if r.op != opDelete {
		l.lastID = r.id
	}
	l.chunks[last] = b
	l.n++
}

// spill moves the chunks to the file. Those that cannot be written stay in memory, and so
// does what follows: nothing is lost but the bound.
func (l *txnLog) spill() {
	for len(l.chunks) > 0 {
		c := l.chunks[0]
		if l.failed = l.file.append(c); l.failed != nil {
			return
		}
		l.spilled = append(l.spilled, len(c))
		l.chunks = l.chunks[1:]
		l.spare = append(l.spare, c[:0]) // all are filled again at once: as garbage they would add up
	}
	l.chunks = nil
}

// each calls do for every record in order, until do returns an error. do must not keep the
// record.
func (l *txnLog) each(do func(*record) error) error {
	var lastID, at int64
	var buf []byte
	for _, size := range l.spilled {
		buf = slices.Grow(buf[:0], size)[:size]
		if err := l.file.read(buf, at); err != nil {
			return fmt.Errorf("%w: %w", err, ErrInconsistent) // the id map has moved on already
		}
		at += int64(size)
		if err := l.eachIn(buf, &lastID, do); err != nil {
			return err
		}
	}
	for _, chunk := range l.chunks {
		if err := l.eachIn(chunk, &lastID, do); err != nil {
			return err
		}
	}
	return nil
}

func (l *txnLog) eachIn(chunk []byte, lastID *int64, do func(*record) error) error {
	r := &l.given
	for len(chunk) > 0 {
		var size int
		if *r, size = decode(chunk, *lastID); size <= 0 {
			return errLog
		}
		if r.op != opDelete {
			*lastID = r.id
		}
		if err := do(r); err != nil {
			return err
		}
		chunk = chunk[size:]
	}
	return nil
}

// decode reads one record and its size, which is 0 when there is none.
func decode(b []byte, lastID int64) (record, int) {
	r := record{op: op(b[0])}
	at, ok := 1, true
	signed := func() int64 {
		v, n := binary.Varint(b[at:])
		at, ok = at+n, ok && n > 0
		return v
	}
	unsigned := func() uint64 {
		v, n := binary.Uvarint(b[at:])
		at, ok = at+n, ok && n > 0
		return v
	}
	if r.op != opDelete {
		r.id = lastID + signed()
	}
	if r.op == opMoveID && ok {
		r.newID = r.id + signed()
	}
	if r.op != opDeleteID && ok {
		r.restaurant = unsigned()
	}
	if r.op != opDeleteID && ok {
		r.client = unsigned()
	}
	if !ok {
		return record{}, 0
	}
	return r, at
}

func (l *txnLog) reset() {
	for _, c := range l.chunks {
		if len(l.spare) < spareMax {
			l.spare = append(l.spare, c[:0])
		}
	}
	if len(l.spare) > spareMax {
		l.spare = append([][]byte(nil), l.spare[:spareMax]...)
	}
	clear(l.chunks)
	l.chunks, l.n, l.lastID = l.chunks[:0], 0, 0
	l.spilled, l.failed = l.spilled[:0], nil
	l.file.close()
	if cap(l.chunks) > 4*spareMax {
		l.chunks = nil
	}
}

func (l *txnLog) fresh() []byte {
	if n := len(l.spare); n > 0 {
		c := l.spare[n-1]
		l.spare = l.spare[:n-1]
		return c
	}
	return make([]byte, 0, chunkBytes)
}
