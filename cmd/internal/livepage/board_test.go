package livepage

import (
	"context"
	"encoding/json"
	"log/slog"
	"math"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type readiness struct{ reasons, progress []string }

func (r readiness) Reasons() []string  { return r.reasons }
func (r readiness) Progress() []string { return r.progress }

// meters are some of the daemon's metrics.
type meters struct {
	registry   *prometheus.Registry
	deliveries prometheus.Counter
	campaigns  *prometheus.CounterVec
	seconds    prometheus.Histogram
	gathered   atomic.Int64
}

func newMeters() *meters {
	m := &meters{
		registry:   prometheus.NewRegistry(),
		deliveries: prometheus.NewCounter(prometheus.CounterOpts{Name: "tiffin_deliveries_total"}),
		campaigns:  prometheus.NewCounterVec(prometheus.CounterOpts{Name: "tiffin_campaigns_total"}, []string{"outcome"}),
		seconds:    prometheus.NewHistogram(prometheus.HistogramOpts{Name: deliverySeconds, Buckets: []float64{.01, .1, 1}}),
	}
	m.registry.MustRegister(m.deliveries, m.campaigns, m.seconds, prometheus.NewCounterFunc(
		prometheus.CounterOpts{Name: "gathered"}, func() float64 { m.gathered.Add(1); return 0 }))
	return m
}

func config(m *meters) Config {
	return Config{
		Readiness: readiness{}, Gatherer: m.registry, Version: "v1", Log: slog.New(slog.DiscardHandler),
		Private: func(*http.Request) bool { return true },
	}
}

func newPage(t *testing.T, cfg Config) *Page {
	t.Helper()
	p, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// decode reads the data of an event of this name.
func decode(t *testing.T, event []byte, name string, into any) {
	t.Helper()
	data, ok := strings.CutPrefix(string(event), "event: "+name+"\ndata: ")
	if !ok || !strings.HasSuffix(data, "\n\n") || strings.Count(data, "\n") != 2 {
		t.Fatalf("not an event %s of one line: %q", name, event)
	}
	if err := json.Unmarshal([]byte(data), into); err != nil {
		t.Fatal(err)
	}
}

// run advances the page in fake time until the test ends it.
func run(t *testing.T, p *Page) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); p.Run(ctx) }()
	return func() { cancel(); <-ended }
}

// Whoever comes sees the last 15 minutes at once, and then an event a second.
func TestViewersSeeThePastAndEverySecond(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := newMeters()
		p := newPage(t, config(m))
		defer run(t, p)()
		time.Sleep(5 * time.Second) //nolint:forbidigo // fake time, between two points
		for range 120 {             // 20 minutes
			m.deliveries.Add(50)
			m.seconds.Observe(0.005)
			time.Sleep(10 * time.Second) //nolint:forbidigo // fake time
		}
		synctest.Wait()
		if n := m.gathered.Load(); n > 125 {
			t.Errorf("the metrics were read %d times in 20 minutes without a viewer", n)
		}
		v, err := p.board.join()
		if err != nil {
			t.Fatal(err)
		}
		defer p.board.leave(v)
		var past []Point
		decode(t, <-v.events, "history", &past)
		if len(past) != 90 || past[89].Count != 1 || past[89].P50 != 0.005 {
			t.Errorf("%d points, the last %+v", len(past), past[len(past)-1])
		}
		var f Figures
		decode(t, <-v.events, "figures", &f)
		if f.Delivery.Count < 88 || f.Delivery.Count > 92 {
			t.Errorf("the quantiles are over %d campaigns, want those of 15 minutes", f.Delivery.Count)
		}
		begin := time.Now()
		for range 10 {
			m.deliveries.Add(7)
			decode(t, <-v.events, "figures", &f)
		}
		if passed := time.Since(begin); passed < 9*time.Second || passed > 10*time.Second {
			t.Errorf("10 events took %s", passed)
		}
		if math.Abs(f.Rates.Deliveries-7) > 0.1 {
			t.Errorf("%v deliveries/s, want 7", f.Rates.Deliveries)
		}
	})
}

// The metrics are read once a second, however many look; one more than allowed is refused.
func TestViewersAreBoundedAndShareTheFigures(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := newMeters()
		p := newPage(t, config(m))
		defer run(t, p)()
		var all []*viewer
		for range maxViewers {
			v, err := p.board.join()
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, v)
		}
		if _, err := p.board.join(); err == nil {
			t.Error("one viewer too many was let in")
		}
		for _, v := range all {
			<-v.events // the history
		}
		time.Sleep(time.Second) //nolint:forbidigo // fake time
		synctest.Wait()
		before := m.gathered.Load()
		for range 3 {
			for _, v := range all {
				<-v.events
			}
		}
		if n := m.gathered.Load() - before; n > 3 {
			t.Errorf("the metrics were read %d times for 3 events", n)
		}
		p.board.leave(all[0])
		v, err := p.board.join()
		if err != nil {
			t.Errorf("a place that was given back is not free: %v", err)
		}
		p.board.leave(v)
		for _, v := range all {
			p.board.leave(v)
		}
	})
}

// A viewer that takes nothing is dropped, and holds up nobody.
func TestSlowViewerIsDropped(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := newPage(t, config(newMeters()))
		defer run(t, p)()
		slow, err := p.board.join()
		if err != nil {
			t.Fatal(err)
		}
		quick, err := p.board.join()
		if err != nil {
			t.Fatal(err)
		}
		defer p.board.leave(quick)
		for range 2 * viewerQueue {
			if _, ok := <-quick.events; !ok {
				t.Fatal("the quick viewer was dropped")
			}
		}
		taken := 0
		for range slow.events {
			taken++
		}
		if taken != viewerQueue {
			t.Errorf("the slow viewer was sent %d events, want %d and then the end", taken, viewerQueue)
		}
	})
}

func TestQuantilesAreThoseOfTheBuckets(t *testing.T) {
	t.Parallel()
	h := histogram{bounds: []float64{1, 2, 4}, below: []uint64{0, 50, 100}, count: 100}
	for q, want := range map[float64]float64{0.25: 1.5, 0.5: 2, 0.75: 3, 1: 4} {
		if got := h.quantile(q); got != want {
			t.Errorf("quantile %v: %v, want %v", q, got, want)
		}
	}
	beyond := histogram{bounds: []float64{1}, below: []uint64{0}, count: 3}
	if got := beyond.quantile(0.5); got != 1 {
		t.Errorf("beyond the last bound: %v", got)
	}
	if got := (histogram{}).quantile(0.5); got != 0 {
		t.Errorf("of nothing: %v", got)
	}
	later := histogram{bounds: h.bounds, below: []uint64{10, 60, 110}, count: 110}
	if got := later.since(h).quantile(1); got != 1 {
		t.Errorf("what came since lies at most at %v, want 1", got)
	}
}
