package livepage

import (
	"math"
	"time"

	dto "github.com/prometheus/client_model/go"
)

// sample is what the metrics said at one moment.
type sample struct {
	at       time.Time
	families map[string]*dto.MetricFamily
}

func newSample(at time.Time, families []*dto.MetricFamily) sample {
	s := sample{at: at, families: make(map[string]*dto.MetricFamily, len(families))}
	for _, f := range families {
		s.families[f.GetName()] = f
	}
	return s
}

// total adds up all of a counter or gauge, whatever its labels; 0 when there is none.
func (s *sample) total(name string) (sum float64) {
	for _, m := range s.families[name].GetMetric() {
		sum += value(m)
	}
	return sum
}

// each tells a counter's values by its only label.
func (s *sample) each(name string) map[string]float64 {
	values := map[string]float64{}
	for _, m := range s.families[name].GetMetric() {
		for _, label := range m.GetLabel() {
			values[label.GetValue()] += value(m)
		}
	}
	return values
}

func value(m *dto.Metric) float64 {
	return m.GetCounter().GetValue() + m.GetGauge().GetValue() // one of them is absent: 0
}

func (s *sample) histogram(name string) histogram {
	var h histogram
	for _, m := range s.families[name].GetMetric() {
		h.count = m.GetHistogram().GetSampleCount()
		for _, b := range m.GetHistogram().GetBucket() {
			if math.IsInf(b.GetUpperBound(), 1) {
				continue
			}
			h.bounds = append(h.bounds, b.GetUpperBound())
			h.below = append(h.below, b.GetCumulativeCount())
		}
	}
	return h
}

// histogram is a cumulative one: below[i] observations were at most bounds[i].
type histogram struct {
	bounds []float64 // ascending, in seconds
	below  []uint64
	count  uint64
}

// since is what was observed after an earlier state; the zero value is the beginning.
func (h histogram) since(earlier histogram) histogram {
	if len(earlier.below) != len(h.below) || earlier.count > h.count {
		return h
	}
	d := histogram{bounds: h.bounds, below: make([]uint64, len(h.below)), count: h.count - earlier.count}
	for i := range h.below {
		d.below[i] = h.below[i] - earlier.below[i]
	}
	return d
}

// quantile estimates as Prometheus' histogram_quantile does: evenly spread within a bucket, and at
// most the last bound. It is 0 without observations.
func (h histogram) quantile(q float64) float64 {
	if h.count == 0 || len(h.bounds) == 0 {
		return 0
	}
	rank := q * float64(h.count)
	lower, before := 0.0, 0.0
	for i, bound := range h.bounds {
		if at := float64(h.below[i]); at >= rank {
			if at == before {
				return lower
			}
			return lower + (bound-lower)*(rank-before)/(at-before)
		}
		lower, before = bound, float64(h.below[i])
	}
	return lower
}
