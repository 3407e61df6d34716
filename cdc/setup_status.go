package cdc

import (
	"context"
	"fmt"
	"strings"

	"github.com/dustin/go-humanize"

	"example.com/tiffin/cache"
)

// SourceStatus is how the source database is prepared, and how its slot fares.
type SourceStatus struct {
	Slot SlotStatus
	// Publication says which columns and operations are published, Identity by what the log
	// knows an old row; "" where there is none.
	Publication, Identity string
	// Wrong are the faults, the worst first; none when all is in order.
	Wrong []Wrong
}

// Wrong is one fault with its fix, a command where there is one.
type Wrong struct{ Text, Fix string }

// SlotStatus is a slot's health.
type SlotStatus struct {
	Exists bool
	// Lost says that the server invalidated it: it can serve no more. Invalidation says why,
	// from PostgreSQL 17 on.
	Lost         bool
	Invalidation string
	// Failover says that standbys synchronise it, so that it outlives a failover.
	Failover bool
	// Holder is who has it active, "" for nobody.
	Holder string
	// Confirmed is the position up to which nothing is sent again, Lag how many bytes of log
	// lie behind that.
	Confirmed cache.LSN
	Lag       int64
	// Retained is how many bytes of log it holds back on the source, Budget how many the
	// daemon lets it, Keep how many the server (-1: any).
	Retained, Budget, Keep int64
	// WALStatus is reserved, extended, unreserved or lost (pg_replication_slots).
	WALStatus string
}

// Status returns how the source database is prepared for role, and the slot's health.
func Status(ctx context.Context, cfg Config, role string) (SourceStatus, error) {
	conn, err := cfg.setUpConn(ctx)
	if err != nil {
		return SourceStatus{}, err
	}
	defer hangUp(ctx, conn.PgConn())
	s, err := makeSurvey(ctx, &cfg, conn, role)
	if err != nil {
		return SourceStatus{}, err
	}
	return s.status(&cfg), nil
}

func (s *survey) status(cfg *Config) SourceStatus {
	out := SourceStatus{Slot: SlotStatus{
		Exists: s.slot.exists, Lost: s.slot.lost, Invalidation: s.slot.invalidation, Failover: s.slot.failover,
		Holder: s.holder, Confirmed: s.slot.confirmed, Lag: s.slot.unconfirmed,
		Retained: s.slot.retained, Budget: cfg.MaxRetainedWAL, Keep: s.keep, WALStatus: s.slot.walStatus,
	}}
	if s.table != nil {
		out.Identity = s.identity()
	}
	if p := &s.publication; p.exists {
		out.Publication = s.published() + " at " + p.kinds
		if !p.holds {
			out.Publication = "nothing of the table"
		}
		if p.filtered {
			out.Publication += ", only rows where " + p.filter
		}
	}
	out.Wrong = s.wrong(cfg)
	return out
}

// identity is the table's replica identity as it is.
func (s *survey) identity() string {
	if s.identities[0].current {
		return s.identities[0].clause + " (" + strings.Join(s.table.relation.keys(), ", ") + ")"
	}
	return identityClause(s.table.relation.identity)
}

// wrong lists the faults: what cannot be mended here, what the slot suffers from, what is missing.
func (s *survey) wrong(cfg *Config) []Wrong {
	var all []Wrong
	script := s.script(cfg)
	if script.Fault != nil {
		f := fault(script.Fault)
		all = append(all, Wrong{f.Text, f.Fix})
	}
	for _, l := range script.Needed() {
		all = append(all, Wrong{l.Why, l.String()})
	}
	if s.holder != "" && !cfg.ours(s.holder) {
		all = append(all, Wrong{heldByOther(cfg, s.holder), freeSlot(s.slot.activePID)})
	}
	if slot := &s.slot; slot.exists && !slot.lost {
		switch {
		case cfg.MaxRetainedWAL > 0 && slot.retained > cfg.MaxRetainedWAL:
			all = append(all, Wrong{
				fmt.Sprintf("slot %s holds back %s, more than source.max_retained_wal = %s", cfg.Slot, bytesOf(slot.retained), bytesOf(cfg.MaxRetainedWAL)),
				"start the daemon, which gives it up and loads the table anew, or slotsetup drop --slot-only",
			})
		case slot.walStatus == "unreserved":
			all = append(all, Wrong{
				"slot " + cfg.Slot + " is about to be invalidated: it holds back more than max_slot_wal_keep_size",
				"start the daemon now, or let it be lost: the daemon then loads the table anew",
			})
		}
	}
	for _, step := range script.Steps() {
		fix := "slotsetup apply: " + step.SQL
		if step.Obstacle != "" {
			fix = step.Obstacle + "; then " + fix
		}
		all = append(all, Wrong{step.Subject + " " + step.Why + s.because(step), fix})
	}
	return all
}

// because says why a slot was invalidated, where the server tells.
func (s *survey) because(step Step) string {
	if step.part == partOldSlot && s.slot.lost {
		return s.slot.because()
	}
	return ""
}

func bytesOf(n int64) string { return humanize.IBytes(uint64(max(n, 0))) }
