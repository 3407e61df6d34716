package stream

import (
	"context"
	"encoding/binary"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/pgxpool"
)

// store is the feedback database as a session sees it. feedback is the one that ships.
// deliver is called from one goroutine; everything else may be called beside it.
type store interface {
	ledgerStore
	manifestStore
	// deliver commits a batch in one transaction, or nothing of it: the ledger's new
	// positions under their epochs, the rows, the manifest. The triggers learn their ids.
	// It commits when mayCommit is closed. After an error the outcome may be unknown; a
	// FencedError says that nothing was written.
	deliver(ctx context.Context, b *batch, mayCommit <-chan struct{}) error
	ping(ctx context.Context) error
	close(ctx context.Context)
}

// ledgerStore is tiffin.progress.
type ledgerStore interface {
	claim(ctx context.Context, partition int32) (e entry, known bool, err error)
	begin(ctx context.Context, partition int32, next int64) (entry, error)
	moveTo(ctx context.Context, partition int32, epoch, next int64) error
	setLevel(ctx context.Context, c *claim, next int64) error
	positions(ctx context.Context) (map[int32]int64, error)
}

// manifestStore is tiffin.trigger and the rows that it leads to.
type manifestStore interface {
	// manifest returns the first messages (a page of them) of a partition handled in
	// [from, to), in offset order; none when there are no more.
	manifest(ctx context.Context, partition int32, from, to int64) ([]record, error)
	// rows calls each for the feedback rows of a run of ids, ascending.
	rows(ctx context.Context, run idRange, each func(row) error) error
}

// row is a feedback row. The texts are valid until each returns.
type row struct {
	id     int64
	shared [sharedColumns][]byte // what all rows of a trigger have alike, in binary form
	client []byte
}

// sharedColumns are the eight fields of the campaign and the time of the join.
const sharedColumns = 9

func (r *row) campaign() (c Campaign, now int64) {
	s := &r.shared
	number := func(i int) int64 { return int64(binary.BigEndian.Uint64(s[i])) }
	return Campaign{
		RestaurantID: string(s[0]), ID: string(s[1]), Content: string(s[2]), Owner: string(s[3]), OwnerContact: string(s[4]),
		Start: number(5), End: number(6), Created: number(7),
	}, number(8)
}

// feedback is the real store: a pool for the ledger and recovery, one connection for the
// batches.
type feedback struct {
	ledger
	*writer
	table string
}

// openFeedback connects, readies the database and prepares the statements.
func openFeedback(ctx context.Context, c *Config) (store, error) {
	cfg, err := pgxpool.ParseConfig(c.FeedbackDSN)
	if err != nil {
		return nil, &SettingError{err}
	}
	cfg.MaxConns = 4 // claims, recovery, the probe
	tune(cfg.ConnConfig)
	conn, err := pgx.ConnectConfig(ctx, cfg.ConnConfig)
	if err != nil {
		return nil, err
	}
	f := &feedback{table: c.FeedbackTable.Sanitize()}
	if c.Prepare != nil {
		err = c.Prepare(ctx, conn)
	}
	if err == nil {
		f.writer, err = newWriter(ctx, conn, c.Kafka.Group, c.Kafka.Input, c.FeedbackTable)
	}
	if err == nil {
		f.ledger = ledger{group: c.Kafka.Group, topic: c.Kafka.Input, owner: c.Kafka.Process}
		f.pool, err = pgxpool.NewWithConfig(ctx, cfg)
	}
	if err != nil {
		_ = conn.Close(ctx)
		return nil, err
	}
	return f, nil
}

func tune(c *pgx.ConnConfig) {
	c.ConnectTimeout = 5 * time.Second
	for name, value := range map[string]string{
		"application_name": "tiffin",
		// A lock that somebody holds on the table (an ALTER) becomes an error that names it.
		"lock_timeout": "30s",
	} {
		if c.RuntimeParams[name] == "" {
			c.RuntimeParams[name] = value
		}
	}
}

func (f *feedback) ping(ctx context.Context) error { return f.pool.Ping(ctx) }

func (f *feedback) close(ctx context.Context) {
	f.writer.close(ctx)
	f.pool.Close()
}

func (f *feedback) rows(ctx context.Context, run idRange, each func(row) error) error {
	rows, err := f.pool.Query(ctx, `SELECT id::int8, restaurant_id::text, adv_campaign_id::text, adv_campaign_content::text,
			adv_campaign_owner::text, adv_campaign_owner_contact::text, adv_campaign_datetime_start::int8,
			adv_campaign_datetime_end::int8, datetime_created::int8, trigger_datetime_created::int8, client_id::text
		FROM `+f.table+` WHERE id >= $1 AND id <= $2 ORDER BY id`,
		pgx.QueryResultFormats{pgtype.BinaryFormatCode}, run.first, run.last)
	if err != nil {
		return fmt.Errorf("read feedback rows %d to %d: %w", run.first, run.last, err)
	}
	defer rows.Close()
	for rows.Next() {
		values := rows.RawValues()
		r := row{id: int64(binary.BigEndian.Uint64(values[0])), client: values[sharedColumns+1]}
		copy(r.shared[:], values[1:])
		if err := each(r); err != nil {
			return err
		}
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("read feedback rows %d to %d: %w", run.first, run.last, err)
	}
	return nil
}
