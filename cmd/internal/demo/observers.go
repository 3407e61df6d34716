package demo

import (
	"context"
	"fmt"
	"sync/atomic"

	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"example.com/tiffin/internal/devstack"
)

// topic reads the output topic as any consumer would.
type topic struct {
	client   *kgo.Client
	promises *promises
	input    string
	records  atomic.Int64
}

func openTopic(w *world, p *promises) (*topic, error) {
	client, err := kgo.NewClient(
		kgo.SeedBrokers(w.broker.Brokers()...), kgo.ConsumeTopics(w.settings.Kafka.Output),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.FetchIsolationLevel(kgo.ReadCommitted()),
	)
	if err != nil {
		return nil, fmt.Errorf("connect to the demo's broker: %w", err)
	}
	return &topic{client: client, promises: p, input: w.settings.Kafka.Input}, nil
}

func (t *topic) close() { t.client.Close() }

// follow counts records and looks after the promises until ctx ends.
func (t *topic) follow(ctx context.Context) error {
	for ctx.Err() == nil {
		fetches := t.client.PollFetches(ctx)
		if err := fetches.Err(); err != nil && ctx.Err() == nil {
			return fmt.Errorf("read the output topic: %w", err)
		}
		for iter := fetches.RecordIter(); !iter.Done(); {
			d, err := devstack.ParseDelivery(iter.Next().Value)
			if err != nil {
				return err
			}
			t.promises.delivered(d.CampaignID, d.Client)
			t.records.Add(1)
		}
	}
	return nil
}

// published is how many campaign messages the input topic holds, whoever sent them.
func (t *topic) published(ctx context.Context) (int64, error) {
	ends, err := kadm.NewClient(t.client).ListEndOffsets(ctx, t.input)
	if err != nil {
		return 0, fmt.Errorf("ask for the end of the input topic: %w", err)
	}
	var n int64
	ends.Each(func(end kadm.ListedOffset) { n += end.Offset })
	return n, nil
}

// table counts what is in the database. It is for one goroutine at a time.
type table struct {
	conn     *pgx.Conn
	feedback string
	source   string
	group    string
}

func openTable(ctx context.Context, w *world) (*table, error) {
	conn, err := w.connect(ctx)
	if err != nil {
		return nil, err
	}
	return &table{
		conn: conn, group: w.settings.Kafka.Group,
		feedback: w.settings.Feedback.Table.Identifier().Sanitize(), source: w.settings.Source.Table.Identifier().Sanitize(),
	}, nil
}

func (t *table) close() { _ = t.conn.Close(context.Background()) }

// count fills in what the database knows.
func (t *table) count(ctx context.Context, c *counts) error {
	sql := fmt.Sprintf("SELECT (SELECT count(*) FROM %s), (SELECT count(*) FROM tiffin.trigger WHERE consumer_group = $1), (SELECT count(*) FROM %s)", t.feedback, t.source)
	if err := t.conn.QueryRow(ctx, sql, t.group).Scan(&c.rows, &c.handled, &c.subscriptions); err != nil {
		return fmt.Errorf("count the feedback rows: %w", err)
	}
	return nil
}

// counts are the figures of one moment.
type counts struct {
	published, handled int64 // campaign messages
	records, rows      int64 // deliveries in either sink
	subscriptions      int64
}

// count asks both sinks. Rows are counted last: they are written first, so that in a moment without
// deliveries both are the same.
func (s *show) count(ctx context.Context) (c counts, err error) {
	if c.published, err = s.topic.published(ctx); err != nil {
		return c, err
	}
	c.records = s.topic.records.Load()
	return c, s.table.count(ctx, &c)
}
