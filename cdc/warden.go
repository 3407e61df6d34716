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
	for {
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
	s.src.footing.trusted.Store(&r.footing) // asked before the rest was found in order
	s.cfg.Metrics.lag.Set(max(0, float64(r.flushed)-float64(s.gate.position())))
	s.report.Store(r)
	s.wire.rouse()
	return nil
}

func askReport(ctx context.Context, conn *pgx.Conn, f *footing, now time.Time) (*report, error) {
	var snapshot, flushed string
	r := &report{at: now}
	err := conn.QueryRow(ctx, "SELECT pg_current_snapshot()::text, pg_current_wal_flush_lsn()::text, "+f.sql()).Scan(&snapshot, &flushed, &r.footing)
	if err != nil {
		return nil, &Error{Op: "ask source database for its position", Err: err}
	}
	if r.snapshot, err = cache.ParseSnapshot(snapshot); err != nil {
		return nil, err
	}
	r.flushed, err = cache.ParseLSN(flushed)
	return r, err
}

// inspectSlot ends a session whose walsender is gone, and one whose slot holds back too much
// (the next session drops it).
func (s *session) inspectSlot(ctx context.Context, conn *pgx.Conn) error {
	slot, err := inspectSlot(ctx, conn, s.cfg.Slot)
	if err != nil {
		return err
	}
	s.cfg.Metrics.retained.Set(float64(slot.retained))
	if slot.activePID == 0 || uint32(slot.activePID) != s.pid {
		return fmt.Errorf("replication slot %s: our walsender %d is gone", s.cfg.Slot, s.pid)
	}
	if limit := s.cfg.MaxRetainedWAL; limit > 0 && slot.retained > limit {
		return fmt.Errorf("replication slot %s: holds back %d bytes, more than source.max_retained_wal = %d", s.cfg.Slot, slot.retained, limit)
	}
	return nil
}

// inspectTable finds what the log does not say: a table dropped or swapped, a publication
// altered, a partition emptied.
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
	pub, err := inspectPublication(ctx, conn, s.cfg.Publication, table.relation.name)
	if err != nil {
		return err
	}
	steps, err := publicationSteps(s.cfg.Publication, pub, table)
	switch {
	case err != nil:
		return &rebuildError{reason: "publication", err: err}
	case len(steps) > 0:
		return &rebuildError{reason: "publication", err: fmt.Errorf("publication %s %s", s.cfg.Publication, steps[0].Why)}
	case !table.layout.sameRows(&s.table.layout):
		return &rebuildError{reason: "identity", err: fmt.Errorf("columns or replica identity of table %s were changed", table.relation.name)}
	case table.storage != s.table.storage:
		return &rebuildError{reason: "partitions", err: fmt.Errorf("partitions of table %s came, went or were rewritten", table.relation.name)}
	}
	return nil
}
