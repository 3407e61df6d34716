package demo

import (
	"fmt"
	"math"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

// freshness is what the daemon's histograms say of all its time so far.
type freshness struct {
	visible, fence, delivery quantiles
}

// quantiles are 0 where nothing was observed.
type quantiles struct{ p50, p99 time.Duration }

// String is one line.
func (f freshness) String() string {
	return fmt.Sprintf("commit to index %s, fence %s, campaign to sinks %s", f.visible, f.fence, f.delivery)
}

// String is "p50 / p99".
func (q quantiles) String() string {
	if q.p99 == 0 {
		return "-"
	}
	return fmt.Sprintf("%s / %s", short(q.p50), short(q.p99))
}

// short keeps two digits or three: the buckets know no more.
func short(d time.Duration) string {
	switch {
	case d < time.Millisecond:
		return fmt.Sprintf("%d µs", d.Microseconds())
	case d < 10*time.Millisecond:
		return fmt.Sprintf("%.1f ms", d.Seconds()*1e3)
	case d < time.Second:
		return fmt.Sprintf("%d ms", d.Milliseconds())
	default:
		return fmt.Sprintf("%.1f s", d.Seconds())
	}
}

func readFreshness(from prometheus.Gatherer) (f freshness) {
	families, err := from.Gather()
	if err != nil {
		return f // shown as nothing observed
	}
	for _, family := range families {
		into := map[string]*quantiles{
			"tiffin_cdc_visible_seconds": &f.visible, "tiffin_fence_seconds": &f.fence, "tiffin_delivery_seconds": &f.delivery,
		}[family.GetName()]
		if into != nil && len(family.GetMetric()) == 1 {
			h := family.GetMetric()[0].GetHistogram()
			*into = quantiles{p50: quantile(h, 0.5), p99: quantile(h, 0.99)}
		}
	}
	return f
}

// quantile interpolates within a bucket, as Prometheus' histogram_quantile does; beyond the last
// bound it returns that.
func quantile(h *dto.Histogram, q float64) time.Duration {
	rank := q * float64(h.GetSampleCount())
	lower, below := 0.0, 0.0
	for _, bucket := range h.GetBucket() {
		upper, count := bucket.GetUpperBound(), float64(bucket.GetCumulativeCount())
		if math.IsInf(upper, 1) {
			break
		}
		if count >= rank && count > below {
			return seconds(lower + (upper-lower)*(rank-below)/(count-below))
		}
		lower, below = upper, count
	}
	if below == 0 {
		return 0
	}
	return seconds(lower)
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }
