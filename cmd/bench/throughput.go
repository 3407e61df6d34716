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

// backlogCase is a backlog of campaigns; most have 1,000,000 subscriptions, and about as many
// deliveries. A table without an index on restaurant_id is read whole for each posting that is not
// in memory, and 1,000,000 postings of one client are more than the default index.budget.
type backlogCase struct {
	name  string
	shape work.Shape
	small work.Shape // of --quick
	goal  float64    // of the limit
}

// fanout is the mean number of recipients of a restaurant's campaign.
func (c *backlogCase) fanout() int { return c.shape.Subscriptions / c.shape.Restaurants }

const million = 1_000_000

func backlogs() []backlogCase {
	return []backlogCase{
		{"fan-out 1", work.Shape{Campaigns: 300_000, Restaurants: 100_000, Subscriptions: 100_000}, work.Shape{Campaigns: 5_000, Restaurants: 5_000, Subscriptions: 5_000}, 0.6},
		{"fan-out 10", work.Shape{Campaigns: 60_000, Restaurants: 100_000, Subscriptions: million}, work.Shape{Campaigns: 1_000, Restaurants: 1_000, Subscriptions: 10_000}, 0.8},
		{"fan-out 100", work.Shape{Campaigns: 10_000, Restaurants: 10_000, Subscriptions: million}, work.Shape{Campaigns: 200, Restaurants: 500, Subscriptions: 50_000}, 0.9},
		{"fan-out 1,000", work.Shape{Campaigns: 1_000, Restaurants: 1_000, Subscriptions: million}, work.Shape{Campaigns: 20, Restaurants: 50, Subscriptions: 50_000}, 0.9},
		{"fan-out 100,000", work.Shape{Campaigns: 10, Restaurants: 10, Subscriptions: million}, work.Shape{Campaigns: 1, Restaurants: 1, Subscriptions: 60_000}, 0.9},
		{"mixed", work.Shape{Campaigns: 10_000, Restaurants: 10_000, Subscriptions: million, Zipf: 1}, work.Shape{Campaigns: 200, Restaurants: 200, Subscriptions: 20_000, Zipf: 1}, 0.9},
	}
}

// Where campaigns have few recipients, reading them and telling of each in the manifest are a large part of the work, and
// a program that does only that beside the limit is measured too.
const (
	manifestMatters = 100
	least           = "limit with input, manifest"
)

// program is work.Limit or work.Least.
type program func(ctx context.Context, w *work.Workload, lane *testbed.Lane, campaigns int, form work.LimitForm) (time.Duration, error)

// The names of figures that several scenarios have.
const (
	deliveries  = "deliveries"
	cpuEach     = "CPU a delivery"
	memory      = "memory at most"
	startup     = "start to ready"
	serverShare = "CPU a delivery, "
	allocations = "allocations a delivery"
)

func throughput() harness.Scenario {
	s := harness.Scenario{
		Name:    "throughput",
		Summary: "a backlog into both sinks, exactly once, at fan-outs from 1 to 100,000 and mixed, beside the machine's limit",
		Peers:   true, Run: runThroughput,
	}
	for _, c := range backlogs() {
		s.Goals = append(s.Goals, harness.AtLeast(c.name, deliveries, c.goal).OfLimit())
		if c.fanout() >= 100 {
			s.Goals = append(s.Goals, harness.AtMost(c.name, cpuEach, 1.5e-6).In(harness.Seconds))
		}
		if c.shape.Subscriptions == million {
			s.Goals = append(s.Goals, harness.AtMost(c.name, memory, 200e6).In(harness.Bytes))
		}
	}
	return s
}

func runThroughput(ctx context.Context, e *harness.Env) (*harness.Result, error) {
	if err := warmBacklogs(ctx, e); err != nil {
		return nil, err
	}
	r := &harness.Result{}
	for _, c := range backlogs() {
		if !e.Wants(c.name) {
			continue
		}
		if err := runBacklog(ctx, e, c, r); err != nil {
			return r, fmt.Errorf("%s: %w", c.name, err)
		}
	}
	r.Note("A backlog that is there when the contender is ready, on servers that have worked for %v (not with --quick); exactly once, lz4, acks=all, %s; "+
		"the limit is INSERT ... unnest (COPY below 100 recipients) and transactional produce of the same deliveries side by side, nothing else, "+
		"with as many connections and producers as gave most. %s: the limit that reads the campaigns besides, without a look into them, and writes "+
		"the manifest's row of each, without join, fence, ledger and offsets.", harness.WarmFor, e.Durability(), least)
	return r, nil
}

