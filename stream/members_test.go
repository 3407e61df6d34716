package stream

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// Processes of a group join, leave, crash, lose the brokers but not Postgres, and meet a
// database that is slower than any time-out of the group, in any order and in the middle of
// batches: both sinks hold every delivery once, and nobody gives up. In every second run the group
// takes everything from everybody at each rebalance (eager), which tiffin does not do by itself.
func TestMembersComeAndGoBothSinksStayEqual(t *testing.T) {
	t.Parallel()
	happened := map[string]int{}
	for seed := range uint64(30) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) { //nolint:paralleltest // counts what happened
			synctest.Test(t, func(t *testing.T) {
				g := &membersGroup{t: t, crashWorld: newCrashWorld(t, crashKind{}), random: rand.New(rand.NewPCG(seed, 7)), happened: happened}
				g.eager = []kgo.GroupBalancer{nil, kgo.RangeBalancer(), nil, kgo.StickyBalancer()}[seed%4]
				g.subscribe(t, 0)
				defer g.close()
				g.listen()
				g.live()
			})
		})
	}
	t.Logf("what happened: %v", happened)
	for _, what := range []string{"joined", "left", "crashed", "cut off", "slow database", "lost membership", "recovered", "eager: given up", "eager: recovered"} {
		if happened[what] == 0 {
			t.Errorf("%s: never happened", what)
		}
	}
}

// joinPatience is how long a process waits for a rebalance beyond its time-out. kfake starts
// that time-out (60 s) anew at every join, which a broker does not (GroupCoordinator.scala,
// DelayedJoin): three processes that gave up and joined again every 70 s in turn would keep it
// from ever passing. At this patience one of any four joins in a row is a minute from the next.
const joinPatience = 5 * time.Minute

type membersGroup struct {
	*crashWorld
	t        *testing.T
	random   *rand.Rand
	members  []*memberProcess
	started  int
	happened map[string]int
	book     lineCounter
	eager    kgo.GroupBalancer // nil: as tiffin does it

	hearing sync.Mutex
	heard   map[string]time.Time // by member id
}

// memberProcess is one process of the group.
type memberProcess struct {
	*memory
	g      *membersGroup
	fault  *fault
	cancel context.CancelFunc
	done   chan error
	name   string

	mu   sync.Mutex
	cut  time.Time     // until when the brokers are out of reach
	slow time.Duration // of the next batch in Postgres
}

func (g *membersGroup) live() {
	for range 25 {
		switch action := g.random.IntN(9); {
		case len(g.members) == 0 || action < 2 && len(g.members) < 3:
			g.join()
		case action == 2:
			g.leave(g.pick())
		case action == 3:
			g.crash(g.pick())
		case action == 4:
			g.pick().cutOff(3 * time.Minute)
			g.happened["cut off"]++
		case action == 5:
			g.pick().slowDown(2 * time.Minute)
			g.happened["slow database"]++
		default:
			g.publish(3)
		}
		<-time.After(time.Duration(g.random.IntN(20_000)) * time.Millisecond) // of the fake clock
	}
	if len(g.members) == 0 {
		g.join()
	}
	g.await()
	for len(g.members) > 0 {
		g.leave(g.members[0])
	}
	rows, records := g.store.lines(g.t), g.records(g.t)
	if len(rows) != g.deliveries || !slices.Equal(rows, records) {
		g.t.Errorf("%d rows, %d records, want %d of each and the same\nonly rows: %.300q\nonly records: %.300q",
			len(rows), len(records), g.deliveries, minus(rows, records), minus(records, rows))
		g.t.Log(strings.Join(g.book.text, ""))
	}
	if letters := g.count(g.t, "dead"); letters != g.letters {
		g.t.Errorf("%d dead letters, want %d", letters, g.letters)
	}
	g.happened["lost membership"] += g.book.count("membership of group")
	g.happened["recovered"] += g.book.count("records rebuilt")
	if g.eager != nil {
		g.happened["eager: given up"] += g.book.count("partition given up")
		g.happened["eager: recovered"] += g.book.count("records rebuilt")
	}
}

func (g *membersGroup) pick() *memberProcess { return g.members[g.random.IntN(len(g.members))] }

