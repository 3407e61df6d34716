package stream

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// ledger is the group's position in the feedback database: tiffin.progress, one row per
// partition. Its epoch says who may write; its next_offset moves in the transaction that
// writes the rows. Safe for concurrent use.
type ledger struct {
	pool  *pgxpool.Pool
	group string
	topic string
	owner string // names this process in the row, for a person to read
}

// entry is what a partition's row says.
type entry struct {
	epoch int64
	// next is the offset of the next message to handle.
	next int64
	// level is the offset below which both sinks are known to be equal, whatever Kafka
	// remembers: where the group began, or where a process gave the partition up in order.
	level int64
}

// claim raises the partition's epoch, so that whoever held it before can no longer write. ok
// is false when the ledger does not know the partition.
func (l *ledger) claim(ctx context.Context, partition int32) (e entry, ok bool, err error) {
	err = l.pool.QueryRow(ctx, `
		UPDATE tiffin.progress SET epoch = epoch + 1, owner = $4, updated_at = now()
		WHERE consumer_group = $1 AND topic = $2 AND partition = $3
		RETURNING epoch, next_offset, start_offset`,
		l.group, l.topic, partition, l.owner).Scan(&e.epoch, &e.next, &e.level)
	if errors.Is(err, pgx.ErrNoRows) {
		return entry{}, false, nil
	}
	if err != nil {
		return entry{}, false, fmt.Errorf("claim partition %d in the ledger: %w", partition, err)
	}
	return e, true, nil
}

// begin enters a partition that the ledger does not know yet, at offset next, and claims it.
// When another process was quicker its position stands.
func (l *ledger) begin(ctx context.Context, partition int32, next int64) (e entry, err error) {
	err = l.pool.QueryRow(ctx, `
		INSERT INTO tiffin.progress AS p (consumer_group, topic, partition, epoch, next_offset, start_offset, owner)
		VALUES ($1, $2, $3, 1, $4, $4, $5)
		ON CONFLICT (consumer_group, topic, partition)
		DO UPDATE SET epoch = p.epoch + 1, owner = excluded.owner, updated_at = now()
		RETURNING epoch, next_offset, start_offset`,
		l.group, l.topic, partition, next, l.owner).Scan(&e.epoch, &e.next, &e.level)
	if err != nil {
		return entry{}, fmt.Errorf("enter partition %d into the ledger: %w", partition, err)
	}
	return e, nil
}

// setLevel records that both sinks are equal below offset next, if the claim still holds and
// the ledger stands there.
func (l *ledger) setLevel(ctx context.Context, c *claim, next int64) error {
	_, err := l.pool.Exec(ctx, `
		UPDATE tiffin.progress SET start_offset = next_offset, updated_at = now()
		WHERE consumer_group = $1 AND topic = $2 AND partition = $3 AND epoch = $4 AND next_offset = $5`,
		l.group, l.topic, c.partition, c.epoch, next)
	if err != nil {
		return fmt.Errorf("settle partition %d in the ledger: %w", c.partition, err)
	}
	return nil
}

// moveTo sets a claimed partition's position, for an operator who chose to trust Kafka.
func (l *ledger) moveTo(ctx context.Context, partition int32, epoch, next int64) error {
	tag, err := l.pool.Exec(ctx, `
		UPDATE tiffin.progress SET next_offset = $5, start_offset = $5, updated_at = now()
		WHERE consumer_group = $1 AND topic = $2 AND partition = $3 AND epoch = $4`,
		l.group, l.topic, partition, epoch, next)
	if err != nil {
		return fmt.Errorf("move partition %d in the ledger: %w", partition, err)
	}
	if tag.RowsAffected() != 1 {
		return &FencedError{Partition: partition}
	}
	return nil
}

// positions returns next_offset of every partition that the ledger knows.
func (l *ledger) positions(ctx context.Context) (map[int32]int64, error) {
	rows, err := l.pool.Query(ctx, `
		SELECT partition, next_offset FROM tiffin.progress WHERE consumer_group = $1 AND topic = $2`, l.group, l.topic)
	if err != nil {
		return nil, fmt.Errorf("read the ledger: %w", err)
	}
	at := map[int32]int64{}
	var partition int32
	var next int64
	_, err = pgx.ForEachRow(rows, []any{&partition, &next}, func() error {
		at[partition] = next
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read the ledger: %w", err)
	}
	return at, nil
}

// record is a manifest row as recovery needs it.
type record struct {
	offset  int64
	outcome Outcome
	ids     idRanges
	fault   MalformedError // of a malformed message
}

// manifestPage bounds how many messages recovery holds in memory.
const manifestPage = 1000

func (l *ledger) manifest(ctx context.Context, partition int32, from, to int64) ([]record, error) {
	fail := func(err error) error {
		return fmt.Errorf("read the manifest of partition %d from %d to %d: %w", partition, from, to, err)
	}
	rows, err := l.pool.Query(ctx, `
		SELECT record_offset, outcome, coalesce(feedback_ids::text, '{}'), coalesce(reason, ''), coalesce(error, '')
		FROM tiffin.trigger
		WHERE consumer_group = $1 AND topic = $2 AND partition = $3 AND record_offset >= $4 AND record_offset < $5
		ORDER BY record_offset LIMIT $6`, l.group, l.topic, partition, from, to, manifestPage)
	if err != nil {
		return nil, fail(err)
	}
	var found []record
	var r record
	var ids string
	_, err = pgx.ForEachRow(rows, []any{&r.offset, &r.outcome, &ids, &r.fault.Reason, &r.fault.Text}, func() error {
		var err error
		r.ids, err = parseMultirange(ids)
		found = append(found, r)
		return err
	})
	if err != nil {
		return nil, fail(err)
	}
	return found, nil
}

// FencedError says that another process has taken the partition over: its epoch in
// tiffin.progress is higher, so nothing was written.
type FencedError struct {
	Partition int32
}

func (e *FencedError) Error() string {
	return fmt.Sprintf("partition %d was taken over by another process (its epoch in tiffin.progress moved on); nothing was written", e.Partition)
}
