package stream

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/pgxpool"
)

// ledger is the group's position in the feedback database: tiffin.progress, one row per
// partition. Its epoch says who may write; its next_offset moves in the transaction that
// writes the rows. Safe for concurrent use.
type ledger struct {
	pool  *pgxpool.Pool
	group string
	topic string
	owner string // names this process in the row
}

// entry is what a partition's row says.
type entry struct {
	epoch int64
	// next is the offset of the next message to handle.
	next int64
	// level is the offset below which both sinks are known to be equal, whatever Kafka
	// remembers: where the group began, or where a process gave the partition up in order.
	level int64
	// topicID is Kafka's id of the topic that the offsets are of (KIP-516); zero where the
	// brokers had none.
	topicID [16]byte
}

// claim raises the partition's epoch, so that whoever held it before can no longer write. The
// topic's id is entered where there was none yet. ok is false when the ledger does not know
// the partition.
func (l *ledger) claim(ctx context.Context, partition int32, topicID [16]byte) (e entry, ok bool, err error) {
	var id pgtype.UUID
	err = l.pool.QueryRow(ctx, `
		UPDATE tiffin.progress SET epoch = epoch + 1, owner = $4, topic_id = coalesce(topic_id, $5), updated_at = now()
		WHERE consumer_group = $1 AND topic = $2 AND partition = $3
		RETURNING epoch, next_offset, start_offset, topic_id`,
		l.group, l.topic, partition, l.owner, nullable(topicID)).Scan(&e.epoch, &e.next, &e.level, &id)
	if errors.Is(err, pgx.ErrNoRows) {
		return entry{}, false, nil
	}
	if err != nil {
		return entry{}, false, fmt.Errorf("claim partition %d in the ledger: %w", partition, err)
	}
	e.topicID = id.Bytes
	return e, true, nil
}

func nullable(topicID [16]byte) pgtype.UUID {
	return pgtype.UUID{Bytes: topicID, Valid: topicID != [16]byte{}}
}

// begin enters the partitions that the ledger does not know yet, each at its offset, all or
// none. When another process was quicker its positions stand. Nothing is claimed.
func (l *ledger) begin(ctx context.Context, starts map[int32]int64, topicID [16]byte) error {
	partitions, offsets := make([]int32, 0, len(starts)), make([]int64, 0, len(starts))
	for _, p := range slices.Sorted(maps.Keys(starts)) {
		partitions, offsets = append(partitions, p), append(offsets, starts[p])
	}
	_, err := l.pool.Exec(ctx, `
		INSERT INTO tiffin.progress (consumer_group, topic, partition, epoch, next_offset, start_offset, owner, topic_id)
		SELECT $1, $2, partition, 0, next, next, $5, $6 FROM unnest($3::int4[], $4::int8[]) AS n(partition, next)
		ON CONFLICT (consumer_group, topic, partition) DO NOTHING`,
		l.group, l.topic, partitions, offsets, l.owner, nullable(topicID))
	if err != nil {
		return fmt.Errorf("enter partitions %v into the ledger: %w", partitions, err)
	}
	return nil
}

// setAside begins a claimed partition anew at offset next, as one of the topic with this id.
// The manifest of the messages from first on, whose offsets will come again, is kept under the
// topic's name with @ and the epoch behind it.
func (l *ledger) setAside(ctx context.Context, partition int32, epoch, first, next int64, topicID [16]byte) (n int64, err error) {
	fail := func(err error) (int64, error) {
		return 0, fmt.Errorf("set the manifest of partition %d aside: %w", partition, err)
	}
	tx, err := l.pool.Begin(ctx)
	if err != nil {
		return fail(err)
	}
	defer func() { _ = tx.Rollback(context.WithoutCancel(ctx)) }() // nothing after a commit
	tag, err := tx.Exec(ctx, `
		UPDATE tiffin.progress SET next_offset = $5, start_offset = $5, topic_id = $6, updated_at = now()
		WHERE consumer_group = $1 AND topic = $2 AND partition = $3 AND epoch = $4`,
		l.group, l.topic, partition, epoch, next, nullable(topicID))
	if err != nil {
		return fail(err)
	}
	if tag.RowsAffected() != 1 {
		return 0, &FencedError{Partition: partition}
	}
	if tag, err = tx.Exec(ctx, `
		UPDATE tiffin.trigger SET topic = $5 WHERE consumer_group = $1 AND topic = $2 AND partition = $3 AND record_offset >= $4`,
		l.group, l.topic, partition, first, fmt.Sprintf("%s@%d", l.topic, epoch)); err != nil {
		return fail(err)
	}
	if err := tx.Commit(ctx); err != nil {
		return fail(err)
	}
	return tag.RowsAffected(), nil
}

