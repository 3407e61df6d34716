package cdc

import "github.com/prometheus/client_golang/prometheus"

// Metrics of the reader, with the names of the operators' manual. Safe for concurrent use.
type Metrics struct {
	transactions prometheus.Counter
	changes      *prometheus.CounterVec
	inserts      prometheus.Counter
	updates      prometheus.Counter
	deletes      prometheus.Counter
	truncates    prometheus.Counter
	lag          prometheus.Gauge
	visible      prometheus.Histogram
	retained     prometheus.Gauge
	rebuilds     *prometheus.CounterVec
	fence        prometheus.Histogram
}

// NewMetrics makes the metrics and registers them with reg; nil registers nowhere.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	m := &Metrics{
		transactions: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "tiffin_cdc_transactions_total", Help: "Source transactions with changes of the table that were applied to the index.",
		}),
		changes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "tiffin_cdc_changes_total", Help: "Row changes received for the table, by operation.",
		}, []string{"op"}),
		lag: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "tiffin_cdc_lag_bytes", Help: "The source's log end less the applied position.",
		}),
		visible: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "tiffin_cdc_visible_seconds", Help: "From a transaction's commit to its visibility in the index, by both machines' clocks.",
			Buckets: latencies(),
		}),
		retained: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "tiffin_slot_retained_bytes", Help: "Log that the slot holds back on the source.",
		}),
		rebuilds: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "tiffin_rebuilds_total", Help: "Times the index was loaded again while running, by reason.",
		}, []string{"reason"}),
		fence: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "tiffin_fence_seconds", Help: "Duration of a fence: the source's position asked for and reached.",
			Buckets: latencies(),
		}),
	}
	for _, reason := range rebuildReasons() {
		m.rebuilds.WithLabelValues(reason)
	}
	m.inserts = m.changes.WithLabelValues("insert")
	m.updates = m.changes.WithLabelValues("update")
	m.deletes = m.changes.WithLabelValues("delete")
	m.truncates = m.changes.WithLabelValues("truncate")
	if reg != nil {
		reg.MustRegister(m.transactions, m.changes, m.lag, m.visible, m.retained, m.rebuilds, m.fence)
	}
	return m
}

// rebuildReasons are the labels of tiffin_rebuilds_total. Each is there from the start: an alert sees a
// first rebuild only as the increase of a counter.
func rebuildReasons() []string {
	return []string{
		"slot_missing", "slot_invalidated", "retained_wal", "gap", "inconsistent", "system", "timeline", "history",
		"table", "columns", "identity", "partitions", "publication", "rewritten", "footing",
	}
}

// latencies are buckets from 25 µs, below an idle fence, to a minute.
func latencies() []float64 {
	return []float64{25e-6, 50e-6, 100e-6, 250e-6, 500e-6, 1e-3, 2.5e-3, 5e-3, 10e-3, 25e-3, 50e-3, 100e-3, 250e-3, 1, 5, 15, 60}
}
