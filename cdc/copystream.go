package cdc

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"example.com/tiffin/internal/pulse"
)

// copyStream lies between a connection and pgx and gives pgx never more than one message of
// the server, so that the rows of a COPY, and the changes of the log, can be read past it: where
// they lie, in one large buffer, which takes half of the processor's time a row. One goroutine
// uses it.
type copyStream struct {
	from io.Reader
	buf  []byte
	rest []byte // of buf, not given to anybody yet
	left int    // bytes of the message that pgx has begun to read
	came int    // bytes of the last read
	// patient says before each read how long it may take; nil for as long as it takes.
	patient func() error
}

const (
	messageHead = 5       // kind and length
	plainBuffer = 8 << 10 // what pgx would take
	// copyBuffer is read at a time: the server sends 8 KiB at a time, of which several wait
	// when both ends are busy. It stays in a core's own cache.
	copyBuffer = 128 << 10
	// keptBuffer bounds what stays of a buffer that grew for a large message.
	keptBuffer = 1 << 20
)

// streamKey is where a connection's stream is in its CustomData.
const streamKey = "tiffin.copyStream"

// Read implements io.Reader for pgx.
func (s *copyStream) Read(p []byte) (int, error) {
	if s.left == 0 {
		_, size, err := s.head()
		if err != nil {
			return 0, err
		}
		s.left = size
	}
	if len(s.rest) == 0 {
		if err := s.fill(1); err != nil {
			return 0, err
		}
	}
	n := copy(p, s.rest[:min(len(s.rest), s.left)])
	s.rest, s.left = s.rest[n:], s.left-n
	return n, nil
}

// head looks at the beginning of the next message; size is all of it.
func (s *copyStream) head() (kind byte, size int, err error) {
	if len(s.rest) < messageHead {
		if err := s.fill(messageHead); err != nil {
			return 0, 0, err
		}
	}
	length := int(int32(binary.BigEndian.Uint32(s.rest[1:]))) // counts itself
	if length < messageHead-1 {
		return 0, 0, fmt.Errorf("message %q of the server: length %d", s.rest[0], length)
	}
	return s.rest[0], 1 + length, nil
}

// data returns the content of the next message if it is a CopyData, valid until the next
// call. False leaves another kind of message to pgx.
func (s *copyStream) data() ([]byte, bool, error) {
	kind, size, err := s.head()
	if err != nil || kind != 'd' {
		return nil, false, err
	}
	if len(s.rest) < size {
		if err := s.fill(size); err != nil {
			return nil, false, err
		}
	}
	content := s.rest[messageHead:size]
	s.rest = s.rest[size:]
	return content, true, nil
}

// fill reads until so many bytes are there.
func (s *copyStream) fill(least int) error {
	buf := s.buf
	if room := max(least, plainBuffer); len(buf) < room {
		buf = make([]byte, room)
	} else if small := max(room, copyBuffer); len(buf) > keptBuffer && small <= keptBuffer && len(s.rest) <= small {
		buf = make([]byte, small) // that of a large message, which is through
	}
	n := copy(buf, s.rest)
	s.buf = buf
	for n < least {
		more, err := s.receive(s.buf[n:])
		n += more
		if err != nil && n < least {
			s.rest = s.buf[:n]
			return err
		}
	}
	s.rest = s.buf[:n]
	return nil
}

// enlarge makes the buffer one for a COPY.
func (s *copyStream) enlarge() {
	if len(s.buf) < copyBuffer {
		larger := make([]byte, copyBuffer)
		s.rest = larger[:copy(larger, s.rest)]
		s.buf = larger
	}
}

// build is the BuildFrontend of a connection's settings.
func (s *copyStream) build(r io.Reader, w io.Writer) *pgproto3.Frontend {
	*s = copyStream{from: r} // a connection may be tried at several addresses: the last counts
	return pgproto3.NewFrontend(s, w)
}

func streamOf(conn *pgconn.PgConn) (*copyStream, error) {
	s, ok := conn.CustomData()[streamKey].(*copyStream)
	if !ok {
		return nil, errors.New("not a connection that this package opened")
	}
	return s, nil
}

