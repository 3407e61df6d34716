package stream_test

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"

	"example.com/tiffin/stream"
)

// While a campaign of 200,000 recipients goes out in ten transactions, those of other
// partitions get between its chunks: none waits for more than about one.
func TestSmallCampaignsPassALargeOne(t *testing.T) {
	t.Parallel()
	const recipients, chunk = 200_000, 20_000
	r := newRig(t, 2, map[string][]string{"large": clients(recipients), "small": {"c"}})
	r.cfg.MaxTransactionRecords = chunk
	registry := prometheus.NewRegistry()
	r.cfg.Registerer = registry
	r.onePartition()
	e, stop := r.start()
	r.publish(0, campaign("large", "l").json(t))
	r.eventually("the first chunk", func() bool { return r.sent(0) > 0 })
	if p := e.Progress(); len(p) != 1 || !strings.Contains(p[0], "of 200,000 records sent") {
		t.Errorf("progress %q: want one line that says how many of 200,000 records are sent", p)
	}
	if n := gauge(t, registry, "tiffin_lane_deliveries_left"); n <= 0 || n >= recipients {
		t.Errorf("%v deliveries left: want some of %d", n, recipients)
	}
	if e := r.explain(0); r.committed(0).At == 0 && (!e.UnderWay || e.Sent == nil || *e.Sent < chunk || *e.Sent >= recipients || *e.Sent%chunk != 0) {
		t.Errorf("explained as %+v: want it under way, some chunks of %d sent", e, chunk)
	}
	var ends []int64
	for r.committed(0).At == 0 {
		ends = append(ends, r.end(r.cfg.Kafka.Output))
		next := r.publish(1, campaign("small", fmt.Sprint(len(ends))).json(t)) + 1
		r.eventually("a small campaign", func() bool { return r.committed(1).At == next })
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	if e := r.explain(0); e.UnderWay || e.Sent == nil || *e.Sent != recipients {
		t.Errorf("explained as %+v at the end", e)
	}
	at := 0
	for _, rec := range r.records(r.cfg.Kafka.Output) {
		if string(rec.Key) != "c" {
			continue
		}
		// It waits for no chunk (TestSmallCampaignWaitsForNoChunk); two pass while it is delivered itself.
		if waited := rec.Offset - ends[at]; waited > 2*chunk {
			t.Errorf("small campaign %d: %d records came between its message and its record, want at most two chunks of %d", at, waited, chunk)
		}
		at++
	}
	t.Logf("%d small campaigns passed the large one", at)
	if at != len(ends) || at < 3 {
		t.Errorf("%d small campaigns were delivered of %d published: want all, and several", at, len(ends))
	}
	if rows := r.number(`SELECT count(*) FROM subscribers_feedback`); rows != recipients+at {
		t.Errorf("%d rows: want %d", rows, recipients+at)
	}
	if n := gauge(t, registry, "tiffin_lane_deliveries_left"); n != 0 {
		t.Errorf("%v deliveries left at the end", n)
	}
}

// A large campaign that waits for the feedback database holds up its own partition only.
func TestStuckLargeCampaignHoldsUpItsPartitionOnly(t *testing.T) {
	t.Parallel()
	r := newRig(t, 2, map[string][]string{"large": clients(100), "small": {"c"}})
	r.cfg.MaxTransactionRecords = 30
	r.untilNow() // the ledger knows the partitions
	_, stop := r.start()
	r.eventually("the claims", func() bool { return r.epoch(0) > 1 && r.epoch(1) > 1 })
	tx, err := r.db.Connect(t).Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), `SELECT FROM tiffin.progress WHERE partition = 0 FOR UPDATE`); err != nil {
		t.Fatal(err)
	}
	var want []delivery
	add := func(partition int32, restaurant, id string, to []string) {
		m := campaign(restaurant, id)
		offset := r.publish(partition, m.json(t))
		for _, c := range to {
			want = append(want, r.expect(m, partition, offset, c))
		}
	}
	add(0, "large", "stuck", clients(100))
	add(0, "small", "behind it", []string{"c"})
	for i := range 5 {
		add(1, "small", fmt.Sprint(i), []string{"c"})
		r.eventually("a small campaign of the other partition", func() bool { return r.committed(1).At == int64(i+1) })
	}
	if at := r.committed(0).At; at > 0 {
		t.Errorf("the stuck partition's offset is %d", at)
	}
	if err := tx.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.eventually("the large campaign and what was behind it", func() bool { return r.committed(0).At == 2 })
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	r.wantBoth(want)
}

