package stream

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are the figures of INTERFACE.md that the stream knows. Safe for concurrent use.
type metrics struct {
	campaigns   *prometheus.CounterVec
	deliveries  prometheus.Counter
	seconds     prometheus.Histogram
	recovered   prometheus.Counter
	deadLetters *prometheus.CounterVec
	retries     *prometheus.CounterVec
	lost        *prometheus.CounterVec
}

// Why a campaign message is lost, or a part of what it caused (tiffin_lost_messages_total).
const (
	// lostUnhandled: retention deleted it before it was handled.
	lostUnhandled = "retention"
	// lostDeadLetter: retention deleted it before its dead letter, which is made of it, was sent.
	lostDeadLetter = "dead_letter"
	// lostManifest: an operator moved the group's offset back to before it, but the manifest does
	// not know it, so there is nothing to send again.
	lostManifest = "manifest"
	// lostRows: of the feedback rows that its records are made of some are gone, or another message's.
	lostRows = "rows"
)

func newMetrics(reg prometheus.Registerer, state *state) *metrics {
	m := &metrics{
		campaigns: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "tiffin_campaigns_total", Help: "Campaign messages handled, by outcome.",
		}, []string{"outcome"}),
		deliveries: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "tiffin_deliveries_total", Help: "Deliveries committed in both sinks.",
		}),
		seconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "tiffin_delivery_seconds",
			Help:    "From the campaign record's broker timestamp to both sinks committed, one observation a campaign with deliveries.",
			Buckets: []float64{.001, .0025, .005, .0075, .01, .015, .02, .03, .05, .075, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 300},
		}),
		recovered: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "tiffin_recovered_deliveries_total", Help: "Records rebuilt from feedback rows after a crash between the two commits.",
		}),
		deadLetters: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "tiffin_dead_letters_total", Help: "Records sent to the dead-letter topic, by reason.",
		}, []string{"reason"}),
		retries: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "tiffin_sink_retries_total", Help: "Sessions ended by a fault of a sink and tried again.",
		}, []string{"sink"}),
		lost: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "tiffin_lost_messages_total", Help: "Campaign messages that cannot be handled, or sent again, because what that takes was deleted, by reason.",
		}, []string{"reason"}),
	}
	for _, o := range []Outcome{Delivered, Inactive, NoSubscribers, Malformed} {
		m.campaigns.WithLabelValues(string(o))
	}
	for _, reason := range reasons() {
		m.deadLetters.WithLabelValues(reason)
	}
	for _, s := range []string{sinkPostgres, sinkKafka} {
		m.retries.WithLabelValues(s)
	}
	for _, reason := range []string{lostUnhandled, lostDeadLetter, lostManifest, lostRows} {
		m.lost.WithLabelValues(reason)
	}
	if reg != nil {
		reg.MustRegister(m.campaigns, m.deliveries, m.seconds, m.recovered, m.deadLetters, m.retries, m.lost)
		reg.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "tiffin_lanes", Help: "Large campaigns and recoveries under way, each on a lane of its own.",
		}, func() float64 { n, _ := state.left(); return float64(n) }), prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "tiffin_lane_deliveries_left", Help: "Deliveries on lanes that are not in both sinks yet.",
		}, func() float64 { _, n := state.left(); return float64(n) }))
	}
	return m
}

// delivered counts a batch that is committed in both sinks.
func (m *metrics) delivered(b *batch, now time.Time) {
	m.deliveries.Add(float64(b.deliveries))
	for _, t := range b.triggers {
		m.campaigns.WithLabelValues(string(t.outcome)).Inc()
		if t.fault != nil {
			m.deadLetters.WithLabelValues(t.fault.Reason).Inc()
		}
		if t.outcome == Delivered {
			m.seconds.Observe(max(0, now.Sub(t.published).Seconds()))
		}
	}
}
