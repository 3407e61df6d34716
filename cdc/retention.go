package cdc

import (
	"context"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
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

// guarded does what a slot holds back the log for while no warden looks at it: it is made, or the table is
// loaded. It returns why the guard has ended that, or could not watch, and what came of it.
func guarded(ctx context.Context, cfg *Config, giveUp giveUp, do func(context.Context) error) (held, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	guarding, stop := context.WithCancel(ctx)
	defer stop()
	watched := make(chan error, 1)
	go func() {
		err := guardSlot(guarding, cfg, giveUp)
		if err != nil {
			cancel()
		}
		watched <- err
	}()
	err = do(ctx)
	stop()
	return <-watched, err
}

// giveUp ends what a slot holds back the log for, and says why.
type giveUp func(ctx context.Context, cfg *Config, conn *pgx.Conn, slot slotFacts) error

// endMaking ends the making of a slot, which waits for the transactions that run.
func endMaking(ctx context.Context, cfg *Config, conn *pgx.Conn, slot slotFacts) error {
	_, _ = conn.Exec(ctx, "SELECT pg_cancel_backend($1)", slot.activePID) // its connection is closed besides
	return &Error{
		Op: "create replication slot", On: cfg.Slot,
		Err: fmt.Errorf("while it waited for the transactions that run it held back %d bytes, and would soon have passed source.max_retained_wal = %d", slot.retained, cfg.MaxRetainedWAL),
		Fix: "end the transaction that has run for longest (pg_stat_activity.xact_start); it is tried again until then",
	}
}

// endLoading drops the slot from which nobody reads while the table is loaded.
func endLoading(ctx context.Context, cfg *Config, conn *pgx.Conn, slot slotFacts) error {
	if err := dropIdle(ctx, cfg, conn, "retained_wal", slot.retained); err != nil {
		return err
	}
	return &Error{
		Op: "load table", On: cfg.Table,
		Err: fmt.Errorf("meanwhile slot %s held back %d bytes, and would soon have passed source.max_retained_wal = %d: it was dropped", cfg.Slot, slot.retained, cfg.MaxRetainedWAL),
		Fix: "allow as much as is written while the table is read; it is tried again",
	}
}

// guardSlot looks at the slot until ctx ends (nil), or until it has given it up because of
// source.max_retained_wal, or cannot look.
func guardSlot(ctx context.Context, cfg *Config, giveUp giveUp) error {
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
			return giveUp(ctx, cfg, conn, slot)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}
