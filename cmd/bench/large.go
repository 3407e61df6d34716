package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"example.com/tiffin/cmd/bench/internal/harness"
	"example.com/tiffin/cmd/bench/internal/testbed"
	"example.com/tiffin/cmd/bench/internal/work"
)

// The cases and figures of the scenario large.
const (
	undisturbed   = "undisturbed"
	killed        = "killed in each chunk"
	aboveRest     = "memory above rest"
	chunksReached = "chunks killed in"
)

// chunk is delivery.max_transaction_records, as it is by default.
const chunk = 50_000

// large is one campaign of as many recipients as it has subscriptions.
func large() harness.Scenario {
	return harness.Scenario{
		Name:    "large",
		Summary: "one campaign of 1,000,000 recipients: memory, and kill -9 once before it is stored and once in each chunk",
		Goals: []harness.Goal{
			harness.AtMost(undisturbed, aboveRest, 96<<20).In(harness.Bytes),
			harness.AtMost(undisturbed, memory, 200e6).In(harness.Bytes),
			harness.AtLeast(killed, chunksReached, 1).OfLimit(),
		},
		Run: runLarge,
	}
}

func runLarge(ctx context.Context, e *harness.Env) (r *harness.Result, err error) {
	shape := work.Shape{Campaigns: 1, Restaurants: 1, Subscriptions: 1_000_000}
	if e.Quick {
		shape.Subscriptions = 150_000
	}
	w, err := work.New(shape, time.Now())
	if err != nil {
		return nil, err
	}
	stage, err := stageOf(ctx, e, w)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, stage.Close(ctx)) }()
	e.Say("%s subscriptions are loaded", humanize.Comma(int64(w.Subscriptions)))
	r = &harness.Result{}
	if e.Wants(undisturbed) {
		if err := largeUndisturbed(ctx, e, stage, w, r); err != nil {
			return r, fmt.Errorf("%s: %w", undisturbed, err)
		}
	} else if err := w.Publish(ctx, stage, 0, 1); err != nil {
		return r, err
	}
	if e.Wants(killed) {
		if err := largeKilled(ctx, e, stage, w, r); err != nil {
			return r, fmt.Errorf("%s: %w", killed, err)
		}
	}
	r.Note("One campaign of %s recipients, %s records a Kafka transaction; memory above rest is the peak less what the daemon held when it was ready.",
		humanize.Comma(int64(w.Subscriptions)), humanize.Comma(chunk))
	return r, nil
}

// largeUndisturbed publishes the campaign once the daemon is at rest.
func largeUndisturbed(ctx context.Context, e *harness.Env, stage *testbed.Stage, w *work.Workload, r *harness.Result) (err error) {
	lane, err := stage.NewLane(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stage.Discard(context.WithoutCancel(ctx), lane)) }()
	program, err := e.Program(ctx)
	if err != nil {
		return err
	}
	t, err := testbed.StartTiffin(ctx, program, lane, nil)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, t.Stop()) }()
	if _, err := t.WaitReady(ctx); err != nil {
		return err
	}
	meter := testbed.StartMeter(map[string]int{self: t.PID()})
	begun := time.Now()
	err = w.Publish(ctx, stage, 0, 1)
	var ended time.Time
	if err == nil {
		ended, err = work.AwaitGroup(ctx, lane, 1, t, func(int64) {})
	}
	meter.Stop()
	if err != nil {
		return err
	}
	samples := meter.Memory[self]
	rest, most := samples[0][1], 0.0
	for _, s := range samples {
		most = max(most, s[1])
	}
	r.Add(
		harness.Figure{Case: undisturbed, Name: aboveRest, Unit: harness.Bytes, Value: most - rest},
		harness.Figure{Case: undisturbed, Name: memory, Unit: harness.Bytes, Value: float64(meter.Peak[self])},
		harness.Figure{Case: undisturbed, Name: deliveries, Unit: harness.PerSecond, Value: float64(w.Subscriptions) / ended.Sub(begun).Seconds()},
	)
	r.Series = append(r.Series, harness.Series{
		Title: "Memory, one campaign of " + humanize.Comma(int64(w.Subscriptions)), X: "seconds since it was published", Y: "bytes", Kind: harness.Linear,
		Lines: []harness.Line{{Name: harness.Tiffin, Points: samples}},
	})
	v, err := work.Verify(ctx, w, lane, work.UpTo(1))
	if err != nil {
		return err
	}
	v.Case, v.Guarantee = undisturbed, exactlyOnce
	return r.Judge(v)
}

