package cdc

import (
	"context"
	"fmt"
	"math"
	"slices"
	"time"
)

// retention keeps account of what a slot holds back on the source, from look to look.
type retention struct {
	was     int64
	growths [8]int64 // since the looks before: a look may fall into a lull
	looks   int
}

// newRetention begins: the first look knows of no growth.
func newRetention() retention { return retention{was: math.MaxInt64} }

// passes reports whether by the next look the slot would hold back more than limit, if the
// log grows by as much as it did at most between the last looks.
func (r *retention) passes(now, limit int64) bool {
	r.growths[r.looks%len(r.growths)] = max(0, now-r.was)
	r.was = now
	r.looks++
	return limit > 0 && now+slices.Max(r.growths[:]) > limit
}

// guardSlot watches a slot in the making, which holds back the log for as long as it waits
// for the transactions that run. It returns nil once ctx ends, and an error when it has ended
// the making because of source.max_retained_wal, or cannot watch.
func guardSlot(ctx context.Context, cfg *Config) error {
	conn, err := cfg.connect(ctx)
	if err != nil {
		if ctx.Err() != nil {
			return nil // the slot is made: nothing is left to guard
		}
		return err
	}
	defer hangUp(ctx, conn.PgConn())
	tick := time.NewTicker(cfg.StatusInterval)
	defer tick.Stop()
	account := newRetention()
	for {
		slot, err := inspectSlot(ctx, conn, cfg.Slot)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			return err
		}
		cfg.Metrics.retained.Set(float64(slot.retained))
		if account.passes(slot.retained, cfg.MaxRetainedWAL) {
			_, _ = conn.Exec(ctx, "SELECT pg_cancel_backend($1)", slot.activePID) // its connection is closed besides
			return &Error{
				Op: "create replication slot", On: cfg.Slot,
				Err: fmt.Errorf("while it waited for the transactions that run it held back %d bytes, and would soon have passed source.max_retained_wal = %d", slot.retained, cfg.MaxRetainedWAL),
				Fix: "end the transaction that has run for longest (pg_stat_activity.xact_start); it is tried again until then",
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}