// runBacklog measures the limit, tiffin, the peers, and the limit again: what else goes on on the machine changes
// slowly. Each of them moves all of the workload, from the same beginning: in half as long a run the feedback
// database has less to write out.
func runBacklog(ctx context.Context, e *harness.Env, c backlogCase, r *harness.Result) (err error) {
	shape := c.shape
	if e.Quick {
		shape = c.small
	}
	w, err := work.New(shape, time.Now())
	if err != nil {
		return err
	}
	stage, err := stageOf(ctx, e, w)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stage.Close(ctx)) }()
	if err := w.Publish(ctx, stage, 0, w.Campaigns); err != nil {
		return err
	}
	e.Say("%s: %s subscriptions and %s campaigns are loaded", c.name, humanize.Comma(int64(w.Subscriptions)), humanize.Comma(int64(w.Campaigns)))
	form, err := bestForm(ctx, e, stage, w)
	if err != nil {
		return err
	}
	before, err := limitOnce(ctx, stage, w, w.Campaigns, form)
	if err != nil {
		return err
	}
	list := contenders(e)
	runs := make([]backlogRun, len(list))
	for i, who := range list {
		if runs[i], err = workOff(ctx, e, stage, w, who); err != nil && who.name == harness.Tiffin {
			return err
		}
		if err != nil {
			runs[i].verdict.Text = "did not finish: " + err.Error()
		}
	}
	after, err := limitOnce(ctx, stage, w, w.Campaigns, form)
	if err != nil {
		return err
	}
	total := w.Deliveries(0, w.Campaigns)
	most := 2 * float64(total) / (before + after).Seconds()
	r.Add(besideBuilds(e, c.name, list, runs)...)
	for i, who := range list {
		if err := runs[i].tell(e, c.name, who, total, most, r); err != nil {
			return err
		}
	}
	return c.addLeast(ctx, stage, w, form, most, r)
}

// addLeast measures the limit with input and manifest.
func (c *backlogCase) addLeast(ctx context.Context, stage *testbed.Stage, w *work.Workload, form work.LimitForm, most float64, r *harness.Result) error {
	if c.fanout() >= manifestMatters {
		return nil
	}
	took, err := onceOnALane(ctx, stage, w, w.Campaigns, form, work.Least)
	if err != nil {
		return err
	}
	r.Add(harness.Figure{Case: c.name, Name: deliveries, Who: least, Unit: harness.PerSecond, Value: float64(w.Deliveries(0, w.Campaigns)) / took.Seconds(), Limit: most})
	return nil
}

// tell adds what a run gave to the result. The error is that of tiffin's sinks.
func (b *backlogRun) tell(e *harness.Env, in string, who contender, total int, most float64, r *harness.Result) error {
	if who.guarantee != "" {
		r.Note("%s: %s", who.name, who.guarantee)
	}
	if b.took > 0 {
		rate := float64(total) / b.took.Seconds()
		e.Say("%s: %s: %s deliveries/s, %.2f of the limit", in, who.name, humanize.Comma(int64(rate)), rate/most)
		r.Add(harness.Figure{Case: in, Name: deliveries, Who: who.name, Unit: harness.PerSecond, Value: rate, Limit: most})
		r.Add(b.costs(in, who.name, total)...)
		r.Plot(b.memorySeries(in, who.name))
		if who.name == harness.Tiffin {
			r.Explain(in, b.profile)
		}
	}
	return r.Judge(who.judged(in, b.verdict))
}

// stageOf makes a stage with the workload's subscriptions.
func stageOf(ctx context.Context, e *harness.Env, w *work.Workload) (*testbed.Stage, error) {
	servers, err := e.Servers(ctx)
	if err != nil {
		return nil, err
	}
	stage, err := servers.NewStage(ctx, w.Partitions)
	if err != nil {
		return nil, err
	}
	if err := w.LoadSource(ctx, stage); err != nil {
		return nil, errors.Join(err, stage.Close(ctx))
	}
	return stage, nil
}

// bestForm is the limit's that is fastest with a tenth of the work, which also warms the servers up.
func bestForm(ctx context.Context, e *harness.Env, stage *testbed.Stage, w *work.Workload) (best work.LimitForm, err error) {
	var least time.Duration
	for _, form := range work.LimitForms() {
		if e.Quick {
			return form, nil
		}
		took, err := limitOnce(ctx, stage, w, max(1, w.Campaigns/10), form)
		if err != nil {
			return best, err
		}
		if least == 0 || took < least {
			best, least = form, took
		}
	}
	return best, nil
}

// limitOnce moves the first campaigns as plainly as can be.
func limitOnce(ctx context.Context, stage *testbed.Stage, w *work.Workload, campaigns int, form work.LimitForm) (took time.Duration, err error) {
	return onceOnALane(ctx, stage, w, campaigns, form, work.Limit)
}

// onceOnALane has one of our own programs move the first campaigns to a lane that is gone afterwards. What lost or doubled
// anything is no limit.
func onceOnALane(ctx context.Context, stage *testbed.Stage, w *work.Workload, campaigns int, form work.LimitForm, run program) (took time.Duration, err error) {
	lane, err := stage.NewLane(ctx)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, stage.Discard(context.WithoutCancel(ctx), lane)) }()
	if err := stage.Checkpoint(ctx); err != nil {
		return 0, err
	}
	if took, err = run(ctx, w, lane, campaigns, form); err != nil {
		return 0, err
	}
	return took, limitExact(ctx, w, lane, campaigns)
}

// limitRate is the limit of the whole workload, in its most likely form, deliveries/s.
func limitRate(ctx context.Context, stage *testbed.Stage, w *work.Workload) (float64, error) {
	took, err := limitOnce(ctx, stage, w, w.Campaigns, work.LimitForms()[0])
	if err != nil {
		return 0, err
	}
	return float64(w.Deliveries(0, w.Campaigns)) / took.Seconds(), nil
}

func limitExact(ctx context.Context, w *work.Workload, lane *testbed.Lane, campaigns int) error {
	v, err := work.Verify(ctx, w, lane, work.UpTo(campaigns))
	if err == nil && !v.Exact {
		err = fmt.Errorf("%w: the limit's sinks: %s", harness.ErrDiffer, v.Text)
	}
	return err
}
