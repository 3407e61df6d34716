package cdc

import (
	"context"
	"fmt"
	"net"
	"sync/atomic"
	"time"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"example.com/tiffin/cache"
)

// wire is the replication connection. One goroutine reads and writes it; others rouse that
// goroutine from its read, by a read deadline that has passed: a read that timed out goes on
// later where it stopped.
type wire struct {
	conn   *pgconn.PgConn
	raw    net.Conn
	stream *copyStream
	roused atomic.Bool
	// began says that pgx has begun to read a message: only it can go on.
	began bool
	// busy says that there is nothing to do before many messages more have come.
	busy  bool
	pause *time.Timer
}

func newWire(conn *pgconn.PgConn) (*wire, error) {
	s, err := streamOf(conn)
	if err != nil {
		return nil, err
	}
	w := &wire{conn: conn, raw: conn.Conn(), stream: s, pause: time.NewTimer(0)}
	<-w.pause.C
	s.enlarge()
	s.patient = w.gather
	return w, nil
}

// rouse makes the owner leave its read soon. Safe for concurrent use.
func (w *wire) rouse() {
	if w.roused.CompareAndSwap(false, true) {
		_ = w.raw.SetReadDeadline(time.Unix(1, 0)) // of a closed connection: then nobody reads
	}
}

// calm lets the owner read until a deadline. What asked for its attention before is attended
// to after; what asks from here on shortens the new deadline.
func (w *wire) calm(until time.Time) error {
	if err := w.raw.SetReadDeadline(until); err != nil {
		return fmt.Errorf("replication connection: %w", err)
	}
	w.roused.Store(false)
	return nil
}

// receive returns the content of the next CopyData message, or else another kind of message,
// valid until the next call. pgconn's ReceiveMessage would start and stop a watcher for each.
func (w *wire) receive() (data []byte, other pgproto3.BackendMessage, err error) {
	if !w.began {
		data, ok, err := w.stream.data()
		if err != nil || ok {
			return data, nil, err
		}
	}
	other, err = w.conn.Frontend().Receive()
	w.began = err != nil
	return nil, other, err
}

const (
	// gatherFor is how long the messages of a transaction may gather. The walsender sends each change by
	// itself: a reader that is quicker is woken for each, which costs both of them more than the change.
	gatherFor = 100 * time.Microsecond
	// gatherEnough bytes at once say that the reader is the slower one.
	gatherEnough = 16 << 10
)

// gather comes before each read.
func (w *wire) gather() error {
	if w.busy && w.stream.came < gatherEnough {
		w.pause.Reset(gatherFor)
		<-w.pause.C
	}
	return nil
}

// status reports positions. All three are always set, and never to 0: pglogrepl would put
// the received position in the place of a missing one, and so confirm what was not applied.
func (w *wire) status(ctx context.Context, received, reported cache.LSN, now time.Time, reply bool) error {
	if reported == 0 || received == 0 {
		return nil
	}
	if err := w.raw.SetWriteDeadline(now.Add(askLimit)); err != nil {
		return fmt.Errorf("replication connection: %w", err)
	}
	err := pglogrepl.SendStandbyStatusUpdate(ctx, w.conn, pglogrepl.StandbyStatusUpdate{
		WALWritePosition: pglogrepl.LSN(received),
		WALFlushPosition: pglogrepl.LSN(reported),
		WALApplyPosition: pglogrepl.LSN(reported),
		ClientTime:       now,
		ReplyRequested:   reply,
	})
	if err != nil {
		return fmt.Errorf("report position %s: %w", reported, err)
	}
	return nil
}
