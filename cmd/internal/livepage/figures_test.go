package livepage

import (
	"log/slog"
	"maps"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"example.com/tiffin/cache"
	"example.com/tiffin/cdc"
	"example.com/tiffin/stream"
)

// numbered are the daemon's metrics as its parts register them, each at a power of two: no two sums of
// some of them are equal.
type numbered struct {
	registry *prometheus.Registry
	times    float64        // what the numbers are multiplied by
	bucket   map[string]int // of a histogram: where all its observations lie
}

func newNumbered(t *testing.T) *numbered {
	t.Helper()
	n := &numbered{prometheus.NewRegistry(), 1, map[string]int{
		"tiffin_cdc_visible_seconds": 3, "tiffin_fence_seconds": 6, "tiffin_delivery_seconds": 9,
	}}
	cache.NewMetrics(n.registry)
	cdc.NewMetrics(n.registry)
	if _, err := stream.New(stream.Config{
		Kafka:         stream.KafkaConfig{Brokers: []string{"none:1"}, Group: "g", Input: "in", Output: "out", DeadLetter: "dead"},
		FeedbackTable: pgx.Identifier{"feedback"}, Log: slog.New(slog.DiscardHandler), Registerer: n.registry,
	}, struct{ stream.Index }{}, struct{ stream.Fence }{}); err != nil {
		t.Fatal(err)
	}
	// The daemon's own: its tests ask for this name.
	n.registry.MustRegister(prometheus.NewGauge(prometheus.GaugeOpts{Name: "tiffin_slot_retained_limit_bytes"}))
	return n
}

func (n *numbered) Gather() ([]*dto.MetricFamily, error) {
	families, err := n.registry.Gather()
	number := n.times
	for _, f := range families {
		for _, m := range f.GetMetric() {
			number *= 2
			switch {
			case m.GetCounter() != nil:
				m.Counter.Value = new(number)
			case m.GetGauge() != nil:
				m.Gauge.Value = new(number)
			case m.GetHistogram() != nil:
				m.Histogram.SampleCount = new(uint64(number))
				for _, b := range m.Histogram.GetBucket()[n.bucket[f.GetName()]:] {
					b.CumulativeCount = new(uint64(number))
				}
			}
		}
	}
	return families, err
}

// of are a metric's numbers by its label, or that of the one without a label.
func (n *numbered) of(t *testing.T, name string) map[string]float64 {
	t.Helper()
	families, err := n.Gather()
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() != name {
				continue
			}
			label := ""
			if len(m.GetLabel()) > 0 {
				label = m.GetLabel()[0].GetValue()
			}
			found[label] = m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
		}
	}
	if len(found) == 0 {
		t.Errorf("no part registers %s", name)
	}
	return found
}

// within are the quantiles of observations that all lie in one bucket.
func within(lower, upper, count float64) Quantiles {
	return Quantiles{P50: lower + (upper-lower)*0.5, P99: lower + (upper-lower)*0.99, Count: uint64(count)}
}

// Every figure is the metric that it is named after, by the name and the labels that the product gives it.
func TestFiguresAreTheMetricsOfTheProduct(t *testing.T) {
	t.Parallel()
	n := newNumbered(t)
	cfg := config(newMeters())
	cfg.Gatherer, cfg.Readiness = n, readiness{[]string{"a reason"}, []string{"half of it"}}
	b := newBoard(cfg)
	agreement := Agreement{
		At: 1, Level: true, Since: 2, Ledger: 3, Group: 4, Messages: 5, Owed: 6, Missing: 7, Apart: []Apart{{8, 9, 10, 11, 12}}, Differ: 13, Error: "an error",
	}
	b.comparison = &comparison{last: &agreement}
	v, err := b.join()
	if err != nil {
		t.Fatal(err)
	}
	begin := time.UnixMilli(1_000_000)
	b.advance(begin)
	n.times = 2
	b.advance(begin.Add(pointSpan))
	decode(t, <-v.events, "history", &[]Point{})
	decode(t, <-v.events, "figures", &Figures{})
	var got Figures
	decode(t, <-v.events, "figures", &got)

	total := func(name string) (sum float64) {
		for _, number := range n.of(t, name) {
			sum += number
		}
		return sum
	}
	rate := func(name string) float64 { return total(name) / 2 / 10 } // half of it came in the 10 s
	delivered := total("tiffin_delivery_seconds")
	want := Figures{
		At: 1_010_000, Reasons: []string{"a reason"}, Progress: []string{"half of it"},
		Rates: Rates{
			Changes: rate("tiffin_cdc_changes_total"), Transactions: rate("tiffin_cdc_transactions_total"), Lookups: rate("tiffin_index_lookups_total"),
			Campaigns: rate("tiffin_campaigns_total"), Deliveries: rate("tiffin_deliveries_total"), DeadLetters: rate("tiffin_dead_letters_total"),
		},
		Visible:   within(100e-6, 250e-6, total("tiffin_cdc_visible_seconds")),
		Fence:     within(1e-3, 2.5e-3, total("tiffin_fence_seconds")),
		Delivery:  within(.05, .075, delivered),
		Campaigns: n.of(t, "tiffin_campaigns_total"),
		Lookups:   n.of(t, "tiffin_index_lookups_total"),
		Index:     IndexFigures{Subscriptions: total("tiffin_index_subscriptions"), Restaurants: total("tiffin_index_restaurants"), Bytes: total("tiffin_index_bytes")},
		Source: SourceFigures{
			Lag: total("tiffin_cdc_lag_bytes"), Retained: total("tiffin_slot_retained_bytes"), Limit: total("tiffin_slot_retained_limit_bytes"), Rebuilds: total("tiffin_rebuilds_total"),
		},
		Sinks: SinkFigures{
			Deliveries: total("tiffin_deliveries_total"), Recovered: total("tiffin_recovered_deliveries_total"), Retries: n.of(t, "tiffin_sink_retries_total"),
			DeadLetters: total("tiffin_dead_letters_total"), Lanes: total("tiffin_lanes"), Left: total("tiffin_lane_deliveries_left"),
		},
		Agreement: &agreement,
		Point:     &Point{At: 1_010_000, Quantiles: within(.05, .075, delivered/2)},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%s\nwant\n%s", eventOf("figures", got), eventOf("figures", want))
	}
	// The page takes these apart by name.
	for _, labels := range []struct {
		of    map[string]float64
		names []string
	}{
		{got.Campaigns, []string{"delivered", "inactive", "malformed", "no_subscribers"}},
		{got.Lookups, []string{"empty", "filled", "resident"}},
		{got.Sinks.Retries, []string{"kafka", "postgres"}},
	} {
		if names := slices.Sorted(maps.Keys(labels.of)); !slices.Equal(names, labels.names) {
			t.Errorf("the labels are %q, want %q", names, labels.names)
		}
	}
}
