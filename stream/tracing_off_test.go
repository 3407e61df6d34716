package stream

import (
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// Without a tracer a message costs no memory and no look at the clock for one.
func TestTracingOffCostsNothing(t *testing.T) {
	t.Parallel()
	now := func() time.Time {
		t.Error("the clock was read")
		return time.Time{}
	}
	p := &planner{cfg: &Config{Now: now}}
	m := message{Record: &kgo.Record{Headers: []kgo.RecordHeader{{Key: traceparent, Value: []byte("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")}}}}
	b := newBatch()
	b.add(&trigger{})
	var made traceContext
	passage := func() {
		trace := p.begin(m)
		made = trace.context()
		trace.planned()
		b.timing.postgres.begin(b, now)
		b.timing.postgres.end(b, now, nil, &b.timing.postgresErr)
		b.timing.kafka.begin(b, now)
		b.timing.kafka.end(b, now, nil, &b.timing.kafkaErr)
		b.endTraces()
	}
	if n := testing.Benchmark(func(bench *testing.B) {
		bench.ReportAllocs()
		for bench.Loop() {
			passage()
		}
	}); n.AllocsPerOp() != 0 || made != (traceContext{}) {
		t.Errorf("a message without tracing: %s, context %v", n.MemString(), made)
	}
}
