package cdc

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"example.com/tiffin/cache"
	"example.com/tiffin/internal/pulse"
)

// Backoff between sessions: from a blip to a long outage.
const (
	retryLeast = 100 * time.Millisecond
	retryMost  = 10 * time.Second
)

// Index is what the reader writes to: *cache.Index. All of it is called from the one
// goroutine of Run, but for the batches of a Load, which several fill. Apply must not wait: the same
// goroutine answers the server's keepalives, in a large transaction when Txn.Breathe is called.
type Index interface {
	BeginLoad(keyed bool) *cache.Load
	NewTxn() *cache.Txn
	Apply(t *cache.Txn, c cache.Commit) error
	Settle(s cache.Snapshot) cache.LSN
	Reread()
}

// Reader keeps an index in step with the source database.
type Reader struct {
	cfg Config
	src *Source
	idx Index

	state   state
	pulses  pulse.Pulses
	pulse   *pulse.Pulse // of Run's goroutine, and of a load's
	warding *pulse.Pulse // of the warden
	gate    gate
	asks    asks
	freshAt atomic.Int64            // Unix nanoseconds: the index had all acknowledged before
	current atomic.Pointer[session] // whom fences ask for a keepalive; nil between sessions

	// Of Run's goroutine.
	table     *tableFacts // as loaded; nil: the index must be loaded
	snapshot  cache.Snapshot
	pos       position
	system    pglogrepl.IdentifySystemResult
	rebuilds  rebuilds
	synced    bool      // was in sync since Run began
	settled   bool      // was in sync in this session
	heldSince time.Time // the slot is active elsewhere
	made      bool      // the slot was made since Run began
	useless   bool      // the slot is to be made again
	commits   *commits  // the last since the load
}

// New validates cfg and returns a reader that writes to idx. It neither connects nor starts
// anything. The caller closes src after Run has returned.
func New(cfg Config, src *Source, idx Index) (*Reader, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("cdc config: %w", err)
	}
	r := &Reader{cfg: cfg.withDefaults(), src: src, idx: idx}
	r.pulse, r.warding = r.pulses.New("source: the reader"), r.pulses.New("source: the warden of the slot")
	r.cfg.pulse = r.pulse
	r.asks.question = src.flushed
	if r.cfg.Fence == FenceEmit {
		r.asks.question = src.emitted
	}
	r.state.say("not connected yet")
	return r, nil
}

// Run sets up what is missing, loads the table, follows the log, reconnects and rebuilds. It
// blocks until ctx ends (nil), or until an error that does not mend by waiting: before the
// index was in sync for the first time any that errors.Is ErrPermanent, later only too many
// rebuilds. Call it once.
func (r *Reader) Run(ctx context.Context) error {
	defer r.pulse.Rest()
	for attempt := 0; ; attempt++ {
		r.pulse.Beat()
		from := r.pos.applied
		err := r.session(ctx)
		if ctx.Err() != nil {
			r.state.say("stopped")
			return nil
		}
		if r.settled || r.pos.applied > from { // progress is no failed attempt
			attempt, r.settled = 0, false
		}
		final := r.consider(err) // which may forget the index: before a fence can take it for one of bounded age
		r.state.say(err.Error())
		if final != nil {
			r.state.say(final.Error())
			return fmt.Errorf("follow source database: %w", final)
		}
		wait := backoff(attempt, retryLeast, retryMost, r.cfg.Rand)
		r.cfg.Log.Warn("session with source database ended", "slot", r.cfg.Slot, "attempt", attempt, "retry_in", wait, "err", err)
		if !pause(ctx, wait) {
			r.state.say("stopped")
			return nil
		}
	}
}

// Abandon drops the slot if this reader's Run made it where there was none: for a start that
// ends hopelessly, so that nothing holds back the source's log for a process that nobody may
// start again. Call it after Run has returned. It takes half a minute at most.
func (r *Reader) Abandon(ctx context.Context) error {
	if !r.made {
		return nil
	}
	r.cfg.Log.Warn("dropping the replication slot that this start made", "slot", r.cfg.Slot)
	return removeSlot(ctx, &r.cfg)
}

// Reasons says why the index is not in sync with the source, each with its fix where there
// is one; empty when it is. Safe for concurrent use.
func (r *Reader) Reasons() []string { return r.state.reasons() }

// Hangs names what has shown no sign of life for longer than it may; whoever wants to know must ask
// every few seconds. Safe for concurrent use.
func (r *Reader) Hangs(now time.Time) []string { return r.pulses.Hangs(now) }

func permanent(err error) bool { return errors.Is(err, ErrPermanent) }

