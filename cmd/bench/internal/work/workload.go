// Package work is what a contender has to do, the least that it can cost, and whether it was done.
// Its one rule: the expected deliveries are computed from the workload alone, never from what a
// contender says.
package work

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kgo"

	"example.com/tiffin/cmd/bench/internal/testbed"
	"example.com/tiffin/internal/devstack"
)

// Shape describes a workload. Fewer campaigns than restaurants are spread over all of them.
type Shape struct {
	Campaigns     int
	Restaurants   int
	Subscriptions int     // of all restaurants together
	Clients       int     // 0: a fifth of Subscriptions, and no fewer than a restaurant has
	Zipf          float64 // 0: every restaurant has the same number
	Partitions    int     // of every topic; 0: 4
}

// defaultPartitions are two for each core that the figures are of.
const defaultPartitions = 4

// Workload is a shape with its content. Its methods may be called from several goroutines.
type Workload struct {
	Shape
	made      devstack.Campaigns
	plan      devstack.Subscriptions
	source    layout
	step      int      // from the restaurant of a campaign to that of the next
	clientIDs []string // made once: nobody's clock is to run for them
}

// New computes the workload; its campaigns are active at now.
func New(shape Shape, now time.Time) (*Workload, error) {
	if shape.Clients == 0 {
		shape.Clients = max(1, shape.Subscriptions/5, 2*shape.Subscriptions/shape.Restaurants)
		if shape.Zipf > 0 {
			shape.Clients = shape.Subscriptions
		}
	}
	if shape.Partitions == 0 {
		shape.Partitions = defaultPartitions
	}
	w := &Workload{
		Shape: shape, made: devstack.Campaigns{Seed: 42, Now: now},
		plan: devstack.Subscriptions{Seed: 7, Rows: shape.Subscriptions, Restaurants: shape.Restaurants, Clients: shape.Clients, Zipf: shape.Zipf},
	}
	table, err := w.plan.Layout()
	if err != nil {
		return nil, err
	}
	w.source, w.step = table, max(1, w.Restaurants/max(1, w.Campaigns))
	w.clientIDs = make([]string, shape.Clients)
	for n := range w.clientIDs {
		w.clientIDs[n] = w.source.Client(n)
	}
	return w, nil
}

// restaurant is the number of campaign n's.
func (w *Workload) restaurant(n int) int {
	return int(int64(n) * int64(w.step) % int64(w.Restaurants))
}

// Fanout is the number of recipients of campaign n.
func (w *Workload) Fanout(n int) int { return w.source.Fanout(w.restaurant(n)) }

// Deliveries is the number of all recipients of campaigns from up to to, that excluded.
func (w *Workload) Deliveries(from, to int) int {
	sum := 0
	for n := from; n < to; n++ {
		sum += w.Fanout(n)
	}
	return sum
}

// Campaign is the n-th one.
func (w *Workload) Campaign(n int) devstack.Campaign {
	return w.made.Campaign(n, w.source.Restaurant(w.restaurant(n)))
}

// Recipients are the clients of campaign n.
func (w *Workload) Recipients(n int) []string {
	restaurant := w.restaurant(n)
	list := make([]string, w.source.Fanout(restaurant))
	for i := range list {
		list[i] = w.clientIDs[w.source.Subscriber(restaurant, i)]
	}
	return list
}

// envelope is the value of campaign n's records before and behind the client id.
func (w *Workload) envelope(n int, trigger int64) (head, tail []byte, err error) {
	const client = "CLIENT" // no campaign has it
	var value bytes.Buffer
	encoder := json.NewEncoder(&value)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(w.Campaign(n).Delivery(client, trigger)); err != nil {
		return nil, nil, fmt.Errorf("encode campaign %d: %w", n, err)
	}
	head, tail, _ = bytes.Cut(bytes.TrimSpace(value.Bytes()), []byte(client))
	return head, tail, nil
}

// LoadSource fills the stage's source table.
func (w *Workload) LoadSource(ctx context.Context, stage *testbed.Stage) error {
	conn, err := pgx.Connect(ctx, stage.SourceDSN)
	if err != nil {
		return fmt.Errorf("connect to the source database: %w", err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	if _, err := w.plan.Load(ctx, conn, pgx.Identifier{"public", "subscribers_restaurants"}); err != nil {
		return err
	}
	return analyze(ctx, conn)
}

// analyze does what autovacuum would do sooner or later, in the middle of somebody's run: peers ask the
// table, and are to be planned for alike.
func analyze(ctx context.Context, conn *pgx.Conn) error {
	if _, err := conn.Exec(ctx, "VACUUM (ANALYZE) subscribers_restaurants"); err != nil {
		return fmt.Errorf("analyze the source table: %w", err)
	}
	return nil
}

// Publish spreads campaigns from up to to (that excluded) evenly over the partitions.
func (w *Workload) Publish(ctx context.Context, stage *testbed.Stage, from, to int) error {
	client, err := kgo.NewClient(kgo.SeedBrokers(stage.Brokers...), kgo.DefaultProduceTopic(stage.Input), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		return fmt.Errorf("publish the campaigns: %w", err)
	}
	defer client.Close()
	var faults kgo.FirstErrPromise
	for n := from; n < to; n++ {
		client.Produce(ctx, w.Record(n), faults.Promise())
	}
	if err := errors.Join(client.Flush(ctx), faults.Err()); err != nil {
		return fmt.Errorf("publish the campaigns: %w", err)
	}
	return nil
}

// Record is campaign n's, for the topic that the producer knows and a manual partitioner.
func (w *Workload) Record(n int) *kgo.Record {
	return &kgo.Record{Value: w.Campaign(n).JSON(), Partition: int32(n % w.Partitions)}
}
