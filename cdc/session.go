package cdc

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"example.com/tiffin/cache"
)

const (
	// attendEvery is how long the owner reads without looking at anything else.
	attendEvery = time.Second
	// A source that says nothing is asked to answer after askAfter, is looked at by SQL
	// after suspectAfter, is out of sync after silentAfter (/readyz promises 15 s), and is
	// given up after muteAfter if its walsender could answer.
	askAfter     = 3 * time.Second
	suspectAfter = 5 * time.Second
	silentAfter  = 10 * time.Second
	muteAfter    = 20 * time.Second
)

// session follows the slot over one connection. Its owner is the goroutine of Run.
type session struct {
	*Reader
	wire    *wire
	asm     *assembler
	txn     *cache.Txn
	version int    // server_version_num
	pid     uint32 // of our walsender

	statusEvery time.Duration
	lastStatus  time.Time
	heard       bool // something came since lastHeard
	lastHeard   time.Time
	asked       time.Time // since when an answer is asked for and none has come; zero: not
	target      cache.LSN // caught up when applied is here
	checked     *report   // the warden's report that is yet to be reached
	behind      bool      // the last transaction came late: there is a backlog

	// From other goroutines; each sets its word and rouses the owner.
	wantReply atomic.Bool
	report    atomic.Pointer[report]
	failure   atomic.Pointer[error]

	suspect chan struct{} // to the warden: look now
	mute    atomic.Bool   // to the warden: nothing came for muteAfter, and it was asked for all that time but the first

	retained retention // of the warden
}

// report is what the warden learned.
type report struct {
	snapshot cache.Snapshot
	flushed  cache.LSN
	footing  ground
	at       time.Time // before it was asked
}

// fail ends the session from another goroutine.
func (s *session) fail(err error) {
	s.failure.CompareAndSwap(nil, &err)
	s.wire.rouse()
}

// requestReply has the server asked for a keepalive. Safe for concurrent use.
func (s *session) requestReply() {
	s.wantReply.Store(true)
	s.wire.rouse()
}

// lookNow rouses the warden. Safe for concurrent use.
func (s *session) lookNow() {
	select {
	case s.suspect <- struct{}{}:
	default:
	}
}

// startReplication makes the connection a stream of the slot.
func startReplication(ctx context.Context, cfg *Config, conn *pgconn.PgConn) error {
	ctx, cancel := context.WithTimeout(ctx, prepareLimit)
	defer cancel()
	args := []string{"proto_version '1'", "publication_names " + literal(quoted(cfg.Publication))}
	if cfg.Fence == FenceEmit {
		args = append(args, "messages 'true'") // so that an emitted transaction is not left out as empty
	}
	// 0/0: from where the slot is confirmed. The server never starts before that.
	err := pglogrepl.StartReplication(ctx, conn, cfg.Slot, 0, pglogrepl.StartReplicationOptions{PluginArgs: args})
	if err == nil {
		return nil
	}
	e := &Error{Op: "start replication from slot", On: cfg.Slot, Err: err}
	switch sqlState(err) {
	case codeObjectInUse:
		return &heldError{e}
	case codeInsufficientPrivilege:
		e.Permanent = true
		e.Fix = "as a superuser: ALTER ROLE " + quoted(conn.ParameterStatus("session_authorization")) + " REPLICATION;"
	}
	return e
}

// verifyStart makes sure that the stream goes on where the index ends. Only now, holding the
// slot, is that certain: before, another process may have moved it.
func (s *session) verifyStart(ctx context.Context, conn *pgx.Conn) error {
	ctx, cancel := context.WithTimeout(ctx, prepareLimit)
	defer cancel()
	slot, err := inspectSlot(ctx, conn, s.cfg.Slot)
	if err != nil {
		return err
	}
	if slot.activePID == 0 || uint32(slot.activePID) != s.pid {
		return s.lastWords(fmt.Errorf("replication slot %s: active under pid %d, not our %d", s.cfg.Slot, slot.activePID, s.pid))
	}
	if slot.confirmed > s.pos.reported {
		return &rebuildError{reason: "gap", err: fmt.Errorf("slot %s was moved to %s by another process, past our %s", s.cfg.Slot, slot.confirmed, s.pos.reported)}
	}
	if err := s.verifyHistory(ctx, conn); err != nil {
		return err
	}
	s.pos.start(slot.confirmed)
	return nil
}

