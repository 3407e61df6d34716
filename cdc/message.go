package cdc

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"
)

// The messages of pgoutput, protocol version 1 (PostgreSQL manual, "Logical Replication
// Message Formats"). Decoding is total: any bytes give a message or an error, and no more
// memory is taken than the bytes have. Values alias the bytes.

var errTruncated = errors.New("message ends early")

// begin starts a transaction.
type begin struct {
	final uint64 // where its commit record starts
	at    time.Time
	xid   uint32
}

// commit ends one.
type commit struct {
	end uint64 // end of the commit record
	at  time.Time
}

// field is one value of a tuple.
type field struct {
	kind byte // n: null, u: unchanged TOAST, t: text
	text []byte
}

// change is an Insert, Update or Delete.
type change struct {
	relation uint32
	oldKind  byte // K: key columns, O: whole row, 0: no old tuple
	old, new []field
}

// cursor reads big-endian numbers and remembers that it fell off the end.
type cursor struct {
	rest  []byte
	short bool
}

func (c *cursor) take(n int) []byte {
	if n < 0 || n > len(c.rest) {
		c.short, c.rest = true, nil
		return nil
	}
	head := c.rest[:n:n]
	c.rest = c.rest[n:]
	return head
}

func (c *cursor) uint8() byte {
	if b := c.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (c *cursor) uint16() uint16 {
	if b := c.take(2); b != nil {
		return binary.BigEndian.Uint16(b)
	}
	return 0
}

func (c *cursor) uint32() uint32 {
	if b := c.take(4); b != nil {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

func (c *cursor) uint64() uint64 {
	if b := c.take(8); b != nil {
		return binary.BigEndian.Uint64(b)
	}
	return 0
}

// text reads bytes up to a NUL.
func (c *cursor) text() string {
	for i, b := range c.rest {
		if b == 0 {
			s := string(c.rest[:i])
			c.rest = c.rest[i+1:]
			return s
		}
	}
	c.short, c.rest = true, nil
	return ""
}

// time reads microseconds since 2000-01-01 UTC.
func (c *cursor) time() time.Time {
	const epoch = 946684800 // 2000-01-01 in Unix seconds
	micros := int64(c.uint64())
	return time.Unix(epoch+micros/1e6, micros%1e6*1e3)
}

func (c *cursor) end(what string) error {
	if c.short {
		return fmt.Errorf("decode %s: %w", what, errTruncated)
	}
	return nil
}

func decodeBegin(body []byte) (begin, error) {
	c := cursor{rest: body}
	b := begin{final: c.uint64(), at: c.time(), xid: c.uint32()}
	return b, c.end("Begin")
}

func decodeCommit(body []byte) (commit, error) {
	c := cursor{rest: body}
	c.uint8()  // flags, unused
	c.uint64() // where the commit record starts
	m := commit{end: c.uint64(), at: c.time()}
	return m, c.end("Commit")
}

func decodeRelation(body []byte) (relation, error) {
	c := cursor{rest: body}
	rel := relation{oid: c.uint32(), name: tableName{schema: c.text(), name: c.text()}, identity: c.uint8()}
	n := int(c.uint16())
	for range n {
		if c.short {
			break
		}
		col := column{key: c.uint8()&1 != 0, name: c.text(), typ: c.uint32()}
		c.uint32() // type modifier
		rel.columns = append(rel.columns, col)
	}
	return rel, c.end("Relation")
}

// decodeTruncate returns the relations emptied.
func decodeTruncate(body []byte) ([]uint32, error) {
	c := cursor{rest: body}
	n := int(c.uint32())
	c.uint8() // CASCADE, RESTART IDENTITY: the relations are all named
	var oids []uint32
	for range n {
		if c.short {
			break
		}
		oids = append(oids, c.uint32())
	}
	return oids, c.end("Truncate")
}

// decodeChange reads an Insert, Update or Delete into m, whose slices are used again.
func decodeChange(op byte, body []byte, m *change) error {
	c := cursor{rest: body}
	m.relation, m.oldKind, m.old, m.new = c.uint32(), 0, m.old[:0], m.new[:0]
	for len(c.rest) > 0 && !c.short {
		switch kind := c.uint8(); kind {
		case 'K', 'O':
			m.oldKind = kind
			m.old = c.tuple(m.old[:0])
		case 'N':
			m.new = c.tuple(m.new[:0])
		default:
			return fmt.Errorf("decode change %c: unknown tuple kind %#x", op, kind)
		}
	}
	if c.short || (op != 'D') != (len(m.new) > 0) || (op == 'D') != (m.oldKind != 0 && op != 'U') {
		return fmt.Errorf("decode change %c: %w", op, errTruncated)
	}
	return nil
}

func (c *cursor) tuple(to []field) []field {
	n := int(c.uint16())
	for range n {
		f := field{kind: c.uint8()}
		switch f.kind {
		case 'n', 'u':
		case 't', 'b':
			f.text = c.take(int(int32(c.uint32())))
		default:
			c.short = true
		}
		if c.short {
			return to
		}
		to = append(to, f)
	}
	return to
}
