package stream_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"example.com/tiffin/cache"
	"example.com/tiffin/stream"
)

// gate is a source whose position is not reached until it is opened.
type gate struct{ reached, open chan struct{} }

func (g gate) Wait(ctx context.Context) (cache.Mark, error) {
	select {
	case g.reached <- struct{}{}:
	default:
	}
	select {
	case <-g.open:
		return cache.Mark{LSN: 7}, nil
	case <-ctx.Done():
		return cache.Mark{}, ctx.Err()
	}
}

// Retention that overtakes a process at work costs the messages that it deleted before they were
// read, and no others: they are named and counted, what was read before is delivered, and the
// partition and its neighbour go on.
func TestRetentionOvertakesARunningDaemon(t *testing.T) {
	t.Parallel()
	r := newRig(t, 2, map[string][]string{"r": {"c"}})
	log, registry := r.logging(), prometheus.NewRegistry()
	r.cfg.Registerer = registry
	g := gate{make(chan struct{}, 1), make(chan struct{})}
	e, err := stream.New(r.cfg, r.index, g)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- e.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	r.eventually("the claims", func() bool { return log.lines("partition taken") == 2 })
	const all, deleted = 12, 9
	r.publishSome(0, 1)
	<-g.reached
	r.publish(1, campaign("r", "neighbour").json(t))
	r.publishSome(0, all-1) // a fetch of them may wait in the client, the rest is in the topic
	r.deleteRecords(r.cfg.Kafka.Input, 0, deleted)
	close(g.open)
	r.eventually("the end of both partitions", func() bool { return r.committed(0).At == all && r.committed(1).At == 1 })
	gone := int(lost(t, registry, "retention"))
	if gone == 0 || gone >= deleted {
		t.Fatalf("%d messages are counted as lost: want some of %d, and not the first", gone, deleted)
	}
	log.wants(t, "deleted by the topic's retention before they were handled")
	log.wants(t, fmt.Sprintf("from_offset=%d to_offset=%d", deleted-gone, deleted))
	log.wants(t, "retention.ms")
	log.wants(t, "what was read is delivered")
	if n := log.lines("delivery interrupted"); n != 1 {
		t.Errorf("the delivery was interrupted %d times, want once", n)
	}
	r.publishSome(0, 1)
	r.eventually("what comes after", func() bool { return r.committed(0).At == all+1 })
	r.wantDelivered(1+all-gone+1, 1+all-gone+1)
	r.wantVerdict(nil)
}