// largeKilled starts the daemon again and again, and kills it once it has come further than
// where it was killed before.
func largeKilled(ctx context.Context, e *harness.Env, stage *testbed.Stage, w *work.Workload, r *harness.Result) (err error) {
	lane, err := stage.NewLane(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stage.Discard(context.WithoutCancel(ctx), lane)) }()
	program, err := e.Program(ctx)
	if err != nil {
		return err
	}
	watch, err := watchLarge(ctx, lane)
	if err != nil {
		return err
	}
	defer watch.close(ctx)
	points := 1 + (w.Subscriptions+chunk-1)/chunk // one before the rows are stored
	bar := e.Bar(int64(points), "kills")
	defer bar.Done()
	hits, next := 0, 0
	for next < points {
		hit, err := killOnce(ctx, program, lane, watch, next)
		if err != nil {
			return err
		}
		if hit < points { // later: it had come to its end
			hits++
		}
		next = hit + 1
		bar.Set(int64(next))
	}
	if err := finishLarge(ctx, program, lane); err != nil {
		return err
	}
	r.Add(harness.Figure{Case: killed, Name: chunksReached, Unit: harness.Count, Value: float64(hits), Limit: float64(points)})
	v, err := work.Verify(ctx, w, lane, work.UpTo(1))
	if err != nil {
		return err
	}
	v.Case, v.Guarantee = killed, exactlyOnce
	return r.Judge(v)
}

// killOnce returns the point at which it killed: next, or a later one if it was too slow.
func killOnce(ctx context.Context, program string, lane *testbed.Lane, watch *largeWatch, next int) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, harness.Patience)
	defer cancel()
	t, err := testbed.StartTiffin(ctx, program, lane, nil)
	if err != nil {
		return 0, err
	}
	defer t.Kill()
	ticker := time.NewTicker(2 * time.Millisecond)
	defer ticker.Stop()
	for {
		at, err := watch.point(ctx)
		if err != nil {
			return 0, err
		}
		if at >= next {
			t.Kill()
			return watch.point(ctx)
		}
		select {
		case <-t.Exited():
			return 0, t.Ended("before it was killed")
		case <-ctx.Done():
			return 0, fmt.Errorf("wait for point %d of the campaign: %w", next, ctx.Err())
		case <-ticker.C:
		}
	}
}

// finishLarge lets a last life come to the end.
func finishLarge(ctx context.Context, program string, lane *testbed.Lane) (err error) {
	t, err := testbed.StartTiffin(ctx, program, lane, nil)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, t.Stop()) }()
	_, err = work.AwaitGroup(ctx, lane, 1, t, func(int64) {})
	return err
}

// largeWatch tells from outside how far the campaign is.
type largeWatch struct {
	lane  *testbed.Lane
	conn  *pgx.Conn
	admin *kadm.Client
}

func watchLarge(ctx context.Context, lane *testbed.Lane) (*largeWatch, error) {
	conn, err := pgx.Connect(ctx, lane.FeedbackDSN)
	if err != nil {
		return nil, fmt.Errorf("watch the feedback database: %w", err)
	}
	client, err := kgo.NewClient(kgo.SeedBrokers(lane.Brokers...))
	if err != nil {
		return nil, errors.Join(fmt.Errorf("watch the group: %w", err), conn.Close(ctx))
	}
	return &largeWatch{lane, conn, kadm.NewClient(client)}, nil
}

func (l *largeWatch) close(ctx context.Context) {
	l.admin.Close()
	_ = l.conn.Close(context.WithoutCancel(ctx)) // it only asked
}

// point is -1 before the first row is inserted, 0 while the rows are, 1 once they are stored
// and until the first chunk is out, and so on.
func (l *largeWatch) point(ctx context.Context) (int, error) {
	var begun, stored bool
	err := l.conn.QueryRow(ctx, `SELECT pg_relation_size('subscribers_feedback') > 0, to_regclass('tiffin.trigger') IS NOT NULL`).Scan(&begun, &stored)
	if err == nil && stored {
		err = l.conn.QueryRow(ctx, `SELECT EXISTS (SELECT FROM tiffin.trigger)`).Scan(&stored)
	}
	if err != nil {
		return 0, fmt.Errorf("watch the feedback database: %w", err)
	}
	if !stored {
		if begun {
			return 0, nil
		}
		return -1, nil
	}
	offsets, err := l.admin.FetchOffsets(ctx, l.lane.Group)
	if err != nil {
		return 0, fmt.Errorf("watch the group: %w", err)
	}
	o, _ := offsets.Lookup(l.lane.Input, 0)
	if o.At > 0 {
		return 1 << 30, nil
	}
	sent := 0
	_, _ = fmt.Sscanf(o.Metadata, "tiffin sent=%d", &sent) // nothing yet: none
	return 1 + sent/chunk, nil
}