// consider decides what an ended session means; an error is final.
func (r *Reader) consider(err error) error {
	var rebuild *rebuildError
	switch {
	case errors.As(err, &rebuild):
		r.useless = r.useless || rebuild.slot
		return r.forget(rebuild.reason, rebuild.err)
	case errors.Is(err, cache.ErrInconsistent):
		return r.forget("inconsistent", err)
	case errors.Is(err, errTooManyRebuilds):
		return err
	}
	if _, held := errors.AsType[*heldError](err); !held {
		r.heldSince = time.Time{}
		if permanent(err) && !r.synced {
			return err
		}
		return nil
	}
	now := r.cfg.Now()
	if r.heldSince.IsZero() {
		r.heldSince = now
	}
	if now.Sub(r.heldSince) > r.cfg.HoldLimit && !r.synced {
		return fmt.Errorf("%w; waited %s for it: %w", err, r.cfg.HoldLimit, ErrPermanent)
	}
	return nil
}

// forget gives the index up; the next session loads it again.
func (r *Reader) forget(reason string, why error) error {
	if r.table == nil {
		return nil
	}
	r.cfg.Log.Warn("index must be rebuilt", "slot", r.cfg.Slot, "reason", reason, "err", why)
	r.table = nil
	r.state.setLoaded(false)
	r.src.footing.trusted.Store(nil)
	r.gate.shut()
	r.cfg.Metrics.rebuilds.WithLabelValues(reason).Inc()
	if reason == reasonRewritten || reason == reasonPartitions {
		return nil
	}
	return r.rebuilds.allow(r.cfg.Now(), why.Error())
}

// session connects, prepares, loads if it must, and follows until something ends it.
func (r *Reader) session(ctx context.Context) error {
	repl, err := r.cfg.connectReplication(ctx)
	if err != nil {
		return or(r.spare(ctx), err)
	}
	defer hangUp(ctx, repl)
	conn, err := r.cfg.connect(ctx)
	if err != nil {
		return err
	}
	defer func() { hangUp(ctx, conn.PgConn()) }()
	if err := r.identify(ctx, repl); err != nil {
		return err
	}
	r.state.say("preparing publication and slot (a new slot waits for the transactions that run)")
	p := prepared{useless: r.useless, loads: r.table == nil, repl: repl}
	r.pulse.Await(slotLimit + pulse.Limit)
	err = p.prepare(ctx, &r.cfg, conn)
	r.pulse.Beat()
	r.made = r.made || p.made
	if err == nil {
		err = p.ensureFailover(ctx, &r.cfg, repl)
	}
	if err != nil {
		return err
	}
	r.useless = false
	if p.changed != "" {
		if err := r.forget(p.changed, fmt.Errorf("slot %s was made again (%s)", r.cfg.Slot, p.changed)); err != nil {
			return err
		}
	}
	r.src.reconnect()
	if r.table == nil {
		if err := r.load(ctx, conn, p); err != nil {
			return err
		}
	} else {
		r.idx.Reread() // by now all connections to a server that crashed are gone
	}
	return r.stream(ctx, repl, conn, p)
}

// spare looks after the slot while no walsender is to be had (max_wal_senders are all in use, the right to one was
// revoked): nobody reads from it, and what it holds back is bounded all the same. An error is final.
func (r *Reader) spare(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, prepareLimit)
	defer cancel()
	conn, err := r.cfg.connect(ctx)
	if err != nil {
		return nil
	}
	defer hangUp(ctx, conn.PgConn())
	var p prepared
	if p.server, err = inspectServer(ctx, conn); err != nil || p.server.recovery {
		return nil
	}
	if err := p.checkSlot(ctx, &r.cfg, conn); err != nil || p.changed == "" {
		return nil
	}
	return r.forget(p.changed, fmt.Errorf("slot %s was dropped while no walsender was to be had", r.cfg.Slot))
}

// identify makes sure that the server's history is the one the index comes from.
func (r *Reader) identify(ctx context.Context, repl *pgconn.PgConn) error {
	ctx, cancel := context.WithTimeout(ctx, askLimit)
	defer cancel()
	system, err := pglogrepl.IdentifySystem(ctx, repl)
	if err != nil {
		return &Error{Op: "identify source database", Err: err}
	}
	was := r.system
	r.system = system
	r.src.footing.system.Store(&system.SystemID)
	switch {
	case was.SystemID == "":
	case was.SystemID != system.SystemID:
		return r.forget("system", fmt.Errorf("system identifier %s, was %s", system.SystemID, was.SystemID))
	case was.Timeline != system.Timeline:
		return r.forget("timeline", fmt.Errorf("timeline %d, was %d", system.Timeline, was.Timeline))
	}
	return nil
}

