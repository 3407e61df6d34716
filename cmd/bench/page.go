package main

import (
	"context"
	"errors"
	"strconv"

	"github.com/dustin/go-humanize"

	"example.com/tiffin/cmd/bench/internal/harness"
	"example.com/tiffin/cmd/bench/internal/testbed"
)

// What is measured of the live page. The goal is a cost of less than 1 %.
const (
	viewers      = 10
	viewedToNone = "deliveries with viewers, to none"
	viewedGoal   = 0.99
)

// page measures what the live page costs: the same backlog without and with viewers, in turn.
func page() harness.Scenario {
	return harness.Scenario{
		Name:    "page",
		Summary: "the same backlog with nobody and with " + strconv.Itoa(viewers) + " viewers on the live page, in turn: what does it cost?",
		Goals:   []harness.Goal{harness.AtLeast("fan-out 100", viewedToNone, viewedGoal)},
		Run:     runPage,
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
	seen := unseen
	seen.beside = lookAt
	total := w.Deliveries(0, w.Campaigns)
	var none, some, ratios, extra []float64
	for range pairs {
		var rates, cpus [2]float64
		for i, who := range []contender{unseen, seen} {
			b, err := workOff(ctx, e, stage, w, who)
			if err != nil {
				return r, err
			}
			if err := r.Judge(who.judged(in, b.verdict)); err != nil {
				return r, err
			}
			rates[i], cpus[i] = float64(total)/b.took.Seconds(), b.meter.CPU[self].Seconds()/float64(total)
			e.Say("%d viewers: %s deliveries/s", i*viewers, humanize.Comma(int64(rates[i])))
		}
		none, some = append(none, rates[0]), append(some, rates[1])
		ratios, extra = append(ratios, rates[1]/rates[0]), append(extra, ratio(cpus[1], cpus[0]))
	}
	r.Add(harness.Figure{Case: in, Name: viewedToNone, Unit: harness.Ratio, Value: middle(ratios)},
		harness.Figure{Case: in, Name: "CPU with viewers, to none", Unit: harness.Cost, Value: middle(extra)},
		harness.Figure{Case: in, Name: "deliveries, with viewers", Unit: harness.PerSecond, Value: middle(some), Limit: middle(none)},
		harness.Figure{Case: in, Name: "deliveries, without", Unit: harness.PerSecond, Value: middle(none)})
	r.Note("Medians of %d pairs of runs in turn; the ratio is the median of the pairs'. Each of the %d viewers asks for / once, follows /live/events and asks for /live/campaigns every two seconds, in the process of bench, whose cores are the same.", pairs, viewers)
	return r, nil
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
