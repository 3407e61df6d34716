package work

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sync/errgroup"

	"example.com/tiffin/cmd/bench/internal/testbed"
)

// OpenLoop publishes campaigns at fixed times, whatever becomes of those before, and takes the time
// from each campaign's scheduled time until a read_committed consumer has the last of its deliveries.
// A producer or a contender that falls behind makes all that follow late: nothing is left out
// (coordinated omission).
type OpenLoop struct {
	Work   *Workload
	Stage  *testbed.Stage
	Lane   *testbed.Lane
	Every  time.Duration // from campaign to campaign
	WarmUp int           // campaigns, the first, whose times are not kept

	Campaigns int // of the workload, the first; 0: all
}

func (o *OpenLoop) campaigns() int {
	if o.Campaigns > 0 {
		return o.Campaigns
	}
	return o.Work.Campaigns
}

// The histogram's range and precision: 1 µs to 10 min, three digits.
const (
	leastMicros = 1
	mostMicros  = 600_000_000
	digits      = 3
)

// straggling is how long after the last was due the consumer waits for what is missing.
const straggling = 60 * time.Second

// Run publishes the campaigns. The histogram is in microseconds; its count is of the campaigns that
// were not warm-up. One that has not arrived whole when Run gives up counts as late as it is then,
// and the error says how many there are.
func (o *OpenLoop) Run(ctx context.Context, of Ender, progress func(done int64)) (*hdrhistogram.Histogram, error) {
	producer, err := o.publisher(ctx)
	if err != nil {
		return nil, err
	}
	defer producer.Close()
	return o.run(ctx, of, progress, func(ctx context.Context, begin time.Time) error { return o.publish(ctx, producer, begin) })
}

func (o *OpenLoop) publisher(ctx context.Context) (*kgo.Client, error) {
	producer, err := kgo.NewClient(kgo.SeedBrokers(o.Stage.Brokers...), kgo.DefaultProduceTopic(o.Stage.Input), kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.ProducerLinger(0), kgo.ProducerBatchCompression(kgo.NoCompression()))
	if err != nil {
		return nil, fmt.Errorf("publish campaigns: %w", err)
	}
	if err := producer.Ping(ctx); err != nil {
		producer.Close()
		return nil, fmt.Errorf("publish campaigns: %w", err)
	}
	return producer, nil
}

func (o *OpenLoop) publish(ctx context.Context, producer *kgo.Client, begin time.Time) error {
	var faults kgo.FirstErrPromise
	if err := o.pace(ctx, begin, func(n int) { producer.Produce(ctx, o.Work.Record(n), faults.Promise()) }); err != nil {
		return err
	}
	return errors.Join(producer.Flush(ctx), faults.Err())
}

// Limit takes the times of the plainest program that delivers the same campaigns to the lane: it
// knows them and their recipients, and begins each when it is due, as one Postgres and one Kafka
// transaction side by side.
func (o *OpenLoop) Limit(ctx context.Context) (*hdrhistogram.Histogram, error) {
	return o.limit(ctx, func(ctx context.Context, begin time.Time, due chan<- span, batches []span) error {
		return o.pace(ctx, begin, func(n int) { due <- batches[n] })
	})
}

// Least is Limit of a program that learns from the campaigns' topic that one is due, as tiffin does, by its partition
// and offset: it does not look into the message.
func (o *OpenLoop) Least(ctx context.Context) (*hdrhistogram.Histogram, error) {
	producer, err := o.publisher(ctx)
	if err != nil {
		return nil, err
	}
	defer producer.Close()
	input, err := inputOf(o.Lane)
	if err != nil {
		return nil, err
	}
	defer input.Close()
	return o.limit(ctx, func(ctx context.Context, begin time.Time, due chan<- span, batches []span) error {
		published := make(chan error, 1)
		go func() { published <- o.publish(ctx, producer, begin) }()
		err := readCampaigns(ctx, input, len(batches), func(r *kgo.Record) { due <- batches[int(r.Offset)*o.Work.Partitions+int(r.Partition)] })
		return errors.Join(err, <-published)
	})
}

// limit moves each campaign when tell says that it is due.
func (o *OpenLoop) limit(ctx context.Context, tell func(ctx context.Context, begin time.Time, due chan<- span, batches []span) error) (*hdrhistogram.Histogram, error) {
	plan, err := planLimit(o.Work, o.Lane, o.campaigns(), true)
	if err != nil {
		return nil, err
	}
	m, err := newMover(ctx, plan, o.Lane, LimitForm{3, 3}) // none waits for another's connection
	if err != nil {
		return nil, err
	}
	defer m.close()
	due := make(chan span, o.campaigns())
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return m.run(ctx, due) })
	h, err := o.run(ctx, forever{}, func(int64) {}, func(ctx context.Context, begin time.Time) error {
		defer close(due)
		return tell(ctx, begin, due, plan.batches)
	})
	return h, errors.Join(err, group.Wait())
}

// forever is a contender that does not end by itself.
type forever struct{}