func (r *Reader) load(ctx context.Context, conn *pgx.Conn, p prepared) error {
	r.state.say("loading table " + r.cfg.Table)
	started := r.cfg.Now()
	r.src.footing.learn(p.server.version, p.table)
	stands, err := r.src.footing.ask(ctx, conn) // before the snapshot: what is altered from here on is noticed
	if err == nil {
		err = r.src.footing.settled(ctx, conn, p.server.version)
	}
	if err != nil {
		return err
	}
	var l loaded
	held, err := guarded(ctx, &r.cfg, endLoading, func(ctx context.Context) (err error) {
		l, err = load(ctx, &r.cfg, conn, r.idx, r.src.learn)
		return err
	})
	if held != nil || err != nil {
		return or(held, err)
	}
	if l.table.relation.oid != p.table.relation.oid || !l.table.layout.sameRows(&p.table.layout) {
		return &Error{Op: "load table", On: r.cfg.Table, Err: errors.New("it was altered meanwhile")}
	}
	r.src.footing.trusted.Store(&stands)
	r.table, r.snapshot = l.table, l.snapshot
	r.pos, r.commits = position{settled: cache.MaxLSN}, &commits{}
	r.pos.start(p.slot.confirmed)
	r.cfg.Log.Info("table loaded", "table", r.cfg.Table, "keyed", l.table.layout.keyed, "took", r.cfg.Now().Sub(started))
	return nil
}

// stream starts replication and follows. The session's SQL connection goes to its warden.
func (r *Reader) stream(ctx context.Context, repl *pgconn.PgConn, conn *pgx.Conn, p prepared) error {
	r.state.say("catching up with the log")
	w, err := newWire(repl)
	if err != nil {
		return err
	}
	s := &session{Reader: r, wire: w, version: p.server.version, pid: repl.PID(), txn: r.idx.NewTxn(), suspect: make(chan struct{}, 1)}
	defer s.txn.Discard()
	s.txn.Breathe = func() { s.breathe(ctx) }
	s.asm = r.assembler(s.txn)
	s.statusEvery = r.cfg.StatusInterval
	if third := time.Duration(p.server.senderWait) * time.Millisecond / 3; third > 0 {
		s.statusEvery = min(s.statusEvery, third)
	}
	if err := startReplication(ctx, &r.cfg, repl); err != nil {
		return err
	}
	if err := s.verifyStart(ctx, conn); err != nil {
		return err
	}
	first, err := askReport(ctx, conn, &r.src.footing, r.cfg.Now())
	if err != nil {
		return err
	}
	s.target = first.flushed
	s.report.Store(first)
	r.heldSince = time.Time{}
	r.state.setLoaded(true)
	r.current.Store(s)
	defer r.current.Store(nil)
	return s.withWarden(ctx, conn)
}

// withWarden follows for as long as the warden is content, and leaves no goroutine behind.
func (s *session) withWarden(ctx context.Context, conn *pgx.Conn) error {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	wg.Go(func() { s.warden(ctx, conn) })
	if s.cfg.Fence != FenceOff {
		wg.Go(func() { s.openFence(ctx) })
	}
	s.advance()
	return s.follow(ctx)
}

// openFence has the first fence find its connection open and the catalog read, for which the first batch waited
// 6 to 32 ms on a busy machine. What goes wrong, the fence will say.
func (s *session) openFence(ctx context.Context) { _, _ = s.src.flushed(ctx) }

func (r *Reader) assembler(txn staging) *assembler {
	return &assembler{
		table: r.table.relation.name, oid: r.table.relation.oid, loaded: r.table.layout,
		snapshot: r.snapshot, xids: r.snapshot.Xmax,
		commits: r.commits, txn: txn, m: r.cfg.Metrics, log: r.cfg.Log, now: r.cfg.Now, rels: map[uint32]followed{},
	}
}

// caughtUp: the index holds what the source had when the session began.
func (s *session) caughtUp() {
	s.synced, s.settled = true, true
	s.state.say("")
	s.cfg.Log.Info("in sync with source database", "slot", s.cfg.Slot, "position", s.pos.applied.String())
}

// askWarden has the warden look now, if there is a session.
func (r *Reader) askWarden() {
	if s := r.current.Load(); s != nil {
		s.lookNow()
	}
}

// askReply has the server asked for a keepalive, if there is a session.
func (r *Reader) askReply() {
	if s := r.current.Load(); s != nil {
		s.requestReply()
	}
}
