package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"github.com/dustin/go-humanize"

	"example.com/tiffin/cmd/bench/internal/harness"
	"example.com/tiffin/cmd/bench/internal/testbed"
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
			s.Goals = append(s.Goals, harness.AtMost(c.name, "p50", c.p50.Seconds()).In(harness.Seconds))
		}
		s.Goals = append(s.Goals, harness.AtMost(c.name, "p99", c.p99.Seconds()).In(harness.Seconds))
	}
	return s
}

func runLatency(ctx context.Context, e *harness.Env) (*harness.Result, error) {
	r := &harness.Result{}
	for _, c := range latencyCases() {
		if !e.Wants(c.name) {
			continue
		}
		if err := runLatencyCase(ctx, e, c, r); err != nil {
			return r, fmt.Errorf("%s: %w", c.name, err)
		}
	}
	r.Note("Campaigns are published at fixed times whatever becomes of those before, and counted from when they were due; "+
		"the first tenth is warm-up, and before all the limit and the contenders warm the servers up for %v with such campaigns, more often. The limit begins a Postgres and a Kafka transaction of the same deliveries side by side when they are due, without input or join, under the same load, "+
		"half of it before the contenders and half behind them; at half load behind each, at its rate. "+leastLatency+": the limit begins when it has read the campaign's message. "+
		"Exactly once, lz4, acks=all, %s; producer and consumer share the machine.", harness.WarmFor, e.Durability())
	return r, nil
}

// runLatencyCase measures half of the limit, the contenders, and the other half.
func runLatencyCase(ctx context.Context, e *harness.Env, c latencyCase, r *harness.Result) error {
	limit := hdrhistogram.New(1, 600_000_000, 3)
	add := func(every time.Duration) error {
		if every == 0 { // it depends on the contender
			return nil
		}
		h, err := limitLatency(ctx, e, c, every, (*work.OpenLoop).Limit)
		if err == nil {
			e.Say("%s: the limit: p50 %v, p99 %v", c.name, micros(h.ValueAtPercentile(50)), micros(h.ValueAtPercentile(99)))
			limit.Merge(h)
		}
		return err
	}
	if err := warmUp(ctx, e, c); err != nil {
		return err
	}
	if err := add(c.every); err != nil {
		return err
	}
	list := contenders(e)
	runs := make([]latencyRun, len(list))
	for i, who := range list {
		var err error
		if runs[i], err = measureLatency(ctx, e, c, who); err != nil && who.name == harness.Tiffin {
			return err
		}
		if err != nil {
			runs[i].verdicts = append(runs[i].verdicts, harness.Verdict{Text: "did not finish: " + err.Error()})
			continue
		}
		if c.every == 0 {
			limit.Reset()
			if err := add(runs[i].every); err != nil {
				return err
			}
			runs[i].limit = hdrhistogram.Import(limit.Export())
		}
	}
	if !e.Quick {
		if err := add(c.every); err != nil {
			return err
		}
	}
	for i, who := range list {
		if c.every > 0 {
			runs[i].limit = limit
		}
		if err := runs[i].tell(e, c, who, r); err != nil {
			return err
		}
	}
	return c.addLeast(ctx, e, limit, r)
}

// addLeast measures the limit that learns from the campaigns' topic what is due.
func (c latencyCase) addLeast(ctx context.Context, e *harness.Env, limit *hdrhistogram.Histogram, r *harness.Result) error {
	if c.every == 0 {
		return nil
	}
	h, err := limitLatency(ctx, e, c, c.every, (*work.OpenLoop).Least)
	if err != nil {
		return err
	}
	for _, name := range []string{"p50", "p99"} {
		at := percentiles()[name]
		r.Add(harness.Figure{
			Case: c.name, Name: name, Who: leastLatency, Unit: harness.Seconds,
			Value: micros(h.ValueAtPercentile(at)).Seconds(), Limit: micros(limit.ValueAtPercentile(at)).Seconds(),
		})
	}
	return nil
}

const leastLatency = "limit with input"

// warmQuicker is how many times as often campaigns come in the warm-up: a broker compiles what was called some
// ten thousand times, which at 50 campaigns a second takes minutes. Of one delivery p99 was 12.9 ms after a minute and a
// half at the case's own pace, and 9.3 ms after the same time at four times that (two runs each).
const warmQuicker = 4

