package stream_test

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"example.com/tiffin/cache"
	"example.com/tiffin/stream"
)

// stuckIndex hangs in its first lookup until it is released.
type stuckIndex struct {
	stream.Index
	entered, released chan struct{}
	once              sync.Once
}

func (s *stuckIndex) LookupReading(ctx context.Context, restaurant string, rows int) (*cache.Recipients, error) {
	s.once.Do(func() {
		close(s.entered)
		<-s.released
	})
	return s.Index.LookupReading(ctx, restaurant, rows)
}

// A stream with nothing to do hangs for no length of time; one that hangs in a lookup does, beyond
// what reading a large restaurant may take.
func TestHangingStreamIsNamed(t *testing.T) {
	t.Parallel()
	r := newRig(t, 1, map[string][]string{"one": {"a"}})
	index := &stuckIndex{Index: r.index, entered: make(chan struct{}), released: make(chan struct{})}
	release := sync.OnceFunc(func() { close(index.released) })
	e, err := stream.New(r.cfg, index, noFence{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- e.Run(ctx) }()
	t.Cleanup(func() {
		release()
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	clock := time.Now()
	passes := func(d time.Duration) string {
		e.Hangs(clock) // sees who beat until now
		clock = clock.Add(d)
		return strings.Join(e.Hangs(clock), "; ")
	}
	r.eventually("readiness", func() bool { return len(e.Reasons()) == 0 })
	if got := passes(24 * time.Hour); got != "" {
		t.Errorf("idle for a day: %s", got)
	}
	m := campaign("one", "stuck")
	r.publish(0, m.json(t))
	<-index.entered
	if got := passes(20 * time.Minute); got != "" {
		t.Errorf("a long lookup: %s", got)
	}
	if got := passes(20 * time.Minute); !strings.HasPrefix(got, "stream: the planner hangs: no sign of life for ") {
		t.Errorf("a lookup that never ends: %q", got)
	}
	release()
	r.eventually("the delivery", func() bool { return len(r.records(r.cfg.Kafka.Output)) == 1 })
	if got := passes(24 * time.Hour); got != "" {
		t.Errorf("idle again: %s", got)
	}
}
