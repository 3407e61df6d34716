package cdc

import (
	"context"
	"errors"
	"fmt"
	"time"

	"example.com/tiffin/cache"
)

// Difference is one place where the index and the table disagree.
type Difference struct {
	Restaurant string `json:"restaurant"`
	// Client is empty when it is the number of rows that differs.
	Client string `json:"client,omitempty"`
	Text   string `json:"difference"`
}

// AuditReport is what an audit compared.
type AuditReport struct {
	// Slot is the replication slot that the index was built through.
	Slot string
	// Position is where table and index were compared.
	Position    cache.LSN
	Rows        int64 // of the table, those with a NULL left out
	Restaurants int64
	// Resident are the restaurants whose clients were compared; of the others, which are not
	// in memory, the number of rows.
	Resident    int64
	Differences int64
}

// Audit builds an index of its own, by a load and through a slot, and compares it with the table as
// AuditRunning does. The slot is cfg.Slot; while a daemon holds that, one of the audit's own, which is
// dropped at the end. found is called for every difference.
func Audit(ctx context.Context, cfg Config, budget int64, found func(Difference) error) (AuditReport, error) {
	return audit(ctx, cfg, budget, found, func(i Index) Index { return i })
}

// audit is Audit with a place for a test to spoil the index.
func audit(ctx context.Context, cfg Config, budget int64, found func(Difference) error, spoil func(Index) Index) (report AuditReport, err error) {
	if err := borrowSlot(ctx, &cfg); err != nil {
		return report, err
	}
	source, err := NewSource(cfg)
	if err != nil {
		return report, err
	}
	defer source.Close()
	index, err := cache.New(cache.Config{Budget: budget}, source)
	if err != nil {
		return report, err
	}
	defer index.Close()
	reader, err := New(cfg, source, spoil(index))
	if err != nil {
		return report, err
	}
	running, stop := context.WithCancel(ctx)
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- reader.Run(running) }()
	if err = reader.awaitSync(ctx, ended); err == nil {
		report, err = reader.AuditRunning(ctx, index, AuditTo{Found: found})
	}
	stop()
	if gone := <-ended; err == nil {
		err = gone
	}
	return report, errors.Join(err, returnSlot(ctx, &cfg))
}

// auditSuffix makes the name of the slot that an audit uses beside a running daemon.
const auditSuffix = "_audit"

// borrowSlot chooses the slot: the daemon's if nobody holds it.
func borrowSlot(ctx context.Context, cfg *Config) error {
	conn, err := cfg.connect(ctx)
	if err != nil {
		return err
	}
	defer func() { hangUp(ctx, conn.PgConn()) }()
	slot, err := inspectSlot(ctx, conn, cfg.Slot)
	if err != nil {
		return err
	}
	if !slot.exists || slot.activePID != 0 {
		cfg.Slot += auditSuffix
		cfg.ownSlot, cfg.Failover = true, false // of no use after the audit
	}
	return nil
}

// returnSlot drops the slot that was made for the audit, and no other.
func returnSlot(ctx context.Context, cfg *Config) error {
	if !cfg.ownSlot {
		return nil
	}
	return removeSlot(ctx, cfg)
}

// awaitSync waits until the index follows the source, or the reader has ended.
func (r *Reader) awaitSync(ctx context.Context, ended chan error) error {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for len(r.Reasons()) > 0 {
		select {
		case <-tick.C:
		case err := <-ended:
			ended <- err // for whoever waits for the reader's end
			if err == nil {
				err = errors.New("the reader ended")
			}
			return err
		case <-ctx.Done():
			return fmt.Errorf("%w; %v", context.Cause(ctx), r.Reasons())
		}
	}
	return nil
}