// verifyHistory makes sure that the log still holds what was applied. A server that was put back to an earlier
// state (a snapshot of its volume, a copy of its files) has the same identifier and timeline, and writes other
// transactions at the positions of those it lost. Once its log is as long again, begin sees it.
func (s *session) verifyHistory(ctx context.Context, conn *pgx.Conn) error {
	var flushed string
	if err := conn.QueryRow(ctx, "SELECT pg_current_wal_flush_lsn()::text").Scan(&flushed); err != nil {
		return &Error{Op: "ask source database for its position", Err: err}
	}
	at, err := cache.ParseLSN(flushed)
	if err == nil && at < s.pos.applied {
		return rewound(fmt.Errorf("the log ends at %s, and was at %s", at, s.pos.applied))
	}
	return err
}

func rewound(err error) error {
	return &rebuildError{reason: "history", err: fmt.Errorf("%w: the server was put back to an earlier state", err)}
}

// lastWords is why a walsender that is gone went, where it said so; otherwise it is gone.
func (s *session) lastWords(gone error) error {
	if err := s.wire.calm(time.Now().Add(attendEvery)); err != nil {
		return gone
	}
	for {
		_, msg, err := s.wire.receive()
		if err != nil {
			return gone
		}
		if told, ok := msg.(*pgproto3.ErrorResponse); ok {
			return streamError(pgconn.ErrorResponseToPgError(told))
		}
	}
}

// follow reads until something ends it; it never returns nil.
func (s *session) follow(ctx context.Context) error {
	stop := context.AfterFunc(ctx, s.wire.rouse)
	defer stop()
	s.lastHeard = s.cfg.Now()
	if err := s.attend(ctx); err != nil {
		return err
	}
	for {
		data, other, err := s.wire.receive()
		switch {
		case err == nil:
			if s.heard = true; s.mute.Load() {
				s.mute.Store(false)
			}
			if other == nil {
				err = s.data(ctx, data)
			} else {
				err = s.notData(other)
			}
			if err != nil {
				return err
			}
			if !s.wire.roused.Load() {
				continue
			}
		case !timedOut(err):
			return fmt.Errorf("read replication stream: %w", err)
		}
		if err := s.attend(ctx); err != nil {
			return err
		}
	}
}

