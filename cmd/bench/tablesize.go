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

// tableSizes are numbers of subscriptions.
func tableSizes(quick bool) []int {
	if quick {
		return []int{20_000, 100_000}
	}
	return []int{1_000_000, 5_000_000, 20_000_000}
}

// tableSize measures whether the cost of a campaign grows with the table.
func tableSize() harness.Scenario {
	sizes := tableSizes(false)
	largest := subscriptions(sizes[len(sizes)-1])
	return harness.Scenario{
		Name:    "table-size",
		Summary: "the same campaigns against 1, 5 and 20 million subscriptions: does a campaign's cost grow?",
		Goals:   []harness.Goal{harness.AtMost(largest, cpuGrowth, growthGoal), harness.AtMost(largest, timeGrowth, growthGoal)},
		Run:     runTableSize,
	}
}

func subscriptions(n int) string { return humanize.Comma(int64(n)) + " subscriptions" }

// cost is of one delivery, in seconds.
type cost struct{ cpu, time float64 }

func runTableSize(ctx context.Context, e *harness.Env) (r *harness.Result, err error) {
	const fanout = 100
	campaigns := 10_000
	if e.Quick {
		campaigns = 200
	}
	servers, err := e.Servers(ctx)
	if err != nil {
		return nil, err
	}
	sizes := tableSizes(e.Quick)
	var first cost
	r = &harness.Result{}
	plots := map[string]*harness.Line{}
	for i, size := range sizes {
		w := work.NewGrid(fanout, size, campaigns, time.Now())
		c, err := runTable(ctx, e, servers, w, fanout, r)
		if err != nil {
			return r, fmt.Errorf("%s: %w", subscriptions(size), err)
		}
		if i == 0 {
			first = c
		}
		in := subscriptions(size)
		r.Add(harness.Figure{Case: in, Name: cpuGrowth, Unit: harness.Cost, Value: c.cpu / first.cpu},
			harness.Figure{Case: in, Name: timeGrowth, Unit: harness.Cost, Value: c.time / first.time})
		for name, value := range map[string]float64{"CPU": c.cpu, "time": c.time} {
			if plots[name] == nil {
				plots[name] = &harness.Line{Name: name}
			}
			plots[name].Points = append(plots[name].Points, [2]float64{float64(size), value})
		}
	}
	r.Plot(harness.Series{
		Title: "Cost of a delivery against the table", X: "subscriptions", Y: "seconds", Kind: harness.Logarithmic,
		Lines: []harness.Line{*plots["CPU"], *plots["time"]},
	})
	r.Note("%s campaigns of 100 recipients, spread over all restaurants; each size %d times, the better one counts: what is above it is the machine's.", humanize.Comma(int64(campaigns)), tableRuns)
	return r, nil
}

// tableRuns of each size; a single one is as noisy as the goal is fine.
const tableRuns = 2

// runTable measures one size.
func runTable(ctx context.Context, e *harness.Env, servers *testbed.Servers, w *work.Workload, fanout int, r *harness.Result) (best cost, err error) {
	stage, err := servers.NewStage(ctx, w.Partitions)
	if err != nil {
		return best, err
	}
	defer func() { err = errors.Join(err, stage.Close(ctx)) }()
	if err := work.Grow(ctx, stage, fanout, 0, w.Subscriptions); err != nil {
		return best, err
	}
	in := subscriptions(w.Subscriptions)
	e.Say("%s are in the table", in)
	if err := w.Publish(ctx, stage, 0, w.Campaigns); err != nil {
		return best, err
	}
	total := w.Deliveries(0, w.Campaigns)
	var last backlogRun
	for range tableRuns {
		b, err := workOff(ctx, e, stage, w, tiffinWith(e, harness.Tiffin, nil))
		if err != nil {
			return best, err
		}
		b.verdict.Case, b.verdict.Guarantee = in, exactlyOnce
		if err := r.Judge(b.verdict); err != nil {
			return best, err
		}
		c := cost{cpu: b.meter.CPU[self].Seconds() / float64(total), time: b.took.Seconds() / float64(total)}
		e.Say("%s: %s deliveries/s", in, humanize.Comma(int64(1/c.time)))
		if best.time == 0 {
			best = c
		}
		best.cpu, best.time, last = min(best.cpu, c.cpu), min(best.time, c.time), b
	}
	r.Add(harness.Figure{Case: in, Name: deliveries, Unit: harness.PerSecond, Value: 1 / best.time},
		harness.Figure{Case: in, Name: cpuEach, Unit: harness.Seconds, Value: best.cpu},
		harness.Figure{Case: in, Name: memory, Unit: harness.Bytes, Value: float64(last.meter.Peak[self])},
		harness.Figure{Case: in, Name: startup, Unit: harness.Seconds, Value: last.ready.Seconds()})
	r.Explain(in, last.profile)
	return best, nil
}