// otherGroups names the groups, but for this one, that the ledger knows of the topic.
func (l *ledger) otherGroups(ctx context.Context) ([]string, error) {
	rows, err := l.pool.Query(ctx, `
		SELECT DISTINCT consumer_group FROM tiffin.progress WHERE topic = $1 AND consumer_group <> $2 ORDER BY 1`, l.topic, l.group)
	if err != nil {
		return nil, fmt.Errorf("read the ledger: %w", err)
	}
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, fmt.Errorf("read the ledger: %w", err)
	}
	return names, nil
}

// notLevel is the level of a partition whose sinks are not equal.
const notLevel = -1

// giveUp records that this process has nothing more to do with the partition, and that both
// sinks are equal below offset level, if the claim still holds and the ledger stands there.
func (l *ledger) giveUp(ctx context.Context, c *claim, level int64) error {
	_, err := l.pool.Exec(ctx, `
		UPDATE tiffin.progress SET owner = '', start_offset = CASE next_offset WHEN $5 THEN next_offset ELSE start_offset END, updated_at = now()
		WHERE consumer_group = $1 AND topic = $2 AND partition = $3 AND epoch = $4`,
		l.group, l.topic, c.partition, c.epoch, level)
	if err != nil {
		return fmt.Errorf("give partition %d up in the ledger: %w", c.partition, err)
	}
	return nil
}

func (l *ledger) endSessions(ctx context.Context, process string) (int, error) {
	return endSessions(ctx, l.pool, l.group, process)
}

// owners are the processes that took the partitions and did not give them up.
func (l *ledger) owners(ctx context.Context, partitions []int32) ([]string, error) {
	rows, err := l.pool.Query(ctx, `
		SELECT DISTINCT owner FROM tiffin.progress WHERE consumer_group = $1 AND topic = $2 AND partition = ANY($3) AND owner <> ''`,
		l.group, l.topic, partitions)
	if err != nil {
		return nil, fmt.Errorf("read the owners of partitions in the ledger: %w", err)
	}
	owners, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, fmt.Errorf("read the owners of partitions in the ledger: %w", err)
	}
	return owners, nil
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
	trace   traceContext
	// restaurant, campaign and now are what its rows must tell; nil where the message could not be read.
	restaurant, campaign *string
	now                  *int64
}

// manifestPage bounds how many messages recovery holds in memory.
const manifestPage = 1000

func (l *ledger) manifest(ctx context.Context, partition int32, from, to int64) ([]record, error) {
	fail := func(err error) error {
		return fmt.Errorf("read the manifest of partition %d from %d to %d: %w", partition, from, to, err)
	}
	rows, err := l.pool.Query(ctx, `
		SELECT record_offset, outcome, coalesce(feedback_ids::text, '{}'), coalesce(reason, ''), coalesce(error, ''),
			coalesce(traceparent, ''), coalesce(tracestate, ''), restaurant_id, adv_campaign_id, trigger_datetime_created
		FROM tiffin.trigger
		WHERE consumer_group = $1 AND topic = $2 AND partition = $3 AND record_offset >= $4 AND record_offset < $5
		ORDER BY record_offset LIMIT $6`, l.group, l.topic, partition, from, to, manifestPage)
	if err != nil {
		return nil, fail(err)
	}
	var found []record
	var r record
	var ids string
	into := []any{&r.offset, &r.outcome, &ids, &r.fault.Reason, &r.fault.Text, &r.trace.parent, &r.trace.state, &r.restaurant, &r.campaign, &r.now}
	_, err = pgx.ForEachRow(rows, into, func() error {
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