// stallLimit is how long a COPY may send nothing: it waits for a lock, or the network is
// stalled. Then the load is tried again.
const stallLimit = time.Minute

var errStalled = fmt.Errorf("no data for %s", stallLimit)

// copyOut runs a COPY … TO STDOUT. After an error the connection is of no use any more.
func copyOut(ctx context.Context, conn *pgconn.PgConn, sql string, to rowTaker, alive *pulse.Pulse) error {
	s, err := streamOf(conn)
	if err != nil {
		return err
	}
	raw := conn.Conn()
	stop := context.AfterFunc(ctx, func() { _ = raw.SetDeadline(time.Unix(1, 0)) }) // of a closed connection: then nobody reads
	defer stop()
	s.patient = func() error {
		alive.Beat()
		err := raw.SetReadDeadline(time.Now().Add(stallLimit))
		return errors.Join(err, ctx.Err()) // it may have ended just before
	}
	defer func() { s.patient = nil }()
	err = s.copyOut(conn.Frontend(), sql, to)
	switch {
	case err == nil:
		return raw.SetReadDeadline(time.Time{})
	case ctx.Err() != nil:
		return ctx.Err()
	case timedOut(err):
		return errStalled
	default:
		return err
	}
}

func (s *copyStream) copyOut(frontend *pgproto3.Frontend, sql string, to rowTaker) error {
	frontend.Send(&pgproto3.Query{String: sql})
	if err := frontend.Flush(); err != nil {
		return err
	}
	for copying := false; ; {
		if copying {
			if err := s.rows(to); err != nil {
				return err
			}
		}
		msg, err := frontend.Receive() // also a notice between two rows
		if err != nil {
			return err
		}
		switch msg := msg.(type) {
		case *pgproto3.CopyOutResponse:
			copying = true
			s.enlarge()
		case *pgproto3.ErrorResponse:
			return pgconn.ErrorResponseToPgError(msg)
		case *pgproto3.ReadyForQuery:
			return nil
		}
	}
}

// rows takes the messages up to the first that is not of the COPY. What is in the buffer is given away with it,
// so that a row is not moved.
func (s *copyStream) rows(to rowTaker) error {
	whole := 0 // bytes of s.rest
	for {
		if to.wants() {
			whole += rowMessages(s.rest[whole:])
		}
		switch more := cap(s.rest) - len(s.rest); {
		case more >= plainBuffer && s.incomplete(whole):
			if err := s.read(more); err != nil {
				return err
			}
		case whole > 0:
			next, err := to.buffer()
			if err != nil {
				return err
			}
			tail := s.rest[whole:]
			if len(next) < len(tail) { // of a long row
				next = make([]byte, len(tail)+plainBuffer)
			}
			block := rowBlock{s.rest[:whole], s.buf}
			s.rest, s.buf, whole = next[:copy(next, tail)], next, 0
			if err := to.block(block); err != nil {
				return err
			}
		default:
			content, ok, err := s.data()
			if err != nil || !ok {
				return err
			}
			if err := to.content(content); err != nil {
				return err
			}
		}
	}
}

// incomplete says that what is in the buffer from a place on is the beginning of a message of the COPY, as far
// as can be told.
func (s *copyStream) incomplete(from int) bool {
	b := s.rest[from:]
	return len(b) < messageHead || b[0] == 'd' && len(b)-1 < int(int32(binary.BigEndian.Uint32(b[1:])))
}

// read appends what comes.
func (s *copyStream) read(most int) error {
	end := len(s.rest)
	n, err := s.receive(s.rest[end : end+most])
	s.rest = s.rest[:end+n]
	if n > 0 {
		return nil // the next read tells
	}
	return err
}

// receive reads once, with patience.
func (s *copyStream) receive(into []byte) (int, error) {
	if s.patient != nil {
		if err := s.patient(); err != nil {
			return 0, err
		}
	}
	n, err := s.from.Read(into)
	s.came = n
	return n, err
}