// attend does what is not reading: every attendEvery, and when the owner was roused.
func (s *session) attend(ctx context.Context) error {
	s.pulse.Beat()
	now := s.cfg.Now()
	if err := s.wire.calm(time.Now().Add(attendEvery)); err != nil {
		return err
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err := s.failure.Load(); err != nil {
		return *err
	}
	if r := s.report.Swap(nil); r != nil {
		s.pos.settle(s.idx.Settle(r.snapshot))
		s.asm.xids = max(s.asm.xids, r.snapshot.Xmax)
		s.checked, s.lastStatus = r, time.Time{}
	}
	s.freshen()
	reply := s.listen(now) || s.wantReply.Swap(false)
	if reply || now.Sub(s.lastStatus) >= s.statusEvery {
		return s.status(ctx, now, reply)
	}
	return nil
}

// freshen notes as of when the index is known to have everything.
func (s *session) freshen() {
	if s.checked == nil || s.pos.applied < s.checked.flushed {
		return
	}
	s.fresh(s.checked.at)
	s.cfg.Metrics.lag.Set(0)
	s.checked = nil
}

// listen keeps account of the server's silence and reports whether to ask for an answer.
func (s *session) listen(now time.Time) bool {
	if s.heard {
		s.heard, s.lastHeard, s.asked = false, now, time.Time{}
		s.state.silent(0)
		return false
	}
	silence := now.Sub(s.lastHeard)
	if silence >= askAfter && s.asked.IsZero() { // who was stopped for long asks first
		s.asked = now
	}
	s.mute.Store(!s.asked.IsZero() && now.Sub(s.asked) >= muteAfter-askAfter)
	if silence >= suspectAfter {
		s.lookNow()
	}
	if silence >= silentAfter {
		s.state.silent(silence)
	}
	return silence >= askAfter
}

func (s *session) status(ctx context.Context, now time.Time, reply bool) error {
	s.lastStatus = now
	reported := s.pos.report()
	return s.wire.status(ctx, s.pos.received, reported, now, reply)
}

// notData takes a message that is none of the log's.
func (s *session) notData(msg pgproto3.BackendMessage) error {
	switch msg := msg.(type) {
	case *pgproto3.ErrorResponse:
		return streamError(pgconn.ErrorResponseToPgError(msg))
	case *pgproto3.CopyDone, *pgproto3.CommandComplete, *pgproto3.ReadyForQuery:
		return errors.New("replication stream: the server ended it")
	default: // notices, changed parameters
		return nil
	}
}

// streamError is what the server says when it ends a stream.
func streamError(err *pgconn.PgError) error {
	told := fmt.Errorf("replication stream: %w", err)
	if err.Code == codeUndefinedObject {
		// pgoutput reads the catalog as of the change that it decodes: from this slot the
		// publication will be missing for ever, also once it was made again.
		return &rebuildError{reason: "publication", err: told, slot: true}
	}
	return told
}

func (s *session) data(ctx context.Context, data []byte) error {
	if len(data) == 0 {
		return errors.New("replication stream: empty message")
	}
	switch data[0] {
	case pglogrepl.PrimaryKeepaliveMessageByteID:
		k, err := pglogrepl.ParsePrimaryKeepaliveMessage(data[1:])
		if err != nil {
			return fmt.Errorf("replication stream: %w", err)
		}
		s.pos.keepalive(cache.LSN(k.ServerWALEnd))
		s.behind, s.wire.busy = false, false
		s.advance()
		if k.ReplyRequested {
			return s.status(ctx, s.cfg.Now(), false)
		}
		return nil
	case pglogrepl.XLogDataByteID:
		x, err := pglogrepl.ParseXLogData(data[1:])
		if err != nil {
			return fmt.Errorf("replication stream: %w", err)
		}
		return s.message(cache.LSN(x.WALStart), x.ServerTime, x.WALData)
	default:
		return fmt.Errorf("replication stream: message of unknown kind %q", data[0])
	}
}

// From gatherFrom changes of a transaction on, and behind a transaction that was sent behindAfter its
// commit, more can be expected, and time is not of the essence.
const (
	gatherFrom  = 16
	behindAfter = 20 * time.Millisecond
)

func (s *session) message(at cache.LSN, sent time.Time, msg []byte) error {
	s.pos.heard(at)
	done, err := s.asm.message(msg, s.pos.applied)
	if err != nil {
		return err
	}
	s.pos.inTxn = s.asm.open
	if done != nil {
		s.behind = sent.Sub(done.commit.Time) > behindAfter // by one clock, the server's
	}
	s.wire.busy = s.behind || done == nil && s.txn.Len() >= gatherFrom
	if done == nil {
		return nil
	}
	if done.changed {
		if err := s.idx.Apply(s.txn, done.commit); err != nil {
			return fmt.Errorf("apply transaction %d that ends at %s: %w", done.commit.Xid, done.commit.End, err)
		}
		s.cfg.Metrics.transactions.Inc()
		s.cfg.Metrics.visible.Observe(s.cfg.Now().Sub(done.commit.Time).Seconds())
	}
	s.pos.commit(done.commit.End, done.changed)
	s.advance()
	return nil
}

// advance lets fences pass that wait for the applied position.
func (s *session) advance() {
	s.gate.advance(s.pos.applied)
	if s.target != 0 && s.pos.applied >= s.target {
		s.target = 0
		s.caughtUp()
	}
}
