package livepage

import (
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/collectors"
)

// BenchmarkSecond is what a second of the page costs the daemon with ten viewers, without their
// connections: the metrics are read and the figures computed once.
func BenchmarkSecond(b *testing.B) {
	m := newMeters()
	m.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	board := newBoard(config(m))
	var viewers []*viewer
	for range 10 {
		v, err := board.join()
		if err != nil {
			b.Fatal(err)
		}
		<-v.events
		viewers = append(viewers, v)
	}
	now := time.Now()
	for b.Loop() {
		now = now.Add(time.Second)
		board.advance(now)
		for _, v := range viewers {
			<-v.events
		}
	}
}