func (g *membersGroup) join() {
	g.t.Helper()
	g.started++
	m := &memberProcess{memory: g.store, g: g, fault: newFault(), done: make(chan error, 1)}
	cfg := Config{
		Kafka: KafkaConfig{
			Brokers: []string{"127.0.0.1:9092"}, Group: "g", Process: fmt.Sprint("p", g.started%3),
			Input: "in", Output: "out", DeadLetter: "dead", Start: StartEarliest, Options: memoryClient(kgo.Dialer(m.dial), kgo.RequestTimeoutOverhead(joinPatience)),
		},
		FeedbackDSN: "host=memory", FeedbackTable: []string{"t"}, MaxTransactionRecords: 10,
		Log: slog.New(slog.NewTextHandler(&g.book, nil).WithAttrs([]slog.Attr{slog.String("process", fmt.Sprint("p", g.started%3))})),
	}
	if g.random.IntN(2) == 0 {
		cfg.Kafka.InstanceID = cfg.Kafka.Process // some static, some dynamic
	}
	for _, other := range g.members { // a slot is one process's
		if other.name == cfg.Kafka.Process {
			return
		}
	}
	e, err := New(cfg, g.index, nobody{})
	if err != nil {
		g.t.Fatal(err)
	}
	m.name = cfg.Kafka.Process
	if g.eager != nil {
		e.balancer = g.eager
	}
	e.openStore = func(context.Context, *Config) (store, error) { return m, nil }
	ctx, cancel := context.WithCancel(g.t.Context())
	context.AfterFunc(m.fault.died, cancel)
	m.cancel = cancel
	g.members = append(g.members, m)
	go func() { m.done <- e.Run(ctx) }()
	g.happened["joined"]++
}

// leave asks a process to stop. One that cannot reach its servers may say so.
func (g *membersGroup) leave(m *memberProcess) {
	g.t.Helper()
	m.cancel()
	if err := <-m.done; err != nil {
		g.t.Logf("%s left with: %v", m.name, err)
	}
	g.forget(m)
	g.happened["left"]++
}

func (g *membersGroup) crash(m *memberProcess) {
	m.fault.kill()
	if err := <-m.done; err != nil {
		g.t.Logf("%s crashed with: %v", m.name, err)
	}
	g.forget(m)
	g.happened["crashed"]++
}

func (g *membersGroup) forget(m *memberProcess) {
	g.members = slices.DeleteFunc(g.members, func(other *memberProcess) bool { return other == m })
}

func (g *membersGroup) publish(n int) {
	g.t.Helper()
	cl := g.client(g.t)
	defer cl.Close()
	for range n {
		restaurant, fan := "small", 2
		if g.random.IntN(4) == 0 {
			restaurant, fan = "large", 25
		}
		value := fmt.Sprintf(`{"restaurant_id":%q,"adv_campaign_id":"same","adv_campaign_content":"","adv_campaign_owner":"","adv_campaign_owner_contact":"",`+
			`"adv_campaign_datetime_start":0,"adv_campaign_datetime_end":99999999999,"datetime_created":1}`, restaurant)
		if err := cl.ProduceSync(g.t.Context(), &kgo.Record{Topic: "in", Partition: int32(g.random.IntN(2)), Value: []byte(value)}).FirstErr(); err != nil {
			g.t.Fatal(err)
		}
		g.deliveries += fan
	}
}

// listen notes when the group last heard from each of its members.
func (g *membersGroup) listen() {
	g.heard = map[string]time.Time{}
	for _, key := range []kmsg.Key{kmsg.JoinGroup, kmsg.SyncGroup, kmsg.Heartbeat} {
		g.cluster.ControlKey(int16(key), func(req kmsg.Request) (kmsg.Response, error, bool) {
			g.cluster.KeepControl()
			var id string
			switch req := req.(type) {
			case *kmsg.JoinGroupRequest:
				id = req.MemberID
			case *kmsg.SyncGroupRequest:
				id = req.MemberID
			case *kmsg.HeartbeatRequest:
				id = req.MemberID
			}
			g.hearing.Lock()
			defer g.hearing.Unlock()
			g.heard[id] = time.Now()
			return nil, nil, false
		})
	}
}

// silence is longer than any process waits for an answer to its join.
const silence = 10 * time.Minute