// warmUp runs the limit and the contenders under a case's load, but quicker, and uncounted, so that none is measured
// beside a broker that compiles its code: the limit of one delivery went from 6.7 to 2.6 ms within a minute and a half, and
// what the limit does not ask for (a group's offsets in a transaction) is compiled for the contenders only. Half load
// is half of a backlog's rate, and warmed up by backlogs.
func warmUp(ctx context.Context, e *harness.Env, c latencyCase) error {
	if c.every == 0 {
		return warmBacklogs(ctx, e)
	}
	say := func(who string, h *hdrhistogram.Histogram) {
		if h != nil {
			e.Say("%s: warming up: %s: p50 %v, p99 %v", c.name, who, micros(h.ValueAtPercentile(50)), micros(h.ValueAtPercentile(99)))
		}
	}
	c.every, c.times = c.every/warmQuicker, c.times*warmQuicker
	for begun := time.Now(); c.every > 0 && !e.Quick && time.Since(begun) < harness.WarmFor; {
		h, err := limitLatency(ctx, e, c, c.every, (*work.OpenLoop).Limit)
		if err != nil {
			return fmt.Errorf("warm up: %w", err)
		}
		say("the limit", h)
		for _, who := range contenders(e) {
			run, err := measureLatency(ctx, e, c, who)
			if err != nil && who.name == harness.Tiffin {
				return fmt.Errorf("warm up: %w", err)
			}
			say(who.name, run.latencies)
		}
	}
	return nil
}

// latencyRun is how a contender did under load.
type latencyRun struct {
	latencies *hdrhistogram.Histogram // nil: not measured
	limit     *hdrhistogram.Histogram
	every     time.Duration
	profile   []byte
	verdicts  []harness.Verdict
}

// tell adds what a run gave to the result. The error is that of tiffin's sinks.
func (l *latencyRun) tell(e *harness.Env, c latencyCase, who contender, r *harness.Result) error {
	if who.guarantee != "" {
		r.Note("%s: %s", who.name, who.guarantee)
	}
	if h := l.latencies; h != nil && h.TotalCount() > 0 {
		e.Say("%s: %s: p50 %v, p99 %v", c.name, who.name, micros(h.ValueAtPercentile(50)), micros(h.ValueAtPercentile(99)))
		for _, name := range []string{"p50", "p99", "p99.9"} {
			f := harness.Figure{Case: c.name, Name: name, Who: who.name, Unit: harness.Seconds, Value: micros(h.ValueAtPercentile(percentiles()[name])).Seconds()}
			if l.limit != nil {
				f.Limit = micros(l.limit.ValueAtPercentile(percentiles()[name])).Seconds()
			}
			r.Add(f)
		}
		r.Add(harness.Figure{Case: c.name, Name: "max", Who: who.name, Unit: harness.Seconds, Value: micros(h.Max()).Seconds()})
		r.Add(harness.Figure{Case: c.name, Name: "offered", Who: who.name, Unit: harness.PerSecond, Value: float64(c.fanout) / l.every.Seconds()})
		lines := []harness.Line{{Name: who.name, Points: percentileLine(h)}}
		if l.limit != nil && who.name == harness.Tiffin {
			lines = append(lines, harness.Line{Name: "limit", Points: percentileLine(l.limit)})
		}
		r.Plot(harness.Series{Title: "Latency, " + c.name, X: "percentile", Y: "seconds", Kind: harness.Percentiles, Lines: lines})
	}
	if who.name == harness.Tiffin {
		r.Explain(c.name, l.profile)
	}
	for _, v := range l.verdicts {
		if err := r.Judge(who.judged(c.name, v)); err != nil {
			return err
		}
	}
	return nil
}

// limitLatency is what the machine allows at this rate, and with the same changes of subscriptions
// going on, with a third of the campaigns.
func limitLatency(ctx context.Context, e *harness.Env, c latencyCase, every time.Duration,
	run func(*work.OpenLoop, context.Context) (*hdrhistogram.Histogram, error),
) (h *hdrhistogram.Histogram, err error) {
	w, err := c.workload(e)
	if err != nil {
		return nil, err
	}
	stage, err := stageOf(ctx, e, w)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, stage.Close(ctx)) }()
	lane, err := stage.NewLane(ctx)
	if err != nil {
		return nil, err
	}
	if err := stage.Checkpoint(ctx); err != nil {
		return nil, err
	}
	loop := &work.OpenLoop{Work: w, Stage: stage, Lane: lane, Every: every, Campaigns: max(20, w.Campaigns/3)}
	loop.WarmUp = loop.Campaigns / 11
	err = c.withChanges(ctx, e, stage, func() error {
		h, err = run(loop, ctx)
		return err
	})
	if err != nil {
		return nil, err
	}
	return h, limitExact(ctx, w, lane, loop.Campaigns)
}