// Partitions that change hands in the middle of large campaigns: whoever gets them goes on
// where the other stopped.
func TestLargeCampaignsChangeHands(t *testing.T) {
	t.Parallel()
	const recipients, partitions = 6_000, 2
	list := clients(recipients)
	r := newRig(t, partitions, map[string][]string{"large": list})
	r.cfg.MaxTransactionRecords = 25 // so that there is much left when another joins
	var want []delivery
	for p := range int32(partitions) {
		m := campaign("large", fmt.Sprint(p))
		r.publish(p, m.json(t))
		for _, c := range list {
			want = append(want, r.expect(m, p, 0, c))
		}
	}
	var goneOn atomic.Int32
	r.cfg.Log = slog.New(watching{r.cfg.Log.Handler(), "records rebuilt", &goneOn})
	_, stopFirst := r.start()
	r.eventually("chunks of both", func() bool { return r.sent(0) > 0 && r.sent(1) > 0 })
	_, stopSecond := r.start(func(c *stream.Config) { c.Kafka.InstanceID, c.Kafka.Process = "two", "two" })
	r.eventually("the end of both", func() bool { return r.committed(0).At == 1 && r.committed(1).At == 1 })
	for _, stop := range []func() error{stopFirst, stopSecond} {
		if err := stop(); err != nil {
			t.Fatal(err)
		}
	}
	r.wantBoth(want)
	if goneOn.Load() == 0 {
		t.Error("nobody went on where another had stopped: nothing was tested")
	}
}

// watching counts the log lines that contain a text.
type watching struct {
	slog.Handler
	text string
	n    *atomic.Int32
}

func (w watching) Handle(ctx context.Context, rec slog.Record) error {
	if strings.Contains(rec.Message, w.text) {
		w.n.Add(1)
	}
	return w.Handler.Handle(ctx, rec)
}

// onePartition makes the output topic one of a single partition, so that its offsets order
// all records.
func (r *rig) onePartition() {
	r.t.Helper()
	name := servers.Topic(r.t, "out", 1)
	r.cfg.Kafka.Output = name
}

// committed is the group's offset as it is now, also while a transaction is open.
func (r *rig) committed(partition int32) kadm.Offset {
	r.t.Helper()
	offsets, err := kadm.NewClient(r.admin).FetchOffsets(r.t.Context(), r.cfg.Kafka.Group)
	if err != nil && !kerr.IsRetriable(err) { // a new broker has no coordinator yet
		r.t.Fatal(err)
	}
	o, _ := offsets.Lookup(r.cfg.Kafka.Input, partition)
	return o.Offset
}

// sent is how many records of a large campaign the group's offset says are out.
func (r *rig) sent(partition int32) (n int) {
	r.t.Helper()
	_, _ = fmt.Sscanf(r.committed(partition).Metadata, "tiffin sent=%d", &n)
	return n
}

// explain tells of a message of partition 0, the brokers asked.
func (r *rig) explain(offset int64) stream.Explanation {
	r.t.Helper()
	e, err := stream.Explain(r.t.Context(), r.db.Connect(r.t), r.cfg.Kafka.Group, r.trigger(offset), r.cfg.FeedbackTable, nil)
	if err != nil {
		r.t.Fatal(err)
	}
	comparer, err := stream.NewComparer(r.cfg.Kafka)
	if err != nil {
		r.t.Fatal(err)
	}
	defer comparer.Close()
	group, err := comparer.Offsets(r.t.Context())
	if err != nil {
		r.t.Fatal(err)
	}
	group.Tell(&e)
	return e
}

// end is where a topic of one partition ends.
func (r *rig) end(topic string) int64 {
	r.t.Helper()
	ends, err := kadm.NewClient(r.admin).ListEndOffsets(r.t.Context(), topic)
	if err != nil {
		r.t.Fatal(err)
	}
	o, _ := ends.Lookup(topic, 0)
	return o.Offset
}

// number asks the feedback database for one, over a connection that it keeps.
func (r *rig) number(sql string, args ...any) (n int) {
	r.t.Helper()
	if r.conn == nil {
		r.conn = r.db.Connect(r.t)
	}
	if err := r.conn.QueryRow(r.t.Context(), sql, args...).Scan(&n); err != nil {
		r.t.Fatal(err)
	}
	return n
}

// epoch is that of a partition's claim.
func (r *rig) epoch(partition int32) int {
	r.t.Helper()
	return r.number(`SELECT epoch FROM tiffin.progress WHERE partition = $1`, partition)
}

func gauge(t *testing.T, registry *prometheus.Registry, name string) float64 {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == name {
			return f.GetMetric()[0].GetGauge().GetValue()
		}
	}
	t.Fatalf("no metric %s", name)
	return 0
}
