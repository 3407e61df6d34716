package main

import (
	"context"
	"errors"

	"github.com/dustin/go-humanize"

	"example.com/tiffin/cmd/bench/internal/harness"
	"example.com/tiffin/cmd/bench/internal/testbed"
	"example.com/tiffin/cmd/bench/internal/work"
)

// warmBacklogs has servers that were just started work off backlogs, uncounted: a broker's code is compiled
// as it is used. What a delivery takes of it went from 2.0 to 0.9 µs within two minutes of such runs.
func warmBacklogs(ctx context.Context, e *harness.Env) error {
	if e.Quick {
		return nil
	}
	return e.WarmUp(func(enough func() bool) (err error) {
		w, stage, err := pairedBacklog(ctx, e)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, stage.Close(ctx)) }()
		for !enough() {
			took, err := warmPass(ctx, e, stage, w)
			if err != nil {
				return err
			}
			e.Say("warming up: %s deliveries/s", humanize.Comma(int64(float64(w.Deliveries(0, w.Campaigns))/took)))
		}
		return nil
	})
}

// warmPass is a backlog that nobody looks at, of the limit and of tiffin; its duration is tiffin's, in seconds.
func warmPass(ctx context.Context, e *harness.Env, stage *testbed.Stage, w *work.Workload) (seconds float64, err error) {
	if _, err := limitOnce(ctx, stage, w, w.Campaigns/4, work.LimitForms()[0]); err != nil {
		return 0, err
	}
	lane, err := stage.NewLane(ctx)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, stage.Discard(context.WithoutCancel(ctx), lane)) }()
	var b backlogRun
	err = b.deliver(ctx, e, lane, w, tiffinWith(e, harness.Tiffin, nil))
	return b.took.Seconds(), err
}
