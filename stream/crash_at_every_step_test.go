package stream

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"example.com/tiffin/cache"
)

// How an effect fails.
const (
	diesBefore = "dies before" // the process ends; the effect did not happen
	diesAfter  = "dies after"  // the process ends; the effect happened
	unknown    = "unknown"     // the effect happened, its answer is lost, the process lives on
	stops      = "stops"       // the process is asked to stop before the effect, and does
)

// The process dies before and after every effect of the delivery path, every effect's answer
// is lost, and the process is asked to stop there, in turn: afterwards both sinks hold the
// same, exactly once. Two campaigns are on lanes, and a third waits for one.
func TestCrashAtEveryStepLeavesBothSinksEqual(t *testing.T) {
	t.Parallel()
	// Points are named by effect and occurrence. How polls fall decides how often an effect
	// comes; what came in each of several undisturbed runs must be reached.
	least := map[string]int{}
	for i := range 5 {
		seen := crashRun(t) // without a fault of its own making, too
		for effect, n := range seen {
			if had, ok := least[effect]; i == 0 || ok && n < had {
				least[effect] = n
			}
		}
		for effect := range least {
			least[effect] = min(least[effect], seen[effect])
		}
	}
	points, taken, missed := 0, 0, 0
	for _, effect := range slices.Sorted(maps.Keys(least)) {
		for n := 1; n <= least[effect]; n++ {
			for _, how := range []string{diesBefore, diesAfter, unknown, stops} {
				if points++; raceDetector && points%8 != 0 {
					continue
				}
				taken++
				if !crashReached(t, crashPoint{effect, n, how}) {
					missed++
					t.Errorf("%s, %s number %d: never reached", how, effect, n)
				}
				if t.Failed() {
					t.FailNow() // the others would say the same
				}
			}
		}
	}
	t.Logf("%d crash points, %d taken, %d missed; effects: %v", points, taken, missed, least)
	for _, effect := range []string{"claim", "begin", "deliver", "deliver large", "giveUp", "Produce", "EndTxn", "TxnOffsetCommit", "OffsetCommit", "InitProducerID"} {
		if least[effect] == 0 {
			t.Errorf("%s was never an effect: the test does not see it", effect)
		}
	}
}

// crashReached crashes at a point. A run in which the polls fall so that the point does not come proves
// nothing of it: another is made, up to five.
func crashReached(t *testing.T, p crashPoint) bool {
	t.Helper()
	for range 5 {
		if seen := crashRun(t, p); seen[p.effect] >= p.n || t.Failed() {
			return true
		}
	}
	return false
}

// The recovery of a crash crashes too, before and after each of its transactions.
func TestCrashInRecoveryLeavesBothSinksEqual(t *testing.T) {
	t.Parallel()
	points := 0
	for _, first := range []crashPoint{{"deliver", 1, diesAfter}, {"deliver", 3, diesAfter}, {"EndTxn", 2, diesBefore}, {"EndTxn", 4, diesAfter}} {
		for n := 1; n <= 4; n++ {
			for _, how := range []string{diesBefore, diesAfter, unknown, stops} {
				if points++; raceDetector && points%8 != 0 {
					continue
				}
				if crashRun(t, first, crashPoint{"EndTxn", n, how}); t.Failed() {
					t.FailNow()
				}
			}
		}
	}
	t.Logf("%d crash points", points)
}

// crashPoint is where one life of the process ends, or loses an answer.
type crashPoint struct {
	effect string
	n      int
	how    string
}

