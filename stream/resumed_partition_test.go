package stream_test

import (
	"fmt"
	"log/slog"
	"sync/atomic"
	"testing"
	"time"

	"example.com/tiffin/stream"
)

// wellUnder is what a campaign may wait for in a partition that goes on while the others are idle.
// A busy machine needs a part of it; the wait that it tells from that is of seconds.
const wellUnder = 1500 * time.Millisecond

// A partition that was paused for a large campaign, and one that was taken over, are read at once,
// although a request for the other, idle partitions is waiting at the broker meanwhile.
func TestPartitionThatGoesOnIsReadAtOnce(t *testing.T) {
	t.Parallel()
	r := newRig(t, 3, map[string][]string{"large": clients(60), "small": {"c"}})
	r.cfg.MaxTransactionRecords = 10
	var taken atomic.Int32
	r.cfg.Log = slog.New(watching{r.cfg.Log.Handler(), "partition taken", &taken})
	_, stop := r.start()
	r.eventually("the partitions", func() bool { return taken.Load() == 3 })
	for round := range 4 {
		next := r.publish(0, campaign("large", fmt.Sprint("large ", round)).json(t)) + 1
		r.eventually("a chunk", func() bool { return r.sent(0) > 0 })
		r.publish(0, campaign("small", fmt.Sprint("small ", round)).json(t))
		r.eventually("the end of the large campaign", func() bool { return r.committed(0).At >= next })
		r.wantHandled(0, next, fmt.Sprint("behind large campaign ", round))
	}
	_, stopOther := r.start(func(c *stream.Config) { c.Kafka.InstanceID, c.Kafka.Process = "two", "two" })
	r.eventually("the other process' partition", func() bool { return taken.Load() >= 4 })
	before, its := taken.Load(), int32(r.number(`SELECT min(partition) FROM tiffin.progress WHERE owner = 'two'`))
	if err := stopOther(); err != nil {
		t.Fatal(err)
	}
	r.eventually("the partition's way back", func() bool { return taken.Load() > before })
	r.wantHandled(its, r.publish(its, campaign("small", "after").json(t)), "of the partition that was taken over")
	if err := stop(); err != nil {
		t.Fatal(err)
	}
}

// wantHandled waits until a message is in both sinks, and says when that took long.
func (r *rig) wantHandled(partition int32, offset int64, what string) {
	r.t.Helper()
	begun := time.Now()
	r.eventually("the campaign "+what, func() bool { return r.committed(partition).At > offset })
	if took := time.Since(begun); took > wellUnder {
		r.t.Errorf("the campaign %s was in both sinks after %v: want less than %v", what, took.Round(time.Millisecond), wellUnder)
	}
}
