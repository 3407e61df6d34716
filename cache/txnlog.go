package cache

import (
	"encoding/binary"
	"errors"
)

// txnLog is the staged changes of one transaction, encoded in chunks: about 8 bytes a
// change, no pointers, never copied to grow. Chunks are plain bytes in order, so that they
// could as well lie in a file.
type txnLog struct {
	chunks [][]byte
	spare  [][]byte // emptied chunks for the next transaction
	n      int
	lastID int64 // ids are differences: neighbours in a bulk change
}

// record is one staged change. A number of 0 says unchanged, or not given; others are one
// more than the dictionary's.
type record struct {
	op         op
	id, newID  int64
	restaurant uint64
	client     uint64
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
	// spareMax bounds what a large transaction leaves behind: 1 MiB.
	spareMax = 16
)

// errLog cannot happen: the log reads what it wrote.
var errLog = errors.New("transaction log is damaged")

func (l *txnLog) append(r record) {
	last := len(l.chunks) - 1
	if last < 0 || cap(l.chunks[last])-len(l.chunks[last]) < recordMax {
		l.chunks = append(l.chunks, l.fresh())
		last++
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

// each calls do for every record in order, until do returns an error.
func (l *txnLog) each(do func(record) error) error {
	var lastID int64
	for _, chunk := range l.chunks {
		for len(chunk) > 0 {
			r, size := decode(chunk, lastID)
			if size <= 0 {
				return errLog
			}
			if r.op != opDelete {
				lastID = r.id
			}
			if err := do(r); err != nil {
				return err
			}
			chunk = chunk[size:]
		}
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
	clear(l.chunks)
	l.chunks, l.n, l.lastID = l.chunks[:0], 0, 0
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
