package stream

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// Standing is how far both sinks are in one partition of the input topic.
type Standing struct {
	Partition int32
	// Ledger is the first offset that is not in the feedback database, Group the first that the
	// group has not committed in Kafka: between them lie the messages that Kafka still lacks. A
	// Group above Ledger is a feedback database that lacks rows.
	Ledger, Group int64
	// Owed are the records that these messages still make, dead letters included.
	Owed int64
}

// owedAtMost bounds the messages of a partition whose records are counted: an operator may have
// set the group's offset back to the beginning.
const owedAtMost = 100_000

// Comparer asks both sinks how far they are. It only reads, and keeps one client of the brokers,
// made at the first question. Safe for concurrent use, but for Close.
type Comparer struct {
	kafka KafkaConfig
	mu    sync.Mutex // of cl's making
	cl    *kgo.Client
}

// NewComparer connects to nothing yet.
func NewComparer(kafka KafkaConfig) (*Comparer, error) {
	kafka.setDefaults()
	if err := errors.Join(kafka.validate()...); err != nil {
		return nil, fmt.Errorf("comparer config: %w", err)
	}
	return &Comparer{kafka: kafka}, nil
}

// Close ends the client.
func (c *Comparer) Close() {
	if c.cl != nil {
		c.cl.Close()
	}
}

// GroupOffsets are what a group has committed, and what to lay beside it.
type GroupOffsets struct {
	group, topic  string
	partitions    []int32
	offsets, sent []int64
}

// Offsets asks the group. It must be asked before the ledger is: what is handled meanwhile is then
// never taken for a ledger that lies behind.
func (c *Comparer) Offsets(ctx context.Context) (*GroupOffsets, error) {
	cl, err := c.client()
	if err != nil {
		return nil, err
	}
	resp, err := kadm.NewClient(cl).FetchOffsetsForTopics(ctx, c.kafka.Group, c.kafka.Input)
	if err != nil {
		return nil, fmt.Errorf("offsets of group %s: %w", c.kafka.Group, err)
	}
	k := &GroupOffsets{group: c.kafka.Group, topic: c.kafka.Input}
	for partition, o := range resp[c.kafka.Input] {
		if o.Err != nil {
			return nil, fmt.Errorf("offsets of group %s, partition %d: %w", c.kafka.Group, partition, o.Err)
		}
		if o.At < 0 {
			continue
		}
		out, err := parseSent(&o.Metadata)
		if err != nil {
			return nil, err
		}
		k.partitions, k.offsets, k.sent = append(k.partitions, partition), append(k.offsets, o.At), append(k.sent, out)
	}
	return k, nil
}

func (c *Comparer) client() (_ *kgo.Client, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cl == nil {
		c.cl, err = c.kafka.newClient()
	}
	return c.cl, err
}

// Tell fills in how much of a message is out. The group's offset says so: it moves in the transaction
// of the records, and while a campaign takes several its metadata counts them. It is asked after the
// manifest, so that what was just finished is not told as under way. A message of another topic, or of
// a partition of which the group has no offset any more, is left as it is: nobody knows.
func (k *GroupOffsets) Tell(e *Explanation) {
	topic, partition, offset, err := ParseTrigger(e.Trigger)
	i := slices.Index(k.partitions, partition)
	if err != nil || topic != k.topic || i < 0 {
		return
	}
	all, sent := e.Records(), int64(0)
	switch {
	case offset < k.offsets[i]:
		sent = all
	case offset == k.offsets[i]:
		sent = min(k.sent[i], all)
	}
	e.Sent, e.UnderWay = &sent, all > 0 && offset >= k.offsets[i]
}

// Beside returns the standing of each partition that the ledger knows, in order. A partition of
// which the group has committed nothing yet stands where the group began.
func (k *GroupOffsets) Beside(ctx context.Context, db Querier) ([]Standing, error) {
	rows, err := db.Query(ctx, `
		SELECT p.partition, p.next_offset, coalesce(k.at, p.start_offset), CASE WHEN p.next_offset > coalesce(k.at, p.start_offset) THEN greatest(0, (
			SELECT coalesce(sum(o.records), 0)::int8 FROM (
				SELECT t.recipients + (t.outcome = 'malformed')::int AS records FROM tiffin.trigger t
				WHERE t.consumer_group = p.consumer_group AND t.topic = p.topic AND t.partition = p.partition
				AND t.record_offset >= coalesce(k.at, p.start_offset) AND t.record_offset < p.next_offset
				ORDER BY t.record_offset LIMIT $6) o) - coalesce(k.sent, 0)) ELSE 0 END
		FROM tiffin.progress p LEFT JOIN unnest($3::int4[], $4::int8[], $5::int8[]) AS k(partition, at, sent) USING (partition)
		WHERE p.consumer_group = $1 AND p.topic = $2 ORDER BY p.partition`,
		k.group, k.topic, k.partitions, k.offsets, k.sent, owedAtMost)
	if err != nil {
		return nil, fmt.Errorf("read the ledger: %w", err)
	}
	all, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (s Standing, err error) {
		err = row.Scan(&s.Partition, &s.Ledger, &s.Group, &s.Owed)
		return s, err
	})
	if err != nil {
		return nil, fmt.Errorf("read the ledger: %w", err)
	}
	return all, nil
}
