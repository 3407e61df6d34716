package main

import (
	"context"
	"errors"
	"slices"

	"github.com/dustin/go-humanize"

	"example.com/tiffin/cmd/bench/internal/harness"
)

// onceToLeast is exactly once as a part of at least once.
const onceToLeast = "exactly once to at least once"

// eos measures what exactly once costs: the same backlog in both modes, in turn.
func eos() harness.Scenario {
	return harness.Scenario{
		Name:    "eos",
		Summary: "the same backlog exactly once and at least once, in turn",
		Goals:   []harness.Goal{harness.AtLeast("fan-out 100", onceToLeast, 0.9)},
		Run:     runEOS,
	}
}

func runEOS(ctx context.Context, e *harness.Env) (r *harness.Result, err error) {
	pairs := 3
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
	modes := []contender{
		tiffinWith(e, "exactly once", map[string]string{"TIFFIN_DELIVERY_MODE": "exactly_once"}),
		tiffinWith(e, "at least once", map[string]string{"TIFFIN_DELIVERY_MODE": "at_least_once"}),
	}
	total := w.Deliveries(0, w.Campaigns)
	rates := make([][]float64, len(modes))
	var profile []byte // of exactly once, the last
	for range pairs {
		for i, mode := range modes {
			b, err := workOff(ctx, e, stage, w, mode)
			if err != nil {
				return r, err
			}
			b.verdict.Text = mode.name + ": " + b.verdict.Text
			b.verdict.Case = in
			if err := r.Judge(b.verdict); err != nil {
				return r, err
			}
			if i == 0 {
				profile = b.profile
			}
			rates[i] = append(rates[i], float64(total)/b.took.Seconds())
			e.Say("%s: %s deliveries/s", mode.name, humanize.Comma(int64(rates[i][len(rates[i])-1])))
		}
	}
	var ratios []float64
	for i := range rates[0] {
		ratios = append(ratios, rates[0][i]/rates[1][i])
	}
	r.Add(harness.Figure{Case: in, Name: onceToLeast, Unit: harness.Ratio, Value: middle(ratios)},
		harness.Figure{Case: in, Name: "deliveries, " + modes[0].name, Unit: harness.PerSecond, Value: middle(rates[0]), Limit: middle(rates[1])},
		harness.Figure{Case: in, Name: "deliveries, " + modes[1].name, Unit: harness.PerSecond, Value: middle(rates[1])})
	r.Explain(in, profile)
	r.Note("Medians of %d pairs of runs in turn; the ratio is the median of the pairs'. The limit of exactly once is at least once. Nothing crashes here: both modes deliver each once.", pairs)
	return r, nil
}

// middle is the median of an odd number of values.
func middle(list []float64) float64 {
	sorted := slices.Sorted(slices.Values(list))
	return sorted[len(sorted)/2]
}
