package daemon

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"math"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"example.com/tiffin/cmd/internal/livepage"
)

func seeFigures(t *testing.T, b *browser, w *world, r *running) {
	b.screen(1100, 900)
	b.open(r.url + "/")
	b.until(`document.getElementById('state').textContent === 'ready'`)
	b.until(`document.getElementById('sinks-deliveries').textContent === '0' && document.getElementById('recent-state').textContent === 'None yet.'`)
	w.db.Exec(t, "UPDATE subscribers_restaurants SET client_id = client_id WHERE restaurant_id = 'r2'") // for a time from commit to visible
	w.publishCampaign(t, campaignOf("r1", "plain"))
	b.until(`document.getElementById('sinks-deliveries').textContent === '2' && document.getElementById('index-subscriptions').textContent === '4'`)
	b.until(`document.querySelectorAll('#recent li').length === 1 && document.querySelector('#recent .id').textContent === 'plain'`)
	b.until(`document.querySelectorAll('#flow .flowing').length >= 4`)
	b.until(`/^[0-9.,]+ (µs|ms|s)$/.test(document.getElementById('delivery-p99').textContent) && document.querySelectorAll('#plot circle').length >= 2`)
	if alt := b.text("#flow-text"); !strings.Contains(alt, "fence and join → topic of deliveries: ") {
		t.Errorf("the picture in words: %q", alt)
	}
	b.showsMetrics(func() samples { return read(t, r.metrics(t)) })
	if c := b.complaints(); len(c) != 0 {
		t.Errorf("the browser complains: %q", c)
	}
}

// samples are metrics by their names.
type samples map[string]*dto.MetricFamily

func read(t *testing.T, text string) samples {
	t.Helper()
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	return families
}

// sum adds up a counter or gauge, of the label's value where one is given. One that is missing is no number.
func (s samples) sum(name string, label ...string) float64 {
	sum := math.NaN()
	for _, m := range s[name].GetMetric() {
		if len(label) > 0 && m.GetLabel()[0].GetValue() != label[0] {
			continue
		}
		if math.IsNaN(sum) {
			sum = 0
		}
		sum += m.GetCounter().GetValue() + m.GetGauge().GetValue()
	}
	return sum
}

// quantile is that of Prometheus' histogram_quantile, as the page writes it.
func (s samples) quantile(name string, q float64) string {
	if len(s[name].GetMetric()) != 1 {
		return "no metric"
	}
	h := s[name].GetMetric()[0].GetHistogram()
	lower, before, rank := 0.0, 0.0, q*float64(h.GetSampleCount())
	for _, b := range h.GetBucket() {
		upper, at := b.GetUpperBound(), float64(b.GetCumulativeCount())
		if rank > 0 && at >= rank {
			return span(lower + (upper-lower)*(rank-before)/(at-before))
		}
		lower, before = upper, at
	}
	return "–"
}

// figures are the texts of the page's elements.
func (s samples) figures() map[string]string {
	filled := s.sum("tiffin_index_lookups_total", "filled")
	memory := s.sum("tiffin_index_lookups_total", "resident") + s.sum("tiffin_index_lookups_total", "empty")
	retained, limit := s.sum("tiffin_slot_retained_bytes"), s.sum("tiffin_slot_retained_limit_bytes")
	return map[string]string{
		"delivery-p50": s.quantile("tiffin_delivery_seconds", .5), "delivery-p99": s.quantile("tiffin_delivery_seconds", .99),
		"delivery-count": number(float64(s["tiffin_delivery_seconds"].GetMetric()[0].GetHistogram().GetSampleCount()), 0),
		"visible-p50":    s.quantile("tiffin_cdc_visible_seconds", .5), "visible-p99": s.quantile("tiffin_cdc_visible_seconds", .99),
		"fence-p50": s.quantile("tiffin_fence_seconds", .5), "fence-p99": s.quantile("tiffin_fence_seconds", .99),
		"index-subscriptions": number(s.sum("tiffin_index_subscriptions"), 0), "index-restaurants": number(s.sum("tiffin_index_restaurants"), 0),
		"index-bytes": size(s.sum("tiffin_index_bytes")), "index-hits": number(memory/(memory+filled)*100, 1) + " %", "index-filled": number(filled, 0),
		"slot-lag": size(s.sum("tiffin_cdc_lag_bytes")), "slot-retained": size(retained), "slot-limit": size(limit),
		"slot-rebuilds": number(s.sum("tiffin_rebuilds_total"), 0), "slot-meter": fmt.Sprintf("%.4f", retained/limit),
		"sinks-deliveries": number(s.sum("tiffin_deliveries_total"), 0), "sinks-recovered": number(s.sum("tiffin_recovered_deliveries_total"), 0),
		"sinks-postgres": number(s.sum("tiffin_sink_retries_total", "postgres"), 0), "sinks-kafka": number(s.sum("tiffin_sink_retries_total", "kafka"), 0),
		"sinks-dead": number(s.sum("tiffin_dead_letters_total"), 0),
	}
}

// number, size and span write as the page does in English.
func number(value float64, digits int) string {
	unit := math.Pow10(digits)
	return humanize.Commaf(math.Round(value*unit) / unit)
}

func size(bytes float64) string {
	units := []string{"B", "KiB", "MiB", "GiB", "TiB"}
	for ; bytes >= 1024 && len(units) > 1; units = units[1:] {
		bytes /= 1024
	}
	if bytes < 10 && units[0] != "B" {
		return number(bytes, 1) + " " + units[0]
	}
	return number(bytes, 0) + " " + units[0]
}

