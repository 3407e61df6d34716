package stream_test

import (
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kadm"

	"example.com/tiffin/internal/devstack/devstacktest"
	"example.com/tiffin/stream"
)

// outage is an engine at work, to which something happens: what was published before,
// meanwhile and after must be in both sinks once it is over, and the reason must have been
// told.
type outage struct {
	*rig
	clients  []string
	log      *logBook
	registry *prometheus.Registry
	engine   *stream.Engine
	stop     func() error
	want     []delivery
	lost     []delivery // whose records went with their topic; their rows stay
	number   int
}

// newOutage delivers a first campaign, so that what follows happens to a process at work.
func newOutage(t *testing.T, r *rig, change ...func(*stream.Config)) *outage {
	t.Helper()
	o := &outage{rig: r, clients: r.source.of["r"], log: &logBook{}, registry: prometheus.NewRegistry()}
	r.cfg.Log = slog.New(slog.NewTextHandler(io.MultiWriter(testWriter{t}, o.log), nil))
	r.cfg.Registerer = o.registry
	o.engine, o.stop = r.start(change...)
	o.publish(2)
	o.settled()
	return o
}

// publish puts campaigns into the partitions in turn and notes what they must give.
func (o *outage) publish(n int) {
	o.t.Helper()
	for range n {
		o.publishAs(campaign("r", fmt.Sprint(o.number)))
	}
}

func (o *outage) publishAs(m message) {
	o.t.Helper()
	partition := int32(o.number % 2)
	o.number++
	offset := o.rig.publish(partition, m.json(o.t))
	for _, c := range o.clients {
		o.want = append(o.want, o.expect(m, partition, offset, c))
	}
}

// settled waits until all is delivered and nothing is complained of.
func (o *outage) settled() {
	o.t.Helper()
	o.await("all deliveries, the group's offsets and readiness", func() bool { return o.delivered() && o.committed() == o.number })
}

// delivered reports whether all rows are there and nothing is complained of.
func (o *outage) delivered() bool {
	return o.rowCount() == len(o.want)+len(o.lost) && len(o.engine.Reasons()) == 0
}

// await waits for longer than a session waits for acknowledgements (produceTimeout): those of a broker that died
// in the middle may never come, and then the next session begins.
func (o *outage) await(what string, reached func() bool) {
	o.t.Helper()
	const acknowledgements = 45 * time.Second
	o.eventuallyWithin(acknowledgements+devstacktest.Patience(), what, reached, func() string {
		return fmt.Sprintf("%d rows of %d, %d messages behind the group of %d; reasons %q", o.rowCount(), len(o.want)+len(o.lost), o.committed(), o.number, o.engine.Reasons())
	})
}

// committed is how many messages the group has behind it; -1 while the brokers do not tell.
func (o *outage) committed() int {
	offsets, err := kadm.NewClient(o.admin).FetchOffsets(kadm.RequireStable(o.t.Context()), o.cfg.Kafka.Group)
	if err != nil || offsets.Error() != nil {
		return -1
	}
	n := 0
	offsets.Each(func(at kadm.OffsetResponse) { n += int(at.At) })
	return n
}

// told waits until the engine's log names the fault as what interrupted it.
func (o *outage) told(words ...string) {
	o.t.Helper()
	o.eventually(fmt.Sprintf("%q in the log", words), func() bool { return o.log.has("delivery interrupted", words...) })
}

// unready waits until readiness names the fault.
func (o *outage) unready(words ...string) {
	o.t.Helper()
	o.eventually(fmt.Sprintf("%q in the reasons", words), func() bool { return containsAll(strings.Join(o.engine.Reasons(), "; "), words) })
}

// over checks the end: both sinks hold what they must, no dead letter, and the faulty sink's
// retries are counted, no other's.
func (o *outage) over(sink string) {
	o.t.Helper()
	o.settled()
	o.bothEqual()
	for _, s := range []string{"postgres", "kafka"} {
		if n := o.retries(s); (n > 0) != (s == sink) {
			o.t.Errorf("tiffin_sink_retries_total{sink=%q} is %v: the faulty sink is %q", s, n, sink)
		}
	}
}

func (o *outage) bothEqual() {
	o.t.Helper()
	if err := o.stop(); err != nil {
		o.t.Fatal(err)
	}
	same(o.t, "records", o.deliveries(), o.want)
	o.wantRows(append(o.want, o.lost...))
	if n := len(o.records(o.cfg.Kafka.DeadLetter)); n != 0 {
		o.t.Errorf("%d dead letters: want none for a server's fault", n)
	}
}

func (o *outage) retries(sink string) float64 {
	o.t.Helper()
	families, err := o.registry.Gather()
	if err != nil {
		o.t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() != "tiffin_sink_retries_total" {
			continue
		}
		for _, m := range f.GetMetric() {
			if m.GetLabel()[0].GetValue() == sink {
				return m.GetCounter().GetValue()
			}
		}
	}
	return 0
}

// logBook keeps log lines. Safe for concurrent use.
type logBook struct {
	mu   sync.Mutex
	text strings.Builder
}

func (b *logBook) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

// has reports whether one line holds the message and all the words.
func (b *logBook) has(message string, words ...string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	for line := range strings.Lines(b.text.String()) {
		if strings.Contains(line, message) && containsAll(line, words) {
			return true
		}
	}
	return false
}

func containsAll(text string, words []string) bool {
	for _, w := range words {
		if !strings.Contains(text, w) {
			return false
		}
	}
	return true
}
