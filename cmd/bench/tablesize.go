package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
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
	t := &tableSizes{env: e, list: contenders(e), r: &harness.Result{}}
	defer func() { err = errors.Join(err, t.close(context.WithoutCancel(ctx))) }()
	for _, size := range tableSizesOf(e.Quick) {
		if err := t.fill(ctx, work.NewGrid(tableFanout, size, campaigns, time.Now())); err != nil {
			return t.r, fmt.Errorf("%s: %w", subscriptions(size), err)
		}
	}
	if err := t.measure(ctx); err != nil {
		return t.r, err
	}
	t.r.Note("%s campaigns of %d recipients, in no order of the table, spread over all restaurants; the clients are the same million at each size. All tables are filled first. "+
		"Then the contenders work with each in turn, from the smallest to the largest and back, %d times: each is compared with the smallest of the same time. "+
		"The limit is that of throughput: it has no table.", humanize.Comma(int64(campaigns)), tableFanout, tableRounds(e))
	for _, who := range t.list {
		t.r.Note("%s: %s", who.name, who.guarantee)
	}
	return t.r, nil
}

const tableFanout = 100

// tableRounds is how often each size is measured: a single time is as noisy as the goal is fine. What peers take
// grows with the table, and needs no such care.
func tableRounds(e *harness.Env) int {
	if e.Quick || len(e.Peers) > 0 {
		return 2
	}
	return 4
}

// tableSizes is a run over all sizes.
type tableSizes struct {
	env   *harness.Env
	list  []contender
	sizes []*tableOf // from the smallest
	r     *harness.Result
}

// tableOf is what there is of one size.
type tableOf struct {
	work  *work.Workload
	stage *testbed.Stage
	runs  []backlogRun // of this round, by contender
}

func (s *tableOf) name() string { return subscriptions(s.work.Subscriptions) }

// cost is that of a run's delivery.
func (s *tableOf) cost(b backlogRun) cost {
	n := float64(s.work.Deliveries(0, s.work.Campaigns))
	if b.took == 0 {
		return cost{}
	}
	return cost{cpu: b.meter.CPU[self].Seconds() / n, time: b.took.Seconds() / n}
}

// fill makes the table of a size, and publishes the campaigns.
func (t *tableSizes) fill(ctx context.Context, w *work.Workload) error {
	servers, err := t.env.Servers(ctx)
	if err != nil {
		return err
	}
	stage, err := servers.NewStage(ctx, w.Partitions)
	if err != nil {
		return err
	}
	t.sizes = append(t.sizes, &tableOf{work: w, stage: stage, runs: make([]backlogRun, len(t.list))})
	if err := work.Grow(ctx, stage, tableFanout, 0, w.Subscriptions); err != nil {
		return err
	}
	t.env.Say("%s are in the table", subscriptions(w.Subscriptions))
	return w.Publish(ctx, stage, 0, w.Campaigns)
}

func (t *tableSizes) close(ctx context.Context) (err error) {
	for _, s := range t.sizes {
		err = errors.Join(err, s.stage.Close(ctx))
	}
	return err
}

// measure lets the contenders work with all sizes in turn.
func (t *tableSizes) measure(ctx context.Context) error {
	order := slices.Clone(t.sizes)
	for range tableRounds(t.env) {
		limit, err := limitRate(ctx, t.sizes[0].stage, t.sizes[0].work)
		if err != nil {
			return err
		}
		for _, s := range order {
			for i, who := range t.list {
				if s.runs[i], err = t.once(ctx, s, who); err != nil {
					return fmt.Errorf("%s: %w", s.name(), err)
				}
			}
		}
		t.tell(limit)
		slices.Reverse(order)
	}
	t.plot()
	return nil
}

// once is one run. A peer's fault is only reported.
func (t *tableSizes) once(ctx context.Context, s *tableOf, who contender) (backlogRun, error) {
	in, w := s.name(), s.work
	b, err := workOff(ctx, t.env, s.stage, w, who)
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

// tell adds a round's figures: of those that came to an end with this size and with the smallest.
func (t *tableSizes) tell(limit float64) {
	for i, who := range t.list {
		first := t.sizes[0].cost(t.sizes[0].runs[i])
		for _, s := range t.sizes {
			if c := s.cost(s.runs[i]); first.time > 0 && c.time > 0 {
				t.tellOf(s, who.name, s.runs[i], c, first, limit)
			}
		}
	}
}

// tellOf adds a contender's figures for one size.
func (t *tableSizes) tellOf(s *tableOf, who string, b backlogRun, c, first cost, limit float64) {
	in := s.name()
	t.r.Add(harness.Figure{Case: in, Name: cpuGrowth, Who: who, Unit: harness.Cost, Value: ratio(c.cpu, first.cpu)},
		harness.Figure{Case: in, Name: timeGrowth, Who: who, Unit: harness.Cost, Value: ratio(c.time, first.time)},
		harness.Figure{Case: in, Name: deliveries, Who: who, Unit: harness.PerSecond, Value: 1 / c.time, Limit: limit},
		harness.Figure{Case: in, Name: cpuEach, Who: who, Unit: harness.Seconds, Value: c.cpu},
		harness.Figure{Case: in, Name: memory, Who: who, Unit: harness.Bytes, Value: float64(b.meter.Peak[self])},
		harness.Figure{Case: in, Name: startup, Who: who, Unit: harness.Seconds, Value: b.ready.Seconds()})
	if who == harness.Tiffin {
		t.r.Explain(in, b.profile)
	}
}

// plot adds what the last round gave.
func (t *tableSizes) plot() {
	for i, who := range t.list {
		for _, s := range t.sizes {
			if c, size := s.cost(s.runs[i]), float64(s.work.Subscriptions); c.time > 0 {
				t.r.Plot(harness.Series{
					Title: "Cost of a delivery against the table", X: "subscriptions", Y: "seconds", Kind: harness.Logarithmic,
					Lines: []harness.Line{{Name: who.name + ", CPU", Points: [][2]float64{{size, c.cpu}}}, {Name: who.name + ", time", Points: [][2]float64{{size, c.time}}}},
				})
			}
		}
	}
}

// ratio of what a clock too coarse for quick forms saw.
func ratio(value, to float64) float64 {
	if to == 0 {
		return 1
	}
	return value / to
}
