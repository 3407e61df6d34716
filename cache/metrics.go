package cache

import (
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
)

// Metrics are what operators see of an index. A nil *Metrics counts nothing.
type Metrics struct {
	lookups map[string]prometheus.Counter // constant after NewMetrics
	index   atomic.Pointer[Index]
}

// The ways a lookup is answered.
const (
	resultResident = "resident" // from memory
	resultEmpty    = "empty"    // exactly known to have no rows: no query
	resultFilled   = "filled"   // read from the source
)

// NewMetrics registers the index's metrics; they show the Index whose Config names them.
// Like every registration it panics when names are registered twice.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	m := &Metrics{lookups: make(map[string]prometheus.Counter)}
	lookups := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "tiffin_index_lookups_total",
		Help: "Lookups answered, by where the answer came from.",
	}, []string{"result"})
	for _, result := range []string{resultResident, resultEmpty, resultFilled} {
		m.lookups[result] = lookups.WithLabelValues(result)
	}
	reg.MustRegister(lookups,
		m.gauge("tiffin_index_subscriptions", "Rows of the subscribers' table in the index.",
			func(s Stats) float64 { return float64(s.Subscriptions) }),
		m.gauge("tiffin_index_restaurants", "Restaurants that have a subscriber.",
			func(s Stats) float64 { return float64(s.Restaurants) }),
		m.gauge("tiffin_index_bytes", "Memory of the index: directory, dictionaries, id map and postings.",
			func(s Stats) float64 { return float64(s.Bytes) }),
	)
	return m
}

func (m *Metrics) gauge(name, help string, value func(Stats) float64) prometheus.Collector {
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, func() float64 {
		if x := m.index.Load(); x != nil {
			return value(x.Stats())
		}
		return 0
	})
}

func (m *Metrics) watch(x *Index) {
	if m != nil {
		m.index.Store(x)
	}
}

func (m *Metrics) lookup(result string) {
	if m != nil {
		m.lookups[result].Inc()
	}
}
