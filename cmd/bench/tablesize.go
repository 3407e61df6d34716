package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/dustin/go-humanize"

	"example.com/tiffin/cmd/bench/internal/harness"
	"example.com/tiffin/cmd/bench/internal/testbed"
	"example.com/tiffin/cmd/bench/internal/work"
)

// The figures that say what a larger table costs, and the goal for them.
const (
	cpuGrowth  = "CPU a delivery, to the smallest table"
	timeGrowth = "time a delivery, to the smallest table"
	growthGoal = 1.1
)

// tableSizesOf are numbers of subscriptions.
func tableSizesOf(quick bool) []int {
	if quick {
		return []int{20_000, 100_000}
	}
	return []int{1_000_000, 5_000_000, 20_000_000}
}

// tableSize measures whether the cost of a campaign grows with the table.
func tableSize() harness.Scenario {
	sizes := tableSizesOf(false)
	largest := subscriptions(sizes[len(sizes)-1])
	return harness.Scenario{
		Name:    "table-size",
		Summary: "the same campaigns against 1, 5 and 20 million subscriptions: does a campaign's cost grow?",
		Goals:   []harness.Goal{harness.AtMost(largest, cpuGrowth, growthGoal), harness.AtMost(largest, timeGrowth, growthGoal)},
		Peers:   true, Run: runTableSize,
	}
}

func subscriptions(n int) string { return humanize.Comma(int64(n)) + " subscriptions" }

// cost is of one delivery, in seconds; zero: not measured.
type cost struct{ cpu, time float64 }

func runTableSize(ctx context.Context, e *harness.Env) (r *harness.Result, err error) {
	if err := warmBacklogs(ctx, e); err != nil {
		return nil, err
	}
	campaigns := 10_000
	if e.Quick {
		campaigns = 200
	}
	t := &tableSizes{env: e, list: contenders(e), first: map[string]cost{}, r: &harness.Result{}}
	for _, size := range tableSizesOf(e.Quick) {
		w := work.NewGrid(tableFanout, size, campaigns, time.Now())
		if err := t.measure(ctx, w); err != nil {
			return t.r, fmt.Errorf("%s: %w", subscriptions(size), err)
		}
	}
	t.r.Note("%s campaigns of %d recipients, spread over all restaurants; each size %d times, in turn with the peers; of each the better one counts: what is above it is the machine's. "+
		"The limit, measured once, is that of throughput: it has no table.", humanize.Comma(int64(campaigns)), tableFanout, tableRuns)
	for _, who := range t.list {
		t.r.Note("%s: %s", who.name, who.guarantee)
	}
	return t.r, nil
}

const (
	tableFanout = 100
	tableRuns   = 2 // of each size; a single one is as noisy as the goal is fine
)

// tableSizes is a run over all sizes.
type tableSizes struct {
	env   *harness.Env
	list  []contender
	limit float64         // deliveries/s
	first map[string]cost // by contender, with the smallest table
	r     *harness.Result
}

// measure lets the contenders work on one size in turn.
func (t *tableSizes) measure(ctx context.Context, w *work.Workload) (err error) {
	servers, err := t.env.Servers(ctx)
	if err != nil {
		return err
	}
	stage, err := servers.NewStage(ctx, w.Partitions)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stage.Close(ctx)) }()
	if err := work.Grow(ctx, stage, tableFanout, 0, w.Subscriptions); err != nil {
		return err
	}
	t.env.Say("%s are in the table", subscriptions(w.Subscriptions))
	if err := w.Publish(ctx, stage, 0, w.Campaigns); err != nil {
		return err
	}
	if t.limit == 0 {
		if t.limit, err = limitRate(ctx, stage, w); err != nil {
			return err
		}
	}
	best, last := make([]cost, len(t.list)), make([]backlogRun, len(t.list))
	for range tableRuns {
		for i, who := range t.list {
			if last[i], err = t.once(ctx, stage, w, who); err != nil {
				return err
			}
			best[i].take(last[i], w.Deliveries(0, w.Campaigns))
		}
	}
	for i, who := range t.list {
		t.tell(subscriptions(w.Subscriptions), who.name, w, best[i], last[i])
	}
	return nil
}

// once is one run. A peer's fault is only reported.
func (t *tableSizes) once(ctx context.Context, stage *testbed.Stage, w *work.Workload, who contender) (backlogRun, error) {
	in := subscriptions(w.Subscriptions)
	b, err := workOff(ctx, t.env, stage, w, who)
	if err != nil && who.name == harness.Tiffin {
		return b, err
	}
	if err != nil {
		b = backlogRun{verdict: harness.Verdict{Text: "did not finish: " + err.Error()}}
	} else {
		t.env.Say("%s: %s: %s deliveries/s", in, who.name, humanize.Comma(int64(float64(w.Deliveries(0, w.Campaigns))/b.took.Seconds())))
	}
	return b, t.r.Judge(who.judged(in, b.verdict))
}

// take keeps what is less.
func (c *cost) take(b backlogRun, deliveries int) {
	if b.took == 0 {
		return
	}
	cpu, took := b.meter.CPU[self].Seconds()/float64(deliveries), b.took.Seconds()/float64(deliveries)
	if c.time == 0 {
		c.cpu, c.time = cpu, took
	}
	c.cpu, c.time = min(c.cpu, cpu), min(c.time, took)
}

// tell adds a contender's figures for one size.
func (t *tableSizes) tell(in, who string, w *work.Workload, c cost, last backlogRun) {
	if c.time == 0 || last.took == 0 {
		return
	}
	if t.first[who].time == 0 {
		t.first[who] = c
	}
	first := t.first[who]
	t.r.Add(harness.Figure{Case: in, Name: cpuGrowth, Who: who, Unit: harness.Cost, Value: ratio(c.cpu, first.cpu)},
		harness.Figure{Case: in, Name: timeGrowth, Who: who, Unit: harness.Cost, Value: ratio(c.time, first.time)},
		harness.Figure{Case: in, Name: deliveries, Who: who, Unit: harness.PerSecond, Value: 1 / c.time, Limit: t.limit},
		harness.Figure{Case: in, Name: cpuEach, Who: who, Unit: harness.Seconds, Value: c.cpu},
		harness.Figure{Case: in, Name: memory, Who: who, Unit: harness.Bytes, Value: float64(last.meter.Peak[self])},
		harness.Figure{Case: in, Name: startup, Who: who, Unit: harness.Seconds, Value: last.ready.Seconds()})
	if who == harness.Tiffin {
		t.r.Explain(in, last.profile)
	}
	size := float64(w.Subscriptions)
	t.r.Plot(harness.Series{
		Title: "Cost of a delivery against the table", X: "subscriptions", Y: "seconds", Kind: harness.Logarithmic,
		Lines: []harness.Line{{Name: who + ", CPU", Points: [][2]float64{{size, c.cpu}}}, {Name: who + ", time", Points: [][2]float64{{size, c.time}}}},
	})
}

// ratio of what a clock too coarse for quick forms saw.
func ratio(value, to float64) float64 {
	if to == 0 {
		return 1
	}
	return value / to
}