// crashRun handles a small workload of every kind, failing one effect in each life of the
// process, and compares the sinks when one has come to its end. It returns how often each
// effect came in the first life.
func crashRun(t *testing.T, points ...crashPoint) (seen map[string]int) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := newCrashWorld(t)
		defer w.close()
		left := points
		for life := 0; life == 0 || w.fault.over(); life++ {
			w.fault.revive(left)
			w.subscribe(t, life)
			left = left[min(1, len(left)):]
			w.run(t)
			if life == 0 {
				seen = w.fault.counts()
			}
		}
		rows, records := w.store.lines("in"), w.records(t)
		if len(rows) != w.deliveries || !slices.Equal(rows, records) {
			t.Errorf("%v: %d rows, %d records, want %d of each and the same\nonly rows: %.300q\nonly records: %.300q", points,
				len(rows), len(records), w.deliveries, minus(rows, records), minus(records, rows))
		}
		if at := w.offsets(t); !maps.Equal(at, w.store.next()) {
			t.Errorf("%v: the group's offsets are %v, the ledger's %v", points, at, w.store.next())
		}
		if len(points) == 0 && w.interrupted > 0 {
			t.Errorf("undisturbed, the delivery was interrupted %d times", w.interrupted)
		}
		if letters := w.count(t, "dead"); letters != 2 {
			t.Errorf("%v: %d dead letters, want 2", points, letters)
		}
	})
	return seen
}

func minus(a, b []string) []string {
	return slices.DeleteFunc(slices.Clone(a), func(s string) bool { _, in := slices.BinarySearch(b, s); return in })
}

type crashWorld struct {
	network    kfake.VirtualNetwork
	cluster    *kfake.Cluster
	store      *memory
	index      *cache.Index
	fault      *fault
	deliveries int
	// interrupted counts the sessions that ended by a fault.
	interrupted int
}

type nobody struct{}

func (nobody) ReadRestaurant(context.Context, string, func([]byte) error) (cache.Snapshot, error) {
	return cache.Snapshot{}, errors.New("nothing is evicted here")
}

func (nobody) Wait(context.Context) (cache.Mark, error) { return cache.Mark{LSN: 7}, nil }

func newCrashWorld(t *testing.T) *crashWorld {
	t.Helper()
	w := &crashWorld{store: newMemory(), fault: newFault()}
	var err error
	w.cluster, err = kfake.NewCluster(kfake.NumBrokers(1), kfake.Ports(9092), kfake.ListenFn(w.network.Listen),
		kfake.SeedTopics(3, "in"), kfake.SeedTopics(2, "out"), kfake.SeedTopics(1, "dead"))
	if err != nil {
		t.Fatal(err)
	}
	w.store.before = func(effect string) error { return w.fault.on(effect, true) }
	w.store.after = func(effect string) error { return w.fault.on(effect, false) }
	w.store.levelled = func(partition int32, next int64) {
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
func fans() map[string]int { return map[string]int{"small": 2, "large": 25, "none": 0} }

// fill publishes messages: small ones, one that takes several transactions, two of the same
// content, malformed and inactive ones.
func (w *crashWorld) fill(t *testing.T) {
	t.Helper()
	cl := w.client(t)
	defer cl.Close()
	for i, restaurant := range []string{
		"small", "small", "large",
		"bad", "large", "small",
		"large", "none", "small",
		"small", "over", "bad",
		"", "small", "",
	} {
		if restaurant == "" {
			continue
		}
		value := fmt.Sprintf(campaignJSON, restaurant, "same", int64(99999999999))
		switch restaurant {
		case "bad":
			value = "garbage"
		case "over":
			value = fmt.Sprintf(campaignJSON, restaurant, "same", 1)
		}
		if err := cl.ProduceSync(t.Context(), &kgo.Record{Topic: "in", Partition: int32(i % 3), Value: []byte(value)}).FirstErr(); err != nil {
			t.Fatal(err)
		}
		w.deliveries += fans()[restaurant]
	}
}

// run is one life of a process, which may end early.
func (w *crashWorld) run(t *testing.T) {
	t.Helper()
	e, err := New(w.config(), w.index, nobody{})
	if err != nil {
		t.Fatal(err)
	}
	e.openStore = w.store.open
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

func (w *crashWorld) config() Config {
	return Config{
		Kafka: KafkaConfig{
			Brokers: []string{"127.0.0.1:9092"}, Group: "g", InstanceID: "one", Process: "one",
			Input: "in", Output: "out", DeadLetter: "dead", Start: StartEarliest,
			Options: []kgo.Opt{kgo.Dialer(w.dial)},
		},
		FeedbackDSN: "host=memory", FeedbackTable: []string{"t"}, MaxTransactionRecords: 10, UntilNow: true,
		Log: slog.New(slog.DiscardHandler),
	}
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
	w.index.Close()
	w.cluster.Close()
}
