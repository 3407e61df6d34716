package stream

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"example.com/tiffin/cache"
)

// How an effect fails.
const (
	diesBefore = "dies before" // the process ends; the effect did not happen
	diesAfter  = "dies after"  // the process ends; the effect happened
	unknown    = "unknown"     // the effect happened, its answer is lost, the process lives on
)

// The process dies before and after every effect of the delivery path, and every effect's
// answer is lost, in turn: afterwards both sinks hold the same, exactly once.
func TestCrashAtEveryStepLeavesBothSinksEqual(t *testing.T) {
	t.Parallel()
	// Points are named by effect and occurrence. How polls fall decides how often an effect
	// comes; what came in each of several undisturbed runs must be reached.
	least := map[string]int{}
	for i := range 5 {
		seen := crashRun(t)
		for effect, n := range seen {
			if had, ok := least[effect]; i == 0 || ok && n < had {
				least[effect] = n
			}
		}
		for effect := range least {
			least[effect] = min(least[effect], seen[effect])
		}
	}
	points, missed := 0, 0
	for _, effect := range slices.Sorted(maps.Keys(least)) {
		for n := 1; n <= least[effect]; n++ {
			for _, how := range []string{diesBefore, diesAfter, unknown} {
				points++
				if seen := crashRun(t, crashPoint{effect, n, how}); seen[effect] < n {
					missed++
					t.Errorf("%s, %s number %d: never reached", how, effect, n)
				}
			}
		}
	}
	t.Logf("%d crash points, %d missed; effects: %v", points, missed, least)
	for _, effect := range []string{"claim", "begin", "deliver", "setLevel", "Produce", "EndTxn", "TxnOffsetCommit", "OffsetCommit", "InitProducerID"} {
		if least[effect] == 0 {
			t.Errorf("%s was never an effect: the test does not see it", effect)
		}
	}
}