// workload of the case, a tenth more for warm-up.
func (c latencyCase) workload(e *harness.Env) (*work.Workload, error) {
	times, subscriptions := c.times, min(1_000_000, 100_000*c.fanout)
	if e.Quick {
		times, subscriptions = max(20, c.times/20), 50_000
	}
	return work.New(work.Shape{Campaigns: times + times/10, Restaurants: subscriptions / c.fanout, Subscriptions: subscriptions}, time.Now())
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

func measureLatency(ctx context.Context, e *harness.Env, c latencyCase, who contender) (l latencyRun, err error) {
	w, err := c.workload(e)
	if err != nil {
		return l, err
	}
	if l.every = c.every; l.every == 0 {
		var backlog harness.Verdict
		if l.every, backlog, err = halfLoad(ctx, e, who, c.fanout, w.Subscriptions); err != nil {
			return l, err
		}
		l.verdicts = append(l.verdicts, backlog) // a rate that is not of the whole work is none
	}
	stage, err := stageOf(ctx, e, w)
	if err != nil {
		return l, err
	}
	defer func() { err = errors.Join(err, stage.Close(ctx)) }()
	lane, err := stage.NewLane(ctx)
	if err != nil {
		return l, err
	}
	if err := stage.Checkpoint(ctx); err != nil {
		return l, err
	}
	loop := &work.OpenLoop{Work: w, Stage: stage, Lane: lane, Every: l.every, WarmUp: w.Campaigns / 11}
	if err = l.underLoad(ctx, e, loop, c, who); err != nil {
		return l, err
	}
	v, err := work.Verify(ctx, w, lane, work.UpTo(w.Campaigns))
	l.verdicts = append(l.verdicts, v)
	return l, err
}

// underLoad runs the contender from its start to its stop.
func (l *latencyRun) underLoad(ctx context.Context, e *harness.Env, loop *work.OpenLoop, c latencyCase, who contender) (err error) {
	process, err := who.start(ctx, loop.Lane)
	if err != nil {
		return err
	}
	defer func() {
		if stopped := process.Stop(); err == nil {
			err = stopped
		}
	}()
	waiting, cancel := context.WithTimeout(ctx, harness.Patience)
	defer cancel()
	if _, err := process.WaitReady(waiting); err != nil {
		return err
	}
	profile := profileOf(ctx, e, process)
	defer func() { l.profile = profile() }()
	bar := e.Bar(int64(loop.Work.Campaigns), c.name)
	defer bar.Done()
	return c.withChanges(ctx, e, loop.Stage, func() error {
		l.latencies, err = loop.Run(ctx, process, bar.Set)
		return err
	})
}

// withChanges changes subscriptions meanwhile, if the case wants that. Fewer than it says are a fault.
func (c latencyCase) withChanges(ctx context.Context, e *harness.Env, stage *testbed.Stage, do func() error) error {
	if c.changes == 0 {
		return do()
	}
	changes, err := work.StartChanges(ctx, stage, c.changes)
	if err != nil {
		return err
	}
	err = do()
	made, stopped := changes.Stop()
	e.Say("%s: %.0f changes of subscriptions a second were made", c.name, made)
	if err == nil && stopped == nil && !e.Quick && made < 0.95*float64(c.changes) {
		stopped = fmt.Errorf("only %.0f changes a second were made, want %d: the load was not what it claims", made, c.changes)
	}
	return errors.Join(err, stopped)
}

// halfLoad is the time from campaign to campaign at which a contender does half of what it can do
// with a backlog.
func halfLoad(ctx context.Context, e *harness.Env, who contender, fanout, subscriptions int) (every time.Duration, v harness.Verdict, err error) {
	campaigns := 500
	if e.Quick {
		campaigns = 40
	}
	w, err := work.New(work.Shape{Campaigns: campaigns, Restaurants: subscriptions / fanout, Subscriptions: subscriptions}, time.Now())
	if err != nil {
		return 0, v, err
	}
	stage, err := stageOf(ctx, e, w)
	if err != nil {
		return 0, v, err
	}
	defer func() { err = errors.Join(err, stage.Close(ctx)) }()
	if err := w.Publish(ctx, stage, 0, campaigns); err != nil {
		return 0, v, err
	}
	b, err := workOff(ctx, e, stage, w, who)
	if err != nil {
		return 0, v, err
	}
	e.Say("%s: a backlog of %d campaigns: %s deliveries/s", who.name, campaigns, humanize.Comma(int64(float64(campaigns*fanout)/b.took.Seconds())))
	return 2 * b.took / time.Duration(campaigns), b.verdict, nil
}