func span(seconds float64) string {
	unit := "s"
	switch {
	case seconds < 1e-3:
		seconds, unit = seconds*1e6, "µs"
	case seconds < 1:
		seconds, unit = seconds*1e3, "ms"
	}
	digits := 0
	switch {
	case seconds < 10:
		digits = 2
	case seconds < 100:
		digits = 1
	}
	return number(seconds, digits) + " " + unit
}

// showsMetrics waits until each of the page's figures has been what the metrics said at that moment:
// some of a daemon's change by themselves. The sinks' agreement is no metric.
func (b *browser) showsMetrics(now func() samples) {
	b.t.Helper()
	const all = `return Object.fromEntries([...document.querySelectorAll('.cards dd, .cards meter')]
		.map((e) => [e.id, e.value?.toFixed(4) ?? e.textContent]).filter(([id]) => !/^sinks-(agreement|since|ledger|group|owed)$/.test(id)))`
	seen := map[string]bool{}
	shown, told := map[string]string{}, map[string]string{}
	for end := time.Now().Add(patience / 3); time.Now().Before(end); {
		clear(shown)
		b.run(all, &shown)
		told = now().figures()
		for id, text := range shown {
			seen[id] = seen[id] || told[id] == text
		}
		if !slices.Contains(slices.Collect(maps.Values(seen)), false) && len(seen) == len(told) {
			return
		}
	}
	b.t.Errorf("the page shows %v\nthe metrics say %v", shown, told)
}

// calm is the readiness of a daemon that lacks nothing.
type calm struct{}

func (calm) Reasons() []string  { return nil }
func (calm) Progress() []string { return nil }

// known are metrics of which no two are alike, and what the page was given last.
type known struct {
	*prometheus.Registry
	last atomic.Pointer[samples]
}

func (k *known) Gather() ([]*dto.MetricFamily, error) {
	families, err := k.Registry.Gather()
	given := samples{}
	for _, f := range families {
		given[f.GetName()] = f
	}
	k.last.Store(&given)
	return families, err
}

func newKnown() *known {
	k, begin := &known{Registry: prometheus.NewRegistry()}, time.Now()
	for _, m := range []struct {
		name, label  string
		number, rate float64
	}{
		{"tiffin_cdc_changes_total", "", 0, 11},
		{"tiffin_cdc_transactions_total", "", 0, 12},
		{"tiffin_campaigns_total", "", 0, 14},
		{"tiffin_index_lookups_total", "resident", 4e9, 13},
		{"tiffin_index_lookups_total", "empty", 2e9, 0},
		{"tiffin_index_lookups_total", "filled", 3e9, 0},
		{"tiffin_deliveries_total", "", 5e6, 15},
		{"tiffin_dead_letters_total", "", 6e6, 16},
		{"tiffin_recovered_deliveries_total", "", 101, 0},
		{"tiffin_sink_retries_total", "postgres", 102, 0},
		{"tiffin_sink_retries_total", "kafka", 103, 0},
		{"tiffin_rebuilds_total", "", 104, 0},
		{"tiffin_index_subscriptions", "", 1e6, 0},
		{"tiffin_index_restaurants", "", 2e6, 0},
		{"tiffin_index_bytes", "", 3 << 20, 0},
		{"tiffin_cdc_lag_bytes", "", 4 << 20, 0},
		{"tiffin_slot_retained_bytes", "", 5 << 20, 0},
		{"tiffin_slot_retained_limit_bytes", "", 7 << 20, 0},
	} {
		o := prometheus.CounterOpts{Name: m.name}
		if m.label != "" {
			o.ConstLabels = prometheus.Labels{"of": m.label}
		}
		k.MustRegister(prometheus.NewCounterFunc(o, func() float64 { return m.number + m.rate*time.Since(begin).Seconds() }))
	}
	for name, second := range map[string]float64{"tiffin_delivery_seconds": 1, "tiffin_cdc_visible_seconds": 0.01, "tiffin_fence_seconds": 1e-4} {
		h := prometheus.NewHistogram(prometheus.HistogramOpts{Name: name, Buckets: []float64{2e-5, 2e-4, 2e-3, 2e-2, 2e-1, 2}})
		h.Observe(second)
		k.MustRegister(h)
	}
	return k
}

// pageOf is a page of such metrics, which nobody runs yet.
func pageOf(t *testing.T, k *known) (*livepage.Page, *http.ServeMux) {
	t.Helper()
	p, err := livepage.New(livepage.Config{Readiness: calm{}, Gatherer: k, Log: slog.New(slog.DiscardHandler), Private: func(*http.Request) bool { return true }})
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	if err := p.Routes(mux); err != nil {
		t.Fatal(err)
	}
	return p, mux
}

// seeEveryFigure: where a daemon shows many zeroes, two that were mixed up would look the same.
func seeEveryFigure(t *testing.T, b *browser, _ *world, _ *running) {
	k := newKnown()
	p, mux := pageOf(t, k)
	server := httptest.NewServer(mux)
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); p.Run(ctx) }()
	defer func() { b.open("about:blank"); server.Close(); stop(); <-ended }() // the stream of events is left first
	b.open(server.URL + "/")
	b.until(`document.getElementById('state').textContent === 'ready'`)
	b.showsMetrics(func() samples { return *k.last.Load() })
	b.until(`document.getElementById('flow-text').textContent === arguments[0]`, strings.Join([]string{
		"subscribers’ table → write-ahead log: 11 changes/s", "write-ahead log → index: 12 transactions/s", "index → fence and join: 13 lookups/s",
		"topic of campaigns → fence and join: 14 campaigns/s", "fence and join → feedback table: 15 deliveries/s",
		"fence and join → topic of deliveries: 15 deliveries/s", "fence and join → dead letters: 16 letters/s",
	}, "; "))
	b.complaints() // there are no campaigns to ask for
}
