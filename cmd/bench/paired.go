package main

import (
	"context"
	"errors"
	"time"

	"example.com/tiffin/cmd/bench/internal/harness"
	"example.com/tiffin/cmd/bench/internal/testbed"
	"example.com/tiffin/cmd/bench/internal/work"
)

// pairedBacklog is what two ways of working are compared on, in pairs of runs: campaigns at a fan-out of 100,
// published. The caller closes the stage.
func pairedBacklog(ctx context.Context, e *harness.Env) (*work.Workload, *testbed.Stage, error) {
	shape := work.Shape{Campaigns: 8_000, Restaurants: 10_000, Subscriptions: 1_000_000}
	if e.Quick {
		shape = work.Shape{Campaigns: 200, Restaurants: 500, Subscriptions: 50_000}
	}
	w, err := work.New(shape, time.Now())
	if err != nil {
		return nil, nil, err
	}
	stage, err := stageOf(ctx, e, w)
	if err != nil {
		return nil, nil, err
	}
	if err := w.Publish(ctx, stage, 0, w.Campaigns); err != nil {
		return nil, nil, errors.Join(err, stage.Close(ctx))
	}
	return w, stage, nil
}
