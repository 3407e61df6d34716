package main

import (
	"context"
	"errors"
	"maps"
	"runtime"
	"slices"
	"strconv"
	"time"

	"github.com/dustin/go-humanize"

	"example.com/tiffin/cmd/bench/internal/harness"
	"example.com/tiffin/cmd/bench/internal/testbed"
	"example.com/tiffin/cmd/bench/internal/work"
)

// What is measured of the live page. The goal is a cost of less than 1 %. Rates vary by more, so that the CPU
// is measured besides, of daemon and servers at rest: at full load what viewers take of it is what deliveries
// lack.
const (
	viewers      = 10
	viewedToNone = "deliveries with viewers, to none"
	viewedGoal   = 0.99
	viewedAtRest = "CPU that viewers take of each second, at rest"
	watchedFor   = 20 * time.Second
)

// viewedMost is 1 % of the cores, in seconds of CPU a second.
func viewedMost() float64 { return (1 - viewedGoal) * float64(runtime.NumCPU()) }

// page measures what the live page costs: the same backlog without and with viewers, in turn.
func page() harness.Scenario {
	return harness.Scenario{
		Name:    "page",
		Summary: "the same backlog with nobody and with " + strconv.Itoa(viewers) + " viewers on the live page, in turn: what does it cost?",
		Goals: []harness.Goal{
			harness.AtLeast("fan-out 100", viewedToNone, viewedGoal), harness.AtMost("fan-out 100", viewedAtRest, viewedMost()),
		},
		Run: runPage,
	}
}

func runPage(ctx context.Context, e *harness.Env) (r *harness.Result, err error) {
	pairs := 7
	if e.Quick {
		pairs = 1
	}
	if err := warmBacklogs(ctx, e); err != nil {
		return nil, err
	}
	const in = "fan-out 100"
	w, stage, err := pairedBacklog(ctx, e)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, stage.Close(ctx)) }()
	r = &harness.Result{}
	unseen := tiffinWith(e, harness.Tiffin, nil)
	p := pagePairs{in: in, w: w, unseen: unseen, seen: unseen}
	p.seen.beside = lookAt
	for range pairs {
		if err := p.measure(ctx, e, stage, r); err != nil {
			return r, err
		}
	}
	rest, err := viewedRest(ctx, e, stage, w, unseen)
	if err != nil {
		return r, err
	}
	p.report(r)
	r.Add(harness.Figure{Case: in, Name: viewedAtRest, Unit: harness.Seconds, Value: max(0, rest)})
	r.Note("Medians of %d pairs of runs in turn; the ratio is the median of the pairs'. Each of the %d viewers asks for / once, follows /live/events and asks for /live/campaigns every two seconds, in the process of bench, whose cores are the same. At rest: all is delivered; of daemon and servers.", pairs, viewers)
	return r, nil
}

// pagePairs are runs of one backlog with nobody and with viewers, in turn.
type pagePairs struct {
	in           string
	w            *work.Workload
	unseen, seen contender

	none, some    []float64 // deliveries a second
	ratios, extra []float64 // with viewers to none: of the rates, of the CPU
}

func (p *pagePairs) measure(ctx context.Context, e *harness.Env, stage *testbed.Stage, r *harness.Result) error {
	total := float64(p.w.Deliveries(0, p.w.Campaigns))
	var rates, cpus [2]float64
	for i, who := range []contender{p.unseen, p.seen} {
		b, err := workOff(ctx, e, stage, p.w, who)
		if err != nil {
			return err
		}
		if err := r.Judge(who.judged(p.in, b.verdict)); err != nil {
			return err
		}
		rates[i], cpus[i] = total/b.took.Seconds(), b.meter.CPU[self].Seconds()/total
		e.Say("%d viewers: %s deliveries/s", i*viewers, humanize.Comma(int64(rates[i])))
	}
	p.none, p.some = append(p.none, rates[0]), append(p.some, rates[1])
	p.ratios, p.extra = append(p.ratios, rates[1]/rates[0]), append(p.extra, ratio(cpus[1], cpus[0]))
	return nil
}

func (p *pagePairs) report(r *harness.Result) {
	r.Add(harness.Figure{Case: p.in, Name: viewedToNone, Unit: harness.Ratio, Value: middle(p.ratios)},
		harness.Figure{Case: p.in, Name: viewedToNone + ", least of the pairs", Unit: harness.Ratio, Value: slices.Min(p.ratios)},
		harness.Figure{Case: p.in, Name: viewedToNone + ", most of the pairs", Unit: harness.Ratio, Value: slices.Max(p.ratios)},
		harness.Figure{Case: p.in, Name: "CPU with viewers, to none", Unit: harness.Cost, Value: middle(p.extra)},
		harness.Figure{Case: p.in, Name: "deliveries, with viewers", Unit: harness.PerSecond, Value: middle(p.some), Limit: middle(p.none)},
		harness.Figure{Case: p.in, Name: "deliveries, without", Unit: harness.PerSecond, Value: middle(p.none)})
}

// viewedRest is the CPU that daemon and servers take more of each second while viewers look, once all is
// delivered.
func viewedRest(ctx context.Context, e *harness.Env, stage *testbed.Stage, w *work.Workload, who contender) (more float64, err error) {
	lane, err := stage.NewLane(ctx)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, stage.Discard(context.WithoutCancel(ctx), lane)) }()
	var worked backlogRun
	if err := worked.deliver(ctx, e, lane, w, who); err != nil {
		return 0, err
	}
	process, err := who.start(ctx, lane)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, process.Stop()) }()
	if _, err := process.WaitReady(ctx); err != nil {
		return 0, err
	}
	servers, err := e.Servers(ctx)
	if err != nil {
		return 0, err
	}
	watched := map[string]int{self: process.PID()}
	maps.Copy(watched, servers.Processes())
	alone, err := restless(ctx, e, watched)
	if err != nil {
		return 0, err
	}
	stop, err := lookAt(ctx, process)
	if err != nil {
		return 0, err
	}
	seen, err := restless(ctx, e, watched)
	return seen - alone, errors.Join(err, stop())
}

// restless is the CPU that processes with nothing to do take of each second.
func restless(ctx context.Context, e *harness.Env, watched map[string]int) (float64, error) {
	span := watchedFor
	if e.Quick {
		span = time.Second
	}
	meter, begun := testbed.StartMeter(watched), time.Now()
	select {
	case <-time.After(span):
	case <-ctx.Done():
	}
	took := time.Since(begun)
	meter.Stop()
	var all time.Duration
	for _, cpu := range meter.CPU {
		all += cpu
	}
	return all.Seconds() / took.Seconds(), ctx.Err()
}

// lookAt has viewers on the page from ready to the end of the work.
func lookAt(ctx context.Context, process running) (stop func() error, err error) {
	tiffin, ok := process.(*testbed.Tiffin)
	if !ok {
		return nil, errors.New("only the daemon has a live page")
	}
	v := tiffin.View(ctx, viewers)
	return func() error {
		_, err := v.Stop()
		return err
	}, nil
}