// Exited implements Ender, as Ended does.
func (forever) Exited() <-chan struct{} { return nil }

func (forever) Ended(string) error { return nil }

// run lets send do its work while the deliveries are awaited.
func (o *OpenLoop) run(ctx context.Context, of Ender, progress func(int64), send func(context.Context, time.Time) error) (*hdrhistogram.Histogram, error) {
	arrivals, err := o.consume()
	if err != nil {
		return nil, err
	}
	defer arrivals.client.Close()
	total := time.Duration(o.campaigns()) * o.Every
	ctx, cancel := context.WithTimeout(ctx, total+straggling)
	defer cancel()
	begin := time.Now().Add(100 * time.Millisecond) // the consumer is there by then
	arrivals.expect(begin)
	sent := make(chan error, 1)
	go func() { sent <- send(ctx, begin) }()
	err = arrivals.await(ctx, of, progress)
	if err != nil {
		arrivals.giveUp(time.Now())
	}
	cancel()
	if fault := <-sent; fault != nil && !errors.Is(fault, context.Canceled) {
		err = errors.Join(err, fmt.Errorf("publish campaigns: %w", fault))
	}
	return arrivals.latencies, err
}

// pace calls do for every campaign when it is due.
func (o *OpenLoop) pace(ctx context.Context, begin time.Time, do func(n int)) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for n := range o.campaigns() {
		timer.Reset(time.Until(begin.Add(time.Duration(n) * o.Every)))
		select {
		case <-timer.C:
		case <-ctx.Done():
			return ctx.Err()
		}
		do(n)
	}
	return nil
}

// arrivals counts deliveries by campaign as they become visible. One goroutine reads.
type arrivals struct {
	loop      *OpenLoop
	client    *kgo.Client
	latencies *hdrhistogram.Histogram
	open      map[string]*arrival // by campaign id
	done      int64
}

type arrival struct {
	due     time.Time
	missing int
	warm    bool
}

func (o *OpenLoop) consume() (*arrivals, error) {
	client, err := kgo.NewClient(kgo.SeedBrokers(o.Lane.Brokers...), kgo.ConsumeTopics(o.Lane.Output),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.FetchIsolationLevel(kgo.ReadCommitted()))
	if err != nil {
		return nil, fmt.Errorf("read the deliveries: %w", err)
	}
	return &arrivals{loop: o, client: client, latencies: hdrhistogram.New(leastMicros, mostMicros, digits), open: map[string]*arrival{}}, nil
}

func (a *arrivals) expect(begin time.Time) {
	w := a.loop.Work
	for n := range a.loop.campaigns() {
		a.open[w.Campaign(n).ID] = &arrival{due: begin.Add(time.Duration(n) * a.loop.Every), missing: w.Fanout(n), warm: n >= a.loop.WarmUp}
	}
}

// await reads until every campaign has arrived whole.
func (a *arrivals) await(ctx context.Context, of Ender, progress func(int64)) error {
	asked := ctx
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var watch sync.WaitGroup
	defer watch.Wait()
	watch.Go(func() {
		select {
		case <-of.Exited():
			cancel()
		case <-ctx.Done():
		}
	})
	defer cancel() // before the wait
	for len(a.open) > 0 {
		fetches := a.client.PollFetches(ctx)
		now := time.Now()
		select {
		case <-of.Exited():
			return of.Ended("under load")
		default:
		}
		if errors.Is(asked.Err(), context.Canceled) {
			return asked.Err()
		}
		if ctx.Err() != nil {
			return fmt.Errorf("%d campaigns did not arrive whole within %v of when the last was due", len(a.open), straggling)
		}
		if err := fetches.Err(); err != nil {
			return fmt.Errorf("read the deliveries: %w", err)
		}
		fetches.EachRecord(func(r *kgo.Record) { a.arrived(r.Value, now) })
		progress(a.done)
	}
	return nil
}

func (a *arrivals) arrived(value []byte, now time.Time) {
	at, ok := a.open[string(campaignID(value))]
	if !ok {
		return // twice; the oracle counts
	}
	if at.missing--; at.missing > 0 {
		return
	}
	delete(a.open, string(campaignID(value)))
	a.done++
	a.keep(at, now)
}

// keep records a time.
func (a *arrivals) keep(at *arrival, now time.Time) {
	if at.warm {
		_ = a.latencies.RecordValue(min(max(leastMicros, now.Sub(at.due).Microseconds()), mostMicros)) // it fits
	}
}

// giveUp counts what has not arrived as if it did now: percentiles without it would be of whoever
// loses what is slow.
func (a *arrivals) giveUp(now time.Time) {
	for _, at := range a.open {
		a.keep(at, now)
	}
}

// campaignID is the second field of every delivery; parsing the rest would cost the machine more
// than the contender.
func campaignID(value []byte) []byte {
	_, rest, _ := bytes.Cut(value, []byte(`"adv_campaign_id":"`))
	id, _, _ := bytes.Cut(rest, []byte(`"`))
	return id
}
