package stream

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"example.com/tiffin/cache"
)

// crashWorld is brokers and a feedback database in memory, and one process after the other that
// delivers from the ones into the others.
type crashWorld struct {
	network    kfake.VirtualNetwork
	cluster    *kfake.Cluster
	store      *memory
	sink       crashSink // store, or a real database
	kind       crashKind
	life       int
	index      *cache.Index
	fault      *fault
	deliveries int
	letters    int
	// onlyRecords are those whose rows were lost, or set aside.
	onlyRecords []string
	// interrupted counts the sessions that ended by a fault.
	interrupted int
}

// crashSink is what is asked of the feedback database at the end.
type crashSink interface {
	open(ctx context.Context, c *Config) (store, error)
	lines(t *testing.T) []string // as records are shown
	next(t *testing.T) map[int32]int64
	whole(t *testing.T) // reports what is half written
}

type nobody struct{}

func (nobody) ReadRestaurant(context.Context, string, func([]byte) error) (cache.Snapshot, error) {
	return cache.Snapshot{}, errors.New("nothing is evicted here")
}

func (nobody) Wait(context.Context) (cache.Mark, error) { return cache.Mark{LSN: 7}, nil }

func newCrashWorld(t *testing.T, kind crashKind) *crashWorld {
	t.Helper()
	w := &crashWorld{kind: kind, store: newMemory(), fault: newFault()}
	var err error
	w.cluster, err = kfake.NewCluster(append(kind.brokers(), kfake.NumBrokers(1), kfake.Ports(9092), kfake.ListenFn(w.network.Listen),
		kfake.SeedTopics(crashPartitions, "in"), kfake.SeedTopics(2, "out"), kfake.SeedTopics(1, "dead"))...)
	if err != nil {
		t.Fatal(err)
	}
	w.sink = w.store
	w.store.before = func(effect string) error { return w.fault.on(effect, true) }
	w.store.after = func(effect string) error { return w.fault.on(effect, false) }
	w.store.levelled = func(partition int32, next int64) {
		if t.Context().Err() != nil {
			return // the test is over, and has said why
		}
		if at := w.offsets(t)[partition]; at != next {
			t.Errorf("partition %d is said to be level at %d; the group's offset is %d", partition, next, at)
		}
	}
	w.fill(t)
	return w
}

