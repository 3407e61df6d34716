package stream

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"
)

// textArray builds a text[] parameter in Postgres' binary form (array_send in
// src/backend/utils/adt/arrayfuncs.c) without a copy per element.
type textArray struct {
	buf []byte
	n   int
}

func (a *textArray) reset() {
	a.n = 0
	a.buf = append(a.buf[:0],
		0, 0, 0, 1, // dimensions
		0, 0, 0, 0, // no nulls
		0, 0, 0, pgtype.TextOID,
		0, 0, 0, 0, // elements, filled in by value
		0, 0, 0, 1) // lower bound
}

func (a *textArray) add(element []byte) {
	a.n++
	a.buf = binary.BigEndian.AppendUint32(a.buf, uint32(len(element)))
	a.buf = append(a.buf, element...)
}

// value is valid until the next reset.
func (a *textArray) value() []byte {
	binary.BigEndian.PutUint32(a.buf[12:], uint32(a.n))
	return a.buf
}

// wireBuffer is the memory that a connection's statements are encoded in, from one write to the next. pgx (Frontend.Flush in
// pgproto3) lets go of its own with each, and lets the next grow from 1 KiB, so that each byte is moved four times and leaves
// four of garbage. This is a message without a byte: it takes the place of pgx's buffer before the first statement,
// and keeps what that has become before the write, which has copied all of it when it returns.
type wireBuffer struct{ memory []byte }

// wireBufferBytes bounds what is kept: two portions, and a statement of rowsPerInsert usual ids.
const wireBufferBytes = 1 << 20

// Encode is for pgx alone, as are the other two.
func (w *wireBuffer) Encode(dst []byte) ([]byte, error) {
	switch {
	case cap(dst) < cap(w.memory):
		return append(w.memory[:0], dst...), nil
	case cap(dst) <= wireBufferBytes:
		w.memory = dst[:0]
	}
	return dst, nil
}

func (w *wireBuffer) Decode([]byte) error { return errors.ErrUnsupported }
func (w *wireBuffer) Frontend()           {}

// pipe sends prepared statements in pipeline mode and checks their results in order. After
// the first error everything is skipped; finish or close reports it.
type pipe struct {
	p *pgconn.Pipeline
	// room has the buffer put in place that the next statements are encoded in.
	room func()
	// pending are the checks of the results still to come, unsent of them of statements that are not sent yet.
	pending []func(*pgconn.ResultReader) error
	unsent  int
	// behind is how many of the statements sent last come behind their middle, and middle those before that of the
	// unsent ones.
	behind, middle int
	synced         bool // the last of it is sent, and the server ends with a word
	err            error
	closed         bool
}

func (w *writer) startPipe(ctx context.Context) *pipe {
	conn := w.conn.PgConn()
	return &pipe{p: conn.StartPipeline(ctx), room: func() { conn.Frontend().Send(&w.wire) }}
}

// command sends a statement whose command tag must count rows, or anything if rows is -1.
func (p *pipe) command(name string, rows int64, params ...[]byte) {
	p.send(name, params, func(rr *pgconn.ResultReader) error {
		tag, err := rr.Close()
		if err == nil && rows >= 0 && tag.RowsAffected() != rows {
			err = swallowed(rows, tag.RowsAffected())
		}
		return err
	})
}

// number sends a query that answers with one int8.
func (p *pipe) number(name string, into *int64, params ...[]byte) {
	p.send(name, params, func(rr *pgconn.ResultReader) error {
		for rr.NextRow() {
			*into = int64(binary.BigEndian.Uint64(rr.Values()[0]))
		}
		_, err := rr.Close()
		return err
	})
}

// advance sends the ledger's new positions and expects all of them to move.
func (p *pipe) advance(w *writer, b *batch) {
	n := len(b.advances)
	partitions, epochs, expected, next := make([]int32, n), make([]int64, n), make([]int64, n), make([]int64, n)
	for i, a := range b.advances {
		partitions[i], epochs[i], expected[i], next[i] = a.claim.partition, a.claim.epoch, a.expected, a.next
	}
	m := w.conn.TypeMap()
	params := [][]byte{[]byte(w.group), []byte(w.topic)}
	for _, value := range []any{partitions, epochs, expected, next} {
		oid := uint32(pgtype.Int8ArrayOID)
		if _, ok := value.([]int32); ok {
			oid = pgtype.Int4ArrayOID
		}
		param, err := m.Encode(oid, pgtype.BinaryFormatCode, value, nil)
		p.err = errors.Join(p.err, err)
		params = append(params, param)
	}
	p.send("advance", params, func(rr *pgconn.ResultReader) error {
		tag, err := rr.Close()
		if err == nil && tag.RowsAffected() != int64(n) {
			err = &FencedError{Partition: partitions[0]}
		}
		return err
	})
}

func (p *pipe) send(name string, params [][]byte, check func(*pgconn.ResultReader) error) {
	if p.err != nil {
		return
	}
	if p.unsent == 0 {
		p.room()
	}
	p.p.SendQueryPrepared(name, params, binaryFormat, binaryFormat)
	p.unsent++
	p.pending = append(p.pending, func(rr *pgconn.ResultReader) error {
		if err := check(rr); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		return nil
	})
}

// halve has the server tell of what was sent so far, once it is done, while it does the rest.
func (p *pipe) halve() {
	p.p.SendFlushRequest()
	p.middle = p.unsent
}

// push sends the statements that are there, once the server is past the middle of those that were sent
// before: it always has something to do.
func (p *pipe) push() error { return p.write(p.p.SendFlushRequest) }

// write sends the statements that are there and what ends them.
func (p *pipe) write(end func()) error {
	if err := p.collect(p.unsent + p.behind); err != nil {
		return err
	}
	end()
	p.room()
	p.err = p.p.Flush()
	p.behind, p.unsent, p.middle = min(p.unsent-p.middle, p.unsent-1), 0, 0 // something is read before the next write
	return p.err
}

// collect reads results that the server has been asked to send. It must not be preceded by
// more than one write: the first one to a connection that the server has closed succeeds, and
// what the server said last can still be read; the next would fail and hide it.
func (p *pipe) collect(n int) error {
	for p.err == nil && len(p.pending) > n {
		results, err := p.p.GetResults()
		if err != nil {
			p.err = err
			break
		}
		rr, ok := results.(*pgconn.ResultReader)
		if !ok {
			p.err = fmt.Errorf("unexpected answer %T", results)
			break
		}
		p.err = p.pending[0](rr)
		p.pending = p.pending[1:]
	}
	return p.err
}

// finish ends the pipeline and returns the first error of any statement.
func (p *pipe) finish() error {
	if err := p.write(p.p.SendPipelineSync); err != nil {
		return err
	}
	p.synced = true
	return p.collect(0)
}

// close gives the connection back. After an error of a statement's the transaction is still open, and can
// be rolled back; after any other the connection is only good for closing.
func (p *pipe) close() error {
	if p.closed {
		return nil
	}
	if _, refused := errors.AsType[*pgconn.PgError](p.err); refused && !p.synced {
		_ = p.p.Sync() // the server passes over what comes before
	}
	p.closed = true
	if err := p.p.Close(); err != nil && p.err == nil {
		return err
	}
	return nil
}
