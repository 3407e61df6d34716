package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"github.com/dustin/go-humanize"

	"example.com/tiffin/cmd/bench/internal/harness"
	"example.com/tiffin/cmd/bench/internal/work"
)

// latencyCase is a load of campaigns at fixed times.
type latencyCase struct {
	name     string
	fanout   int
	every    time.Duration // 0: so that the contender is loaded to half of what it can do
	times    int           // campaigns that are measured
	changes  int           // of subscriptions, a second
	p50, p99 time.Duration // goals; 0: none
}

func latencyCases() []latencyCase {
	const ms = time.Millisecond
	return []latencyCase{
		{name: "idle, 1 delivery", fanout: 1, every: 20 * ms, times: 800, p99: 10 * ms},
		{name: "idle, 1,000 deliveries", fanout: 1_000, every: 50 * ms, times: 400, p50: 8 * ms, p99: 20 * ms},
		{name: "500 changes/s, 1,000 deliveries", fanout: 1_000, every: 50 * ms, times: 400, changes: 500, p50: 8 * ms, p99: 20 * ms},
		{name: "half load, 1,000 deliveries", fanout: 1_000, times: 1_000, p99: 100 * ms},
	}
}

// The percentiles that are shown, by the figures' names.
func percentiles() map[string]float64 {
	return map[string]float64{"p50": 50, "p99": 99, "p99.9": 99.9}
}

func latency() harness.Scenario {
	s := harness.Scenario{
		Name:    "latency",
		Summary: "a campaign's scheduled time to the last of its deliveries visible to a read_committed consumer: idle, under changes, at half load",
		Peers:   true, Run: runLatency,
	}
	for _, c := range latencyCases() {
		if c.p50 > 0 {
			s.Goals = append(s.Goals, harness.AtMost(c.name, "p50", c.p50.Seconds()))
		}
		s.Goals = append(s.Goals, harness.AtMost(c.name, "p99", c.p99.Seconds()))
	}
	return s
}

func runLatency(ctx context.Context, e *harness.Env) (*harness.Result, error) {
	r := &harness.Result{}
	for _, c := range latencyCases() {
		if !e.Wants(c.name) {
			continue
		}
		limit, err := limitLatency(ctx, e, c)
		if err != nil {
			return r, fmt.Errorf("%s: %w", c.name, err)
		}
		for _, who := range contenders(e) {
			if err := runLatencyCase(ctx, e, c, who, limit, r); err != nil {
				return r, fmt.Errorf("%s: %s: %w", c.name, who.name, err)
			}
		}
	}
	r.Note("Campaigns are published at fixed times whatever becomes of those before, and counted from when they were due; " +
		"the first tenth is warm-up. The limit begins a Postgres and a Kafka transaction of the same deliveries when they are due, without input or join. Exactly once, lz4, acks=all, fsync and synchronous_commit on; producer and consumer share the machine.")
	return r, nil
}

// runLatencyCase measures one contender. A peer's fault is only reported.
func runLatencyCase(ctx context.Context, e *harness.Env, c latencyCase, who contender, limit *hdrhistogram.Histogram, r *harness.Result) error {
	verdict := harness.Verdict{}
	h, every, err := measureLatency(ctx, e, c, who, &verdict)
	if err != nil {
		if who.name == harness.Tiffin {
			return err
		}
		verdict = harness.Verdict{Text: "did not finish: " + err.Error()}
	}
	verdict.Case, verdict.Who = c.name, who.name
	if h != nil && h.TotalCount() > 0 {
		e.Say("%s: %s: p50 %v, p99 %v", c.name, who.name, micros(h.ValueAtPercentile(50)), micros(h.ValueAtPercentile(99)))
		for _, name := range []string{"p50", "p99", "p99.9"} {
			f := harness.Figure{Case: c.name, Name: name, Who: who.name, Unit: harness.Seconds, Value: micros(h.ValueAtPercentile(percentiles()[name])).Seconds()}
			if limit != nil {
				f.Limit = micros(limit.ValueAtPercentile(percentiles()[name])).Seconds()
			}
			r.Add(f)
		}
		r.Add(harness.Figure{Case: c.name, Name: "max", Who: who.name, Unit: harness.Seconds, Value: micros(h.Max()).Seconds()})
		r.Add(harness.Figure{Case: c.name, Name: "offered", Who: who.name, Unit: harness.PerSecond, Value: float64(c.fanout) / every.Seconds()})
		lines := []harness.Line{{Name: who.name, Points: percentileLine(h)}}
		if limit != nil && who.name == harness.Tiffin {
			lines = append(lines, harness.Line{Name: "limit", Points: percentileLine(limit)})
		}
		r.Plot(harness.Series{Title: "Latency, " + c.name, X: "percentile", Y: "seconds", Kind: harness.Percentiles, Lines: lines})
	}
	return r.Judge(verdict)
}