// expire removes members that are silent. A broker does so when their session times out; kfake
// times nobody's session whose connection broke before the answer to its join.
func (g *membersGroup) expire(cl *kgo.Client) {
	g.t.Helper()
	described, err := kadm.NewClient(cl).DescribeGroups(g.t.Context(), "g")
	if err != nil {
		g.t.Fatal(err)
	}
	for _, m := range described["g"].Members {
		g.hearing.Lock()
		last, known := g.heard[m.MemberID]
		if !known {
			g.heard[m.MemberID] = time.Now()
		}
		g.hearing.Unlock()
		if !known || time.Since(last) < silence {
			continue
		}
		req := kmsg.NewPtrLeaveGroupRequest()
		who := kmsg.NewLeaveGroupRequestMember()
		who.MemberID = m.MemberID
		req.Group, req.Members = "g", append(req.Members, who)
		if _, err := req.RequestWith(g.t.Context(), cl); err != nil {
			g.t.Fatal(err)
		}
		g.happened["expired"]++
	}
}

// await waits until the group has committed everything.
func (g *membersGroup) await() {
	g.t.Helper()
	cl := g.client(g.t)
	defer cl.Close()
	adm := kadm.NewClient(cl)
	ends, err := adm.ListEndOffsets(g.t.Context(), "in")
	if err != nil {
		g.t.Fatal(err)
	}
	for began := time.Now(); ; <-time.After(time.Second) {
		at, err := adm.FetchOffsets(kadm.RequireStable(g.t.Context()), "g")
		if err != nil {
			g.t.Fatal(err)
		}
		behind := 0
		ends.Each(func(end kadm.ListedOffset) {
			if o, ok := at.Lookup("in", end.Partition); end.Offset > 0 && (!ok || o.At < end.Offset) {
				behind++
			}
		})
		if behind == 0 {
			return
		}
		if time.Since(began) > silence {
			g.expire(cl)
		}
		for _, m := range g.members {
			select {
			case err := <-m.done:
				g.t.Fatalf("%s gave up: %v", m.name, err)
			default:
			}
		}
		if time.Since(began) > time.Hour {
			g.t.Fatalf("an hour after the last event %d partitions are behind: %v", behind, at)
		}
	}
}

func (m *memberProcess) cutOff(d time.Duration) {
	m.mu.Lock()
	m.cut = time.Now().Add(d)
	m.mu.Unlock()
	m.fault.mu.Lock()
	conns := m.fault.conns
	m.fault.conns = nil
	m.fault.mu.Unlock()
	for _, c := range conns {
		_ = c.Close()
	}
}

func (m *memberProcess) slowDown(d time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.slow = d
}

func (m *memberProcess) dial(ctx context.Context, network, address string) (net.Conn, error) {
	m.mu.Lock()
	cut := time.Now().Before(m.cut)
	m.mu.Unlock()
	if cut || m.fault.isDead() {
		return nil, errDead
	}
	conn, err := m.g.network.DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	f := &faultConn{Conn: conn, fault: m.fault}
	m.fault.track(f)
	return f, nil
}

// deliver may take longer than anybody in the group waits; what was sent to Postgres is
// committed all the same, unless the process died first or somebody else took the partition.
func (m *memberProcess) deliver(ctx context.Context, b *batch, g gates) error {
	if err := m.insertRows(ctx, b, g); err != nil {
		return err
	}
	m.mu.Lock()
	slow := m.slow
	m.slow = 0
	m.mu.Unlock()
	if slow > 0 {
		<-time.After(slow)
	}
	if m.fault.isDead() {
		return errDead
	}
	return m.finish(context.WithoutCancel(ctx), b)
}

// connect's deliverers are as slow, and as dead, as the process.
func (m *memberProcess) connect(context.Context) (deliverer, error) { return m, nil }

func (m *memberProcess) claim(_ context.Context, partition int32, topic [16]byte) (entry, bool, error) {
	if m.fault.isDead() {
		return entry{}, false, errDead
	}
	return m.claimAs(m.name, partition, topic)
}

func (m *memberProcess) begin(ctx context.Context, at map[int32]int64, topic [16]byte) error {
	if m.fault.isDead() {
		return errDead
	}
	return m.memory.begin(ctx, at, topic)
}

// lineCounter keeps log lines. Safe for concurrent use.
type lineCounter struct {
	mu   sync.Mutex
	text []string
}

func (c *lineCounter) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.text = append(c.text, string(p))
	return len(p), nil
}

// count is the number of lines with a phrase.
func (c *lineCounter) count(phrase string) (n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, line := range c.text {
		if strings.Contains(line, phrase) {
			n++
		}
	}
	return n
}
