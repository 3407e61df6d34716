package stream_test

import (
	"context"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"

	"example.com/tiffin/cache"
	"example.com/tiffin/stream"
)

// heldIndex holds up the first lookup.
type heldIndex struct {
	*cache.Index
	once     sync.Once
	at, open chan struct{}
}

func (h *heldIndex) LookupReading(ctx context.Context, restaurant string, rows int) (*cache.Recipients, error) {
	h.once.Do(func() { close(h.at); <-h.open })
	return h.Index.LookupReading(ctx, restaurant, rows)
}

// countedFence counts the polls.
type countedFence struct {
	noFence
	polls atomic.Int32
}

func (f *countedFence) Wait(ctx context.Context) (cache.Mark, error) {
	defer f.polls.Add(1)
	return f.noFence.Wait(ctx)
}

// stuckFence is that of a process that takes partitions and handles nothing.
type stuckFence struct{}

func (stuckFence) Wait(ctx context.Context) (cache.Mark, error) {
	<-ctx.Done()
	return cache.Mark{}, ctx.Err()
}

// noise is a text that does not compress.
func noise(n int) string {
	b := make([]byte, n/2)
	for i := range b {
		b[i] = byte(rand.N(256))
	}
	return hex.EncodeToString(b)
}

// A partition goes to another process, which handles nothing, and comes back, while what was read of it before is
// being handled: the messages that were passed over meanwhile are read again, and what was read behind them is not
// taken for their successors.
func TestPartitionThatComesBackLosesNothing(t *testing.T) {
	t.Parallel()
	const each = 400 // of a partition: more than one fetch brings
	r := newRig(t, 2, map[string][]string{"r": {"a"}})
	if err := r.cfg.Prepare(t.Context(), r.db.Connect(t)); err != nil {
		t.Fatal(err)
	}
	for p := range int32(2) {
		values := make([][]byte, each)
		for i := range values {
			m := campaign("r", fmt.Sprint(p, " ", i))
			m.Content = noise(10_000)
			values[i] = m.json(t)
		}
		r.publish(p, values...)
	}
	owned := func(by string) int {
		return r.number(`SELECT count(*) FROM tiffin.progress WHERE owner = '` + by + `'`)
	}
	index, fence := &heldIndex{Index: r.index, at: make(chan struct{}), open: make(chan struct{})}, &countedFence{}
	stop := r.member("one", index, fence)
	<-index.at // what was polled first is being handled
	r.eventually("more to be polled", func() bool { return fence.polls.Load() > 1 })
	stopOther := r.member("two", r.index, stuckFence{})
	r.eventually("the other process to have a partition", func() bool { return owned("two") == 1 })
	lock := r.db.Connect(t)
	if _, err := lock.Exec(t.Context(), `BEGIN; LOCK TABLE subscribers_feedback IN SHARE MODE`); err != nil {
		t.Fatal(err)
	}
	close(index.open)
	r.eventually("the first rows to wait", func() bool {
		return r.number(`SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'subscribers_feedback'::regclass`) > 0
	})
	stopOther()
	r.eventually("the partition to be back", func() bool { return owned("one") == 2 })
	if _, err := lock.Exec(t.Context(), `ROLLBACK`); err != nil {
		t.Fatal(err)
	}
	r.eventually("all to be handled", func() bool { return r.groupOffset(0) >= each && r.groupOffset(1) >= each })
	stop()
	r.wantDelivered(2*each, 2*each)
}

// A process joins and leaves again while the other one has nothing to read: nothing went wrong, and no session
// ends, though a partition went and came back within one poll.
func TestOrderlyRebalanceEndsNoSession(t *testing.T) {
	t.Parallel()
	r := newRig(t, 2, map[string][]string{"r": {"a"}})
	log := r.logging()
	if err := r.cfg.Prepare(t.Context(), r.db.Connect(t)); err != nil {
		t.Fatal(err)
	}
	owned := func(by string) int {
		return r.number(`SELECT count(*) FROM tiffin.progress WHERE owner = '` + by + `'`)
	}
	stop := r.member("one", r.index, noFence{})
	r.eventually("both partitions", func() bool { return owned("one") == 2 })
	const rounds = 4
	for i := range rounds {
		stopOther := r.member("two", r.index, noFence{})
		r.eventually("the other process to have a partition", func() bool { return owned("two") == 1 })
		p := int32(r.number(`SELECT partition FROM tiffin.progress WHERE owner = 'two'`))
		stopOther()
		r.eventually("the partition to be back", func() bool { return owned("one") == 2 })
		r.publish(p, campaign("r", fmt.Sprint(i)).json(t))
		r.eventually("the row", func() bool { return r.rowCount() == i+1 })
	}
	stop()
	r.wantDelivered(rounds, rounds)
	if n := log.lines("delivery interrupted"); n > 0 {
		t.Errorf("%d sessions ended though nothing went wrong", n)
	}
}

// member runs a process of the group, of dynamic membership.
func (r *rig) member(name string, index stream.Index, fence stream.Fence) (stop func()) {
	r.t.Helper()
	cfg := r.cfg
	cfg.Kafka.InstanceID, cfg.Kafka.Process = "", name
	e, err := stream.New(cfg, index, fence)
	if err != nil {
		r.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(r.t.Context())
	done := make(chan error, 1)
	go func() { done <- e.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			r.t.Errorf("%s: %v", name, err)
		}
	})
	r.t.Cleanup(stop)
	return stop
}
