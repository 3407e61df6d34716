package cdc

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"example.com/tiffin/cache"
)

// warden asks by SQL what the owner of the stream must not wait for: how far snapshots see,
// what the slot holds back, whether the table and the publication are still the same. It
// lives as long as its session and owns conn.
func (s *session) warden(ctx context.Context, conn *pgx.Conn) {
	every := s.statusEvery
	if s.cfg.MaxStaleness > 0 { // the index's age must be known more finely than its bound
		every = min(every, max(s.cfg.MaxStaleness/4, 100*time.Millisecond))
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	s.retained = newRetention()
	defer s.warding.Rest()
	for {
		s.warding.Beat()
		if err := s.inspect(ctx, conn); err != nil {
			s.fail(err)
			return
		}
		select {
		case <-tick.C:
		case <-s.suspect:
		case <-ctx.Done():
			return
		}
	}
}

func (s *session) inspect(ctx context.Context, conn *pgx.Conn) error {
	ctx, cancel := context.WithTimeout(ctx, askLimit)
	defer cancel()
	r, err := askReport(ctx, conn, &s.src.footing, s.cfg.Now())
	if err != nil {
		return err
	}
	if err := s.inspectSlot(ctx, conn); err != nil {
		return err
	}
	if err := s.inspectTable(ctx, conn); err != nil {
		return err
	}
	if reason, why := s.src.footing.trusted.Load().carries(r.footing); reason != "" {
		return &rebuildError{reason: reason, err: fmt.Errorf("%s, publication %s: %s", s.table.relation.name, s.cfg.Publication, why)}
	}
	s.src.footing.trusted.Store(&r.footing) // asked before the rest was found in order
	s.cfg.Metrics.lag.Set(max(0, float64(r.flushed)-float64(s.gate.position())))
	s.report.Store(r)
	s.wire.rouse()
	return nil
}

func askReport(ctx context.Context, conn *pgx.Conn, f *footing, now time.Time) (*report, error) {
	var snapshot, flushed string
	r := &report{at: now}
	err := conn.QueryRow(ctx, "SELECT pg_current_snapshot()::text, pg_current_wal_flush_lsn()::text, "+*f.question.Load()).Scan(&snapshot, &flushed, &r.footing)
	if err != nil {
		return nil, &Error{Op: "ask source database for its position", Err: err}
	}
	if r.snapshot, err = cache.ParseSnapshot(snapshot); err != nil {
		return nil, err
	}
	r.flushed, err = cache.ParseLSN(flushed)
	return r, err
}

// inspectSlot ends a session whose walsender is gone, and one whose slot is about to hold back
// too much: by the next look it would, if the log grows as it did since the last.
func (s *session) inspectSlot(ctx context.Context, conn *pgx.Conn) error {
	slot, err := inspectSlot(ctx, conn, s.cfg.Slot)
	if err != nil {
		return err
	}
	s.cfg.Metrics.retained.Set(float64(slot.retained))
	if slot.activePID == 0 || uint32(slot.activePID) != s.pid {
		return fmt.Errorf("replication slot %s: our walsender %d is gone", s.cfg.Slot, s.pid)
	}
	if s.retained.passes(slot.retained, s.cfg.MaxRetainedWAL) {
		return s.giveUp(ctx, conn, slot)
	}
	if s.mute.Load() {
		return s.endMute(ctx, conn)
	}
	return nil
}

// endMute ends our walsender if it waits for the log or for us, and so reads what it is asked (WalSndLoop,
// WalSndWaitForWal and ProcessPendingWrites in walsender.c), while no answer comes: the way between is
// broken, and whoever stands there lets neither kernel know. One that is busy is left alone; another session
// would begin with the same work.
func (s *session) endMute(ctx context.Context, conn *pgx.Conn) error {
	var waits *string
	err := conn.QueryRow(ctx, "SELECT max(wait_event) FROM pg_stat_activity WHERE pid = $1 AND wait_event LIKE 'WalSender%'", int(s.pid)).Scan(&waits)
	if err != nil {
		return &Error{Op: "ask source database for the walsender's state", Err: err}
	}
	if waits == nil || !s.mute.Load() { // it answered meanwhile
		return nil
	}
	why := fmt.Errorf("replication stream: no answer for %s from walsender %d, which waits (%s): ended it", muteAfter, s.pid, *waits)
	s.fail(why) // before the walsender's end can be taken for the reason
	if err := s.endWalsender(ctx, conn); err != nil {
		return &Error{Op: "end walsender", On: s.cfg.Slot, Err: err}
	}
	return why
}

// endWalsender ends our walsender, as its own role may, and waits for that. The session's end is no reason to
// stop at it: who holds the slot keeps the next session from it.
func (s *session) endWalsender(ctx context.Context, conn *pgx.Conn) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), askLimit)
	defer cancel()
	_, err := conn.Exec(ctx, "SELECT pg_terminate_backend($1, $2)", s.pid, (askLimit / 2).Milliseconds())
	return err
}

// giveUp ends our walsender and drops the slot, without waiting for the owner of the stream,
// who may hang in an Apply: meanwhile the log would go on growing.
func (s *session) giveUp(ctx context.Context, conn *pgx.Conn, slot slotFacts) error {
	why := &rebuildError{reason: "retained_wal", err: fmt.Errorf(
		"slot %s held back %d bytes and would soon have passed source.max_retained_wal = %d", s.cfg.Slot, slot.retained, s.cfg.MaxRetainedWAL)}
	s.fail(why) // before the end of the walsender can be taken for the reason
	s.cfg.Log.Warn("dropping replication slot", "slot", s.cfg.Slot, "reason", why.reason, "retained_bytes", slot.retained)
	err := s.endWalsender(ctx, conn)
	if err == nil {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), askLimit)
		defer cancel()
		_, err = conn.Exec(ctx, "SELECT pg_drop_replication_slot($1)", s.cfg.Slot)
	}
	if err != nil { // the next session tries again
		return &Error{Op: "drop replication slot", On: s.cfg.Slot, Err: err}
	}
	return why
}

// inspectTable finds what keeps the table from being followed: it was dropped or swapped, a
// right was revoked, its identity changed. Whatever is done to the publication alters the ground.
func (s *session) inspectTable(ctx context.Context, conn *pgx.Conn) error {
	table, err := inspectTable(ctx, conn, s.table.relation.name)
	if err != nil {
		if permanent(err) {
			return &rebuildError{reason: "table", err: err}
		}
		return err
	}
	if table.relation.oid != s.table.relation.oid {
		return &rebuildError{reason: "table", err: fmt.Errorf("table %s was replaced by another of the same name", table.relation.name)}
	}
	if !table.layout.sameRows(&s.table.layout) {
		return &rebuildError{reason: "identity", err: fmt.Errorf("columns or replica identity of table %s were changed", table.relation.name)}
	}
	return nil
}