// The recovery of a crash crashes too, before and after each of its transactions.
func TestCrashInRecoveryLeavesBothSinksEqual(t *testing.T) {
	t.Parallel()
	points := 0
	for _, first := range []crashPoint{{"deliver", 1, diesAfter}, {"deliver", 3, diesAfter}, {"EndTxn", 2, diesBefore}, {"EndTxn", 4, diesAfter}} {
		for n := 1; n <= 4; n++ {
			for _, how := range []string{diesBefore, diesAfter, unknown} {
				crashRun(t, first, crashPoint{"EndTxn", n, how})
				points++
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
		for life := 0; life == 0 || w.fault.dead; life++ {
			w.fault.revive(left)
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
		kfake.SeedTopics(2, "in", "out"), kfake.SeedTopics(1, "dead"))
	if err != nil {
		t.Fatal(err)
	}
	w.store.before = func(effect string) error { return w.fault.on(effect, true) }
	w.store.after = func(effect string) error { return w.fault.on(effect, false) }
	if w.index, err = cache.New(cache.Config{Budget: 1 << 20}, nobody{}); err != nil {
		t.Fatal(err)
	}
	w.fill(t)
	return w
}

// fill subscribes clients and publishes messages: small ones, one that takes several
// transactions, two of the same content, malformed and inactive ones.
func (w *crashWorld) fill(t *testing.T) {
	t.Helper()
	load := w.index.BeginLoad(false)
	fans := map[string]int{"small": 2, "large": 25, "none": 0}
	for restaurant, fan := range fans {
		for i := range fan {
			if err := load.Add(0, []byte(restaurant), fmt.Appendf(nil, "client %d", i)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := load.Finish(cache.Snapshot{Xmin: 5, Xmax: 5}); err != nil {
		t.Fatal(err)
	}
	cl := w.client(t)
	defer cl.Close()
	for i, restaurant := range []string{"small", "small", "bad", "large", "small", "none", "small", "large", "bad", "over", "small"} {
		value := fmt.Sprintf(`{"restaurant_id":%q,"adv_campaign_id":"same","adv_campaign_content":"","adv_campaign_owner":"","adv_campaign_owner_contact":"",`+
			`"adv_campaign_datetime_start":0,"adv_campaign_datetime_end":99999999999,"datetime_created":1}`, restaurant)
		switch restaurant {
		case "bad":
			value = "garbage"
		case "over":
			value = strings.Replace(value, "99999999999", "1", 1)
		}
		if err := cl.ProduceSync(t.Context(), &kgo.Record{Topic: "in", Partition: int32(i % 2), Value: []byte(value)}).FirstErr(); err != nil {
			t.Fatal(err)
		}
		w.deliveries += fans[restaurant]
	}
}

// run is one life of a process, which may end early.
func (w *crashWorld) run(t *testing.T) {
	t.Helper()
	cfg := Config{
		Kafka: KafkaConfig{
			Brokers: []string{"127.0.0.1:9092"}, Group: "g", InstanceID: "one", Process: "one",
			Input: "in", Output: "out", DeadLetter: "dead", Start: StartEarliest,
			Options: []kgo.Opt{kgo.Dialer(w.dial)},
		},
		FeedbackDSN: "host=memory", FeedbackTable: []string{"t"}, MaxTransactionRecords: 10, UntilNow: true,
		Log: slog.New(slog.DiscardHandler),
	}
	e, err := New(cfg, w.index, nobody{})
	if err != nil {
		t.Fatal(err)
	}
	e.openStore = w.store.open
	ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
	defer cancel()
	defer context.AfterFunc(w.fault.died, cancel)()
	err = e.Run(ctx)
	if !w.fault.dead && (err != nil || ctx.Err() != nil) {
		t.Fatalf("run: %v, %v, %v", err, ctx.Err(), e.Reasons())
	}
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

var errDead = errors.New("this process is dead")

// fault fails the n-th occurrence of an effect.
type fault struct {
	effect, how string
	n           int

	mu    sync.Mutex
	seen  map[string]int
	conns []*faultConn
	dead  bool
	died  context.Context //nolint:containedctx // ends with the process
	die   context.CancelFunc
}

func newFault() *fault {
	f := &fault{seen: map[string]int{}}
	f.died, f.die = context.WithCancel(context.Background())
	return f
}

// on is called before and after an effect that is a call.
func (f *fault) on(effect string, before bool) error {
	f.mu.Lock()
	if f.dead {
		f.mu.Unlock()
		return errDead
	}
	if before {
		f.seen[effect]++
	}
	hit := effect == f.effect && f.seen[effect] == f.n
	f.mu.Unlock()
	switch {
	case hit && (before && f.how == diesBefore || !before && f.how == diesAfter):
		f.kill()
		return errDead
	case hit && !before && f.how == unknown:
		return errors.New("the answer is lost")
	}
	return nil
}

// kill ends the process: nothing reaches anybody any more.
func (f *fault) kill() {
	f.mu.Lock()
	f.dead = true
	conns := f.conns
	f.conns = nil
	f.mu.Unlock()
	for _, c := range conns {
		_ = c.Close()
	}
	f.die()
}

// revive is a new process, to which the first of the points happens, if there is one.
func (f *fault) revive(points []crashPoint) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.dead, f.effect = false, ""
	clear(f.seen)
	if len(points) > 0 {
		f.effect, f.n, f.how = points[0].effect, points[0].n, points[0].how
	}
	f.died, f.die = context.WithCancel(context.Background())
}

func (f *fault) isDead() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.dead
}

func (f *fault) track(c *faultConn) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.conns = append(f.conns, c)
}

func (f *fault) counts() map[string]int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return maps.Clone(f.seen)
}

// faultConn sees every request that is an effect on the broker.
type faultConn struct {
	net.Conn
	fault *fault
	mu    sync.Mutex
	lose  bool // the next answer is lost
}

// kafkaEffects are the requests that change something on the broker.
var kafkaEffects = map[int16]string{
	int16(kmsg.Produce): "Produce", int16(kmsg.AddPartitionsToTxn): "AddPartitionsToTxn", int16(kmsg.AddOffsetsToTxn): "AddOffsetsToTxn",
	int16(kmsg.EndTxn): "EndTxn", int16(kmsg.TxnOffsetCommit): "TxnOffsetCommit", int16(kmsg.OffsetCommit): "OffsetCommit",
	int16(kmsg.InitProducerID): "InitProducerID", int16(kmsg.LeaveGroup): "LeaveGroup", int16(kmsg.JoinGroup): "JoinGroup",
}

// Write sees a whole request at a time: franz-go writes it in one piece.
func (c *faultConn) Write(p []byte) (int, error) {
	if len(p) < 6 {
		return c.Conn.Write(p)
	}
	effect, is := kafkaEffects[int16(binary.BigEndian.Uint16(p[4:]))]
	if !is {
		return c.Conn.Write(p)
	}
	if err := c.fault.on(effect, true); err != nil {
		return 0, err
	}
	c.fault.mu.Lock()
	hit := effect == c.fault.effect && c.fault.seen[effect] == c.fault.n
	c.fault.mu.Unlock()
	if hit {
		c.mu.Lock()
		c.lose = true
		c.mu.Unlock()
	}
	return c.Conn.Write(p)
}

// Read loses the answer to the effect that is to fail: the connection breaks once it came.
func (c *faultConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.mu.Lock()
	lose := c.lose
	c.lose = false
	c.mu.Unlock()
	if !lose || err != nil {
		return n, err
	}
	if c.fault.how == diesAfter {
		c.fault.kill()
	}
	_ = c.Close()
	return 0, errors.New("the answer is lost")
}
