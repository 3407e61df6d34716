package work

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// A contender or producer that stalls makes all that is due meanwhile late: a campaign's time is
// counted from when it was due, not from when it was sent.
func TestLatencyIsCountedFromWhenItWasDue(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w, err := New(Shape{Restaurants: 5, Subscriptions: 10, Campaigns: 6}, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		loop := &OpenLoop{Work: w, Every: 10 * time.Millisecond, WarmUp: 1}
		a := &arrivals{loop: loop, latencies: hdrhistogram.New(leastMicros, mostMicros, digits), open: map[string]*arrival{}}
		begin := time.Now()
		a.expect(begin)
		err = loop.pace(t.Context(), begin, func(n int) {
			if n == 1 {
				<-time.After(90 * time.Millisecond) // until 100 ms after the beginning
			}
			head, tail, err := w.envelope(n, 0)
			if err != nil {
				t.Error(err)
			}
			for _, client := range w.Recipients(n) {
				a.arrived([]byte(string(head)+client+string(tail)), time.Now())
			}
		})
		if err != nil {
			t.Fatal(err)
		}
		// One that never comes is as late as the end of the wait.
		a.open["lost"] = &arrival{due: begin, missing: 1, warm: true}
		a.giveUp(begin.Add(200 * time.Millisecond))
		if a.latencies.TotalCount() != 6 || (a.latencies.Max()+100)/1000 != 200 {
			t.Errorf("a lost campaign: %d latencies, at most %d µs", a.latencies.TotalCount(), a.latencies.Max())
		}
		// 90, 80, 70, 60 and 50 ms, to three digits; the first campaign was warm-up.
		if h := a.latencies; h.TotalCount() != 6 || (h.Min()+100)/1000 != 50 || (h.ValueAtPercentile(80)+100)/1000 != 90 || a.done != 6 || len(a.open) > 1 {
			t.Errorf("%d latencies from %d to %d µs; %d campaigns arrived, %d did not", h.TotalCount(), h.Min(), h.Max(), a.done, len(a.open))
		}
	})
}