// limitLatency is what the machine allows at the case's rate; nil at half load, where it depends on
// the contender.
func limitLatency(ctx context.Context, e *harness.Env, c latencyCase) (h *hdrhistogram.Histogram, err error) {
	if c.every == 0 {
		return nil, nil //nolint:nilnil // none is measured
	}
	w, every, err := c.workload(e)
	if err != nil {
		return nil, err
	}
	servers, err := e.Servers(ctx)
	if err != nil {
		return nil, err
	}
	stage, err := servers.NewStage(ctx, w.Partitions)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, stage.Close(ctx)) }()
	lane, err := stage.NewLane(ctx)
	if err != nil {
		return nil, err
	}
	loop := &work.OpenLoop{Work: w, Stage: stage, Lane: lane, Every: every, Campaigns: max(20, w.Campaigns/3)}
	loop.WarmUp = loop.Campaigns / 11
	if h, err = loop.Limit(ctx); err == nil {
		e.Say("%s: the limit: p50 %v, p99 %v", c.name, micros(h.ValueAtPercentile(50)), micros(h.ValueAtPercentile(99)))
	}
	return h, err
}

// workload of the case, a tenth more for warm-up, and the time from campaign to campaign.
func (c latencyCase) workload(e *harness.Env) (*work.Workload, time.Duration, error) {
	times, subscriptions := c.times, min(1_000_000, 100_000*c.fanout)
	if e.Quick {
		times, subscriptions = max(20, c.times/20), 50_000
	}
	w, err := work.New(work.Shape{Campaigns: times + times/10, Restaurants: subscriptions / c.fanout, Subscriptions: subscriptions}, time.Now())
	return w, c.every, err
}

func micros(n int64) time.Duration { return time.Duration(n) * time.Microsecond }

// percentileLine is dense where the tail is.
func percentileLine(h *hdrhistogram.Histogram) (points [][2]float64) {
	for _, b := range h.CumulativeDistribution() {
		if b.Quantile < 100 {
			points = append(points, [2]float64{b.Quantile, micros(b.ValueAt).Seconds()})
		}
	}
	return points
}

func measureLatency(ctx context.Context, e *harness.Env, c latencyCase, who contender, verdict *harness.Verdict) (h *hdrhistogram.Histogram, every time.Duration, err error) {
	w, every, err := c.workload(e)
	if err != nil {
		return nil, 0, err
	}
	if every == 0 {
		if every, err = halfLoad(ctx, e, who, c.fanout, w.Subscriptions); err != nil {
			return nil, 0, err
		}
	}
	stage, err := stageOf(ctx, e, w)
	if err != nil {
		return nil, 0, err
	}
	defer func() { err = errors.Join(err, stage.Close(ctx)) }()
	lane, err := stage.NewLane(ctx)
	if err != nil {
		return nil, 0, err
	}
	if err := stage.Checkpoint(ctx); err != nil {
		return nil, 0, err
	}
	loop := &work.OpenLoop{Work: w, Stage: stage, Lane: lane, Every: every, WarmUp: w.Campaigns / 11}
	if h, err = underLoad(ctx, e, loop, c, who); err != nil {
		return h, every, err
	}
	*verdict, err = work.Verify(ctx, w, lane, work.UpTo(w.Campaigns))
	return h, every, err
}

// underLoad runs the contender from its start to its stop.
func underLoad(ctx context.Context, e *harness.Env, loop *work.OpenLoop, c latencyCase, who contender) (h *hdrhistogram.Histogram, err error) {
	process, err := who.start(ctx, loop.Lane)
	if err != nil {
		return nil, err
	}
	defer func() {
		if stopped := process.Stop(); err == nil {
			err = stopped
		}
	}()
	waiting, cancel := context.WithTimeout(ctx, harness.Patience)
	defer cancel()
	if _, err := process.WaitReady(waiting); err != nil {
		return nil, err
	}
	if c.changes > 0 {
		changes, err := work.StartChanges(ctx, loop.Stage, c.changes)
		if err != nil {
			return nil, err
		}
		defer func() {
			made, stopped := changes.Stop()
			e.Say("%s: %.0f changes of subscriptions a second were made", c.name, made)
			if err == nil && !e.Quick && made < 0.95*float64(c.changes) {
				stopped = errors.Join(stopped, fmt.Errorf("only %.0f changes a second were made, want %d: the load was not what it claims", made, c.changes))
			}
			err = errors.Join(err, stopped)
		}()
	}
	bar := e.Bar(int64(loop.Work.Campaigns), c.name)
	defer bar.Done()
	return loop.Run(ctx, process, bar.Set)
}

// halfLoad is the time from campaign to campaign at which a contender does half of what it can do
// with a backlog.
func halfLoad(ctx context.Context, e *harness.Env, who contender, fanout, subscriptions int) (every time.Duration, err error) {
	campaigns := 500
	if e.Quick {
		campaigns = 40
	}
	w, err := work.New(work.Shape{Campaigns: campaigns, Restaurants: subscriptions / fanout, Subscriptions: subscriptions}, time.Now())
	if err != nil {
		return 0, err
	}
	stage, err := stageOf(ctx, e, w)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, stage.Close(ctx)) }()
	if err := w.Publish(ctx, stage, 0, campaigns); err != nil {
		return 0, err
	}
	b, err := workOff(ctx, e, stage, w, who)
	if err != nil {
		return 0, err
	}
	e.Say("%s: a backlog of %d campaigns: %s deliveries/s", who.name, campaigns, humanize.Comma(int64(float64(campaigns*fanout)/b.took.Seconds())))
	return 2 * b.took / time.Duration(campaigns), nil
}