// subscribe gives a life its index, with clients that no other life has: what was stored
// before may not be joined again.
func (w *crashWorld) subscribe(t *testing.T, life int) {
	t.Helper()
	if w.index != nil {
		w.index.Close()
	}
	var err error
	if w.index, err = cache.New(cache.Config{Budget: 1 << 20}, nobody{}); err != nil {
		t.Fatal(err)
	}
	load := w.index.BeginLoad(false)
	for restaurant, fan := range fans() {
		for i := range fan {
			if err := load.Add(0, []byte(restaurant), fmt.Appendf(nil, "client %d of life %d", i, life)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := load.Finish(cache.Snapshot{Xmin: 5, Xmax: 5}); err != nil {
		t.Fatal(err)
	}
}

// campaignJSON takes the restaurant, the campaign's id and its end.
const campaignJSON = `{"restaurant_id":%q,"adv_campaign_id":%q,"adv_campaign_content":"","adv_campaign_owner":"","adv_campaign_owner_contact":"",` +
	`"adv_campaign_datetime_start":0,"adv_campaign_datetime_end":%d,"datetime_created":1}`

// fans are how many clients each restaurant has.
// Two of the middle ones are two batches, one being inserted while the other is committed.
func fans() map[string]int { return map[string]int{"small": 2, "middle": 8, "large": 25, "none": 0} }

// crashPartitions are those of the input: one more than there are lanes.
const crashPartitions = maxLanes + 1

// filling is the restaurant of each message, the partitions taking turns; none for no message.
// With a real database there are fewer: each is more statements.
func (k crashKind) filling() []string {
	if k.database != nil {
		return []string{
			"small", "small", "large", "",
			"bad", "none", "small", "",
			"middle", "middle", "middle", "",
		}
	}
	return []string{
		"small", "small", "large", "large",
		"bad", "large", "small", "",
		"large", "none", "small", "",
		"small", "over", "bad", "",
		"middle", "middle", "middle", "",
		"", "small", "", "",
	}
}

// fill publishes messages: small ones, one that takes several transactions, two of the same
// content, malformed and inactive ones.
func (w *crashWorld) fill(t *testing.T) {
	t.Helper()
	cl := w.client(t)
	defer cl.Close()
	for i, restaurant := range w.kind.filling() {
		if restaurant == "" {
			continue
		}
		value := fmt.Sprintf(campaignJSON, restaurant, "same", int64(99999999999))
		switch restaurant {
		case "bad":
			value = "garbage"
			w.letters++
		case "over":
			value = fmt.Sprintf(campaignJSON, restaurant, "same", 1)
		}
		if err := cl.ProduceSync(t.Context(), &kgo.Record{Topic: "in", Partition: int32(i % crashPartitions), Value: []byte(value)}).FirstErr(); err != nil {
			t.Fatal(err)
		}
		w.deliveries += fans()[restaurant]
	}
}

// run is one life of a process, which may end early.
func (w *crashWorld) run(t *testing.T) {
	t.Helper()
	cfg := w.config()
	w.store.process = cfg.Kafka.Process
	e, err := New(cfg, w.index, nobody{})
	if err != nil {
		t.Fatal(err)
	}
	e.openStore = w.sink.open
	e.patience = 0 // lanes are cut at once
	ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
	defer cancel()
	defer context.AfterFunc(w.fault.died, cancel)()
	asked := w.fault.asked // to stop
	defer context.AfterFunc(asked, cancel)()
	err = e.Run(ctx)
	w.interrupted += interruptions(t, e)
	if !w.fault.isDead() && (err != nil || ctx.Err() != nil && asked.Err() == nil) {
		t.Fatalf("run: %v, %v, %v", err, ctx.Err(), e.Reasons())
	}
}

// memoryClient are the options of clients whose brokers are in memory, thousands of them in a test:
// without what such brokers have no use for, and with which the race detector spends its time.
func memoryClient(opts ...kgo.Opt) []kgo.Opt {
	return append(opts, kgo.WithCompressor(nil), kgo.ProducerBatchCompression(kgo.NoCompression()), kgo.DisableClientMetrics())
}

func (w *crashWorld) config() Config {
	c := Config{
		Kafka: KafkaConfig{
			Brokers: []string{"127.0.0.1:9092"}, Group: "g", InstanceID: "one", Process: "one",
			Input: "in", Output: "out", DeadLetter: "dead", Start: StartEarliest,
			Options: memoryClient(kgo.Dialer(w.dial)),
		},
		FeedbackDSN: "host=memory", FeedbackTable: []string{"t"}, MaxTransactionRecords: 10, UntilNow: true,
		Log: slog.New(slog.DiscardHandler),
	}
	if w.kind.plain {
		c.Mode = AtLeastOnce
	}
	if w.kind.successors {
		c.Kafka.Process = fmt.Sprint("process ", w.life)
		c.Kafka.InstanceID = c.Kafka.Process
	}
	if w.kind.config != nil && w.life > 0 {
		w.kind.config(&c)
	}
	return c
}

func interruptions(t *testing.T, e *Engine) (n int) {
	t.Helper()
	for _, sink := range []string{sinkPostgres, sinkKafka} {
		var m dto.Metric
		if err := e.metrics.retries.WithLabelValues(sink).Write(&m); err != nil {
			t.Fatal(err)
		}
		n += int(m.GetCounter().GetValue())
	}
	return n
}

func (w *crashWorld) dial(ctx context.Context, network, address string) (net.Conn, error) {
	if w.fault.isDead() {
		return nil, errDead
	}
	conn, err := w.network.DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	f := &faultConn{Conn: conn, fault: w.fault}
	w.fault.track(f)
	return f, nil
}

func (w *crashWorld) client(t *testing.T, opts ...kgo.Opt) *kgo.Client {
	t.Helper()
	cl, err := kgo.NewClient(append(opts, kgo.SeedBrokers("127.0.0.1:9092"), kgo.Dialer(w.network.DialContext),
		kgo.RecordPartitioner(kgo.ManualPartitioner()))...)
	if err != nil {
		t.Fatal(err)
	}
	return cl
}

// records are the committed deliveries, as the rows' lines.
func (w *crashWorld) records(t *testing.T) []string {
	t.Helper()
	var lines []string
	w.read(t, "out", func(r *kgo.Record) {
		lines = append(lines, fmt.Sprintf("%s %s %s", r.Headers[0].Value, r.Key, r.Value))
	})
	slices.Sort(lines)
	return lines
}

func (w *crashWorld) count(t *testing.T, topic string) (n int) {
	t.Helper()
	w.read(t, topic, func(*kgo.Record) { n++ })
	return n
}

// offsets are the group's.
func (w *crashWorld) offsets(t *testing.T) map[int32]int64 {
	t.Helper()
	cl := w.client(t)
	defer cl.Close()
	found, err := kadm.NewClient(cl).FetchOffsets(t.Context(), "g")
	if err != nil {
		t.Fatal(err)
	}
	at := map[int32]int64{}
	found.Each(func(o kadm.OffsetResponse) { at[o.Partition] = o.At })
	return at
}

func (w *crashWorld) read(t *testing.T, topic string, each func(*kgo.Record)) {
	t.Helper()
	cl := w.client(t, kgo.ConsumeTopics(topic), kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.KeepControlRecords(),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	defer cl.Close()
	listed, err := kadm.NewClient(cl).ListEndOffsets(t.Context(), topic)
	if err != nil {
		t.Fatal(err)
	}
	left := map[int32]int64{}
	listed.Each(func(o kadm.ListedOffset) {
		if o.Offset > 0 {
			left[o.Partition] = o.Offset
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for len(left) > 0 {
		fetches := cl.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			t.Fatalf("read %s: %v, left %v", topic, err, left)
		}
		for _, r := range fetches.Records() {
			if r.Offset+1 >= left[r.Partition] {
				delete(left, r.Partition)
			}
			if !r.Attrs.IsControl() {
				each(r)
			}
		}
	}
}

func (w *crashWorld) close() {
	if w.index != nil {
		w.index.Close()
	}
	w.cluster.Close()
}
