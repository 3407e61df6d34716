package main

import (
	"context"
	"errors"
	"time"

	"example.com/tiffin/cmd/bench/internal/harness"
	"example.com/tiffin/internal/devstack"
)

// fenceAlone measures what every batch of campaigns waits for; freshness measures it too, beside
// how fresh the index is.
func fenceAlone() harness.Scenario {
	return harness.Scenario{
		Name:       "fence",
		Summary:    "the fence alone, on an idle server, against the wire alone",
		Goals:      []harness.Goal{harness.AtMost(idleServer, fence+", p99", 1e-3).In(harness.Seconds)},
		OwnServers: true, Run: runFence,
	}
}

func runFence(ctx context.Context, e *harness.Env) (r *harness.Result, err error) {
	times := 5000
	if e.Quick {
		times = 200
	}
	server, err := devstack.StartPostgres(ctx, devstack.PostgresOptions{Dir: e.Dir, Durable: true})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, server.Close()) }()
	f, err := startFreshness(ctx, server)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.close()) }()
	wire, fences, err := f.fences(ctx, times)
	if err != nil {
		return nil, err
	}
	r = &harness.Result{}
	r.Add(spreadFigures(idleServer, fence, fences, wire)...)
	r.Note("%d fences one after the other. The limit is the wire: from the flushed position to a keepalive that has reached it.", times)
	return r, nil
}

// fences asks for as many, and for as many of the wire's.
func (f *freshnessRig) fences(ctx context.Context, times int) (wire, fences spread, err error) {
	if wire, err = f.wireAlone(ctx, times); err != nil {
		return wire, fences, err
	}
	took := make([]time.Duration, times)
	for i := range took {
		begun := time.Now()
		if err := f.fenced(ctx); err != nil {
			return wire, fences, err
		}
		took[i] = time.Since(begun)
	}
	return wire, spreadOf(took), nil
}
