package stream

import (
	"encoding/binary"
	"io"
)

// copySource reads a batch as Postgres' binary COPY (src/backend/commands/copyfromparse.c),
// a few rows at a time: memory does not grow with the batch. It fills what it is given: each
// Read becomes a message, and a write.
type copySource struct {
	triggers []*trigger
	next     int // recipient of triggers[0]
	// head and tail are the encoded columns before and behind the client id.
	head, tail []byte
	buf        []byte
	read       int // of buf
	ended      bool
}

const (
	// copyStep and copyBytes bound the rows encoded at a time, by their number and size.
	copyStep  = 256
	copyBytes = 64 << 10
	// copyHeader is the signature, the flags, and the length of the header's extension.
	copyHeader  = "PGCOPY\n\xff\r\n\x00" + "\x00\x00\x00\x00" + "\x00\x00\x00\x00"
	copyTrailer = 0xffff
)

func newCopySource(b *batch) *copySource {
	s := &copySource{triggers: b.triggers}
	s.buf = append(s.buf, copyHeader...)
	return s
}

func (s *copySource) Read(p []byte) (int, error) {
	for len(s.buf)-s.read < len(p) && !s.ended {
		s.fill()
	}
	n := copy(p, s.buf[s.read:])
	if s.read += n; n == 0 && s.read == len(s.buf) {
		return 0, io.EOF
	}
	return n, nil
}

// fill encodes a few rows more.
func (s *copySource) fill() {
	if s.read > 0 {
		s.buf, s.read = append(s.buf[:0], s.buf[s.read:]...), 0
	}
	for len(s.triggers) > 0 && s.next >= s.triggers[0].deliveries() {
		s.triggers, s.next = s.triggers[1:], 0
	}
	if len(s.triggers) == 0 {
		s.buf = binary.BigEndian.AppendUint16(s.buf, copyTrailer)
		s.ended = true
		return
	}
	t := s.triggers[0]
	if s.next == 0 {
		s.encode(t)
	}
	for client := range t.recipients.Range(s.next, min(s.next+copyStep, t.deliveries())) {
		s.buf = append(s.buf, s.head...)
		s.buf = appendField(s.buf, client)
		s.buf = append(s.buf, s.tail...)
		s.next++
		if len(s.buf) >= copyBytes {
			break
		}
	}
}

func (s *copySource) encode(t *trigger) {
	const columns = 11
	c := &t.campaign
	s.head = binary.BigEndian.AppendUint16(s.head[:0], columns)
	for _, text := range []string{c.RestaurantID, c.ID, c.Content, c.Owner, c.OwnerContact} {
		s.head = appendField(s.head, text)
	}
	for _, n := range []int64{c.Start, c.End, c.Created} {
		s.head = appendInt8(s.head, n)
	}
	s.tail = appendInt8(s.tail[:0], t.now)
	s.tail = appendField(s.tail, "")
}

func appendLength(dst []byte, n int) []byte { return binary.BigEndian.AppendUint32(dst, uint32(n)) }

func appendNull(dst []byte) []byte { return binary.BigEndian.AppendUint32(dst, 0xffffffff) }

func appendInt8(dst []byte, n int64) []byte {
	return binary.BigEndian.AppendUint64(appendLength(dst, 8), uint64(n))
}

func appendField[T ~[]byte | ~string](dst []byte, value T) []byte {
	return append(appendLength(dst, len(value)), value...)
}
