package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"time"

	"example.com/tiffin/cmd/bench/internal/harness"
	"example.com/tiffin/cmd/bench/internal/testbed"
	"example.com/tiffin/internal/devstack"
)

// Scenarios that still print and judge by themselves run through printing. To convert one: let it
// return a harness.Scenario as freshness does, its Run take a *harness.Env, put what it printed into
// Result.Add, Limit and Note, and its goal into Goals. Env.Quick, Env.Dir and Env.Say are what
// options and stopwatch were. Text, JSON, report, medians and the exit status follow; this file ends
// with the last.
func printing(name, summary string, run func(context.Context, options) error) harness.Scenario {
	return harness.Scenario{Name: name, Summary: summary, Run: func(ctx context.Context, e *harness.Env) (*harness.Result, error) {
		var out bytes.Buffer
		err := run(ctx, options{quick: e.Quick, dir: e.Dir, out: &out, say: func(what string) { e.Say("%s", what) }})
		r := &harness.Result{}
		for line := range strings.Lines(out.String()) {
			r.Note("%s", strings.TrimSpace(line))
		}
		return r, err
	}}
}

type options struct {
	quick bool
	dir   string
	out   io.Writer
	say   func(string)
}

func stopwatch(o options) func(string) { return o.say }

// What ends a run that could be measured with exit status 1.
var (
	errMissed = errors.New("the goal was missed")
	errWrong  = errors.New("the index answers wrongly: no figure counts")
)

const (
	patience       = 10 * time.Minute
	sourceDatabase = "source"
	maxWAL         = testbed.MaxWAL
)

func startPostgres(ctx context.Context, o options, database string) (*devstack.Postgres, error) {
	server, err := testbed.StartPostgres(ctx, o.dir, nil)
	if err != nil {
		return nil, err
	}
	if err := server.CreateDatabase(ctx, database); err != nil {
		return nil, errors.Join(err, server.Close())
	}
	return server, nil
}
