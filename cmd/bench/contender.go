package main

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"example.com/tiffin/cmd/bench/internal/harness"
	"example.com/tiffin/cmd/bench/internal/testbed"
	"example.com/tiffin/cmd/bench/internal/work"
)

// contender does the work: tiffin with some settings, or a peer.
type contender struct {
	name      string
	guarantee string
	start     func(context.Context, *testbed.Lane) (running, error)
	again     func(ctx context.Context, lane *testbed.Lane, killed running) (running, error)
	beside    func(context.Context, running) (stop func() error, err error) // goes on while it works; nil: nothing
	await     func(ctx context.Context, lane *testbed.Lane, w *work.Workload, campaigns int, of work.Ender, progress func(int64)) (time.Time, error)
}

// running is a contender's process.
type running interface {
	work.Ender
	PID() int
	WaitReady(context.Context) (time.Time, error)
	Kill()
	Stop() error
}

// contenders are tiffin and the peers of the command line.
func contenders(e *harness.Env) []contender {
	list := []contender{tiffinWith(e, harness.Tiffin, nil)}
	for _, path := range e.Against {
		list = append(list, tiffinOf(func(context.Context) (string, error) { return path, nil }, path, nil))
	}
	for _, p := range e.Peers {
		list = append(list, contender{
			name: p.Name, guarantee: p.Guarantee,
			start: func(ctx context.Context, lane *testbed.Lane) (running, error) { return p.Start(ctx, lane, e.Scratch()) },
			again: func(ctx context.Context, _ *testbed.Lane, killed running) (running, error) {
				return killed.(*testbed.RunningPeer).Again(ctx) //nolint:forcetypeassert // start made it
			},
			await: func(ctx context.Context, lane *testbed.Lane, w *work.Workload, campaigns int, of work.Ender, progress func(int64)) (time.Time, error) {
				total := w.Deliveries(0, campaigns)
				return work.AwaitSinks(ctx, lane, total, of, work.StillWithout, func(done int64) { progress(done * int64(campaigns) / int64(total)) })
			},
		})
	}
	return list
}

// exactlyOnce is what the daemon promises in its default mode.
const exactlyOnce = "exactly once: a crash loses and doubles nothing"

// judged is a verdict on this contender.
func (c contender) judged(in string, v harness.Verdict) harness.Verdict {
	v.Case, v.Who, v.Guarantee = in, c.name, c.guarantee
	return v
}

// tiffinWith is the daemon with these settings beside the lane's.
func tiffinWith(e *harness.Env, name string, settings map[string]string) contender {
	return tiffinOf(e.Program, name, settings)
}

// tiffinOf is a build of the daemon.
func tiffinOf(build func(context.Context) (string, error), name string, settings map[string]string) contender {
	start := func(ctx context.Context, lane *testbed.Lane) (running, error) {
		program, err := build(ctx)
		if err != nil {
			return nil, err
		}
		return testbed.StartTiffin(ctx, program, lane, settings)
	}
	return contender{
		name: name, guarantee: exactlyOnce, start: start,
		again: func(ctx context.Context, lane *testbed.Lane, _ running) (running, error) { return start(ctx, lane) },
		await: func(ctx context.Context, lane *testbed.Lane, _ *work.Workload, campaigns int, of work.Ender, progress func(int64)) (time.Time, error) {
			return work.AwaitGroup(ctx, lane, campaigns, of, progress)
		},
	}
}

// backlogRun is how a contender worked off a backlog. took is 0 if it did not.
type backlogRun struct {
	ready   time.Duration // from its start
	took    time.Duration // from ready to everything in both sinks
	meter   *testbed.Meter
	profile []byte  // of tiffin's CPU; may be empty
	mallocs float64 // heap objects that tiffin allocated; 0: not known
	verdict harness.Verdict
}

// self is the contender among the processes that a meter watches.
const self = "self"

// workOff lets a contender deliver every campaign of the stage's input to a lane that is gone
// afterwards.
func workOff(ctx context.Context, e *harness.Env, stage *testbed.Stage, w *work.Workload, who contender) (b backlogRun, err error) {
	lane, err := stage.NewLane(ctx)
	if err != nil {
		return b, err
	}
	defer func() { err = errors.Join(err, stage.Discard(context.WithoutCancel(ctx), lane)) }()
	if err := stage.Checkpoint(ctx); err != nil {
		return b, err
	}
	if err := b.deliver(ctx, e, lane, w, who); err != nil {
		return b, err
	}
	b.verdict, err = work.Verify(ctx, w, lane, work.UpTo(w.Campaigns))
	return b, err
}

// profiled is about as long as a backlog takes.
const profiled = 3 * time.Second

// deliver runs the contender from its start to its stop.
func (b *backlogRun) deliver(ctx context.Context, e *harness.Env, lane *testbed.Lane, w *work.Workload, who contender) (err error) {
	ctx, cancel := context.WithTimeout(ctx, harness.Patience)
	defer cancel()
	started := time.Now()
	process, err := who.start(ctx, lane)
	if err != nil {
		return err
	}
	defer func() {
		if stopped := process.Stop(); err == nil {
			err = stopped
		}
	}()
	servers, err := e.Servers(ctx)
	if err != nil {
		return err
	}
	ready, err := process.WaitReady(ctx)
	if err != nil {
		return err
	}
	b.ready = ready.Sub(started)
	watched := map[string]int{self: process.PID()}
	maps.Copy(watched, servers.Processes())
	b.meter = testbed.StartMeter(watched)
	defer b.meter.Stop()
	profile := profileOf(ctx, e, process)
	defer func() { b.profile = profile() }()
	mallocs, err := mallocsOf(ctx, process)
	if err != nil {
		return err
	}
	if who.beside != nil {
		stop, refused := who.beside(ctx, process)
		if refused != nil {
			return refused
		}
		defer func() { err = errors.Join(err, stop()) }()
	}
	bar := e.Bar(int64(w.Campaigns), who.name)
	defer bar.Done()
	handled, err := who.await(ctx, lane, w, w.Campaigns, process, bar.Set)
	if err != nil {
		return err
	}
	b.took = handled.Sub(ready)
	after, err := mallocsOf(ctx, process)
	b.mallocs = after - mallocs
	return err
}

// profileOf begins a profile of tiffin, of which the result is waited for; of others, in quick form,
// and of a work that ends sooner there is none.
func profileOf(ctx context.Context, e *harness.Env, process running) (wait func() []byte) {
	tiffin, ok := process.(*testbed.Tiffin)
	if !ok || e.Quick {
		return func() []byte { return nil }
	}
	profile := make(chan []byte, 1)
	go func() {
		data, _ := tiffin.Profile(ctx, profiled)
		profile <- data
	}()
	return func() []byte { return <-profile }
}

// mallocsOf is how many heap objects tiffin has allocated so far; 0 of others.
func mallocsOf(ctx context.Context, process running) (float64, error) {
	if tiffin, ok := process.(*testbed.Tiffin); ok {
		return tiffin.Metric(ctx, "go_memstats_mallocs_total")
	}
	return 0, nil
}

// costs are what the run took of the machine.
func (b *backlogRun) costs(in, who string, deliveries int) []harness.Figure {
	each := func(d time.Duration) float64 { return d.Seconds() / float64(deliveries) }
	list := []harness.Figure{
		{Case: in, Name: cpuEach, Who: who, Unit: harness.Seconds, Value: each(b.meter.CPU[self])},
		{Case: in, Name: memory, Who: who, Unit: harness.Bytes, Value: float64(b.meter.Peak[self])},
		{Case: in, Name: startup, Who: who, Unit: harness.Seconds, Value: b.ready.Seconds()},
	}
	if b.mallocs > 0 {
		list = append(list, harness.Figure{Case: in, Name: allocations, Who: who, Unit: harness.Count, Value: b.mallocs / float64(deliveries)})
	}
	for _, name := range slices.Sorted(maps.Keys(b.meter.CPU)) {
		if name != self {
			list = append(list, harness.Figure{Case: in, Name: serverShare + name, Who: who, Unit: harness.Seconds, Value: each(b.meter.CPU[name])},
				harness.Figure{Case: in, Name: memory + ", " + name, Who: who, Unit: harness.Bytes, Value: float64(b.meter.Peak[name])})
		}
	}
	return list
}

// besideBuilds are tiffin's rate and CPU as parts of those of other builds, in the same run: the
// median over runs is of pairs.
func besideBuilds(e *harness.Env, in string, list []contender, runs []backlogRun) (figures []harness.Figure) {
	for i, who := range list {
		if !slices.Contains(e.Against, who.name) || runs[i].took == 0 || runs[0].took == 0 {
			continue
		}
		figures = append(figures,
			harness.Figure{Case: in, Name: deliveries + ", to " + who.name, Unit: harness.Ratio, Value: runs[i].took.Seconds() / runs[0].took.Seconds()},
			harness.Figure{Case: in, Name: cpuEach + ", to " + who.name, Unit: harness.Cost, Value: ratio(runs[0].meter.CPU[self].Seconds(), runs[i].meter.CPU[self].Seconds())})
	}
	return figures
}

// memorySeries is the contender's memory over the run.
func (b *backlogRun) memorySeries(in, who string) harness.Series {
	return harness.Series{
		Title: "Memory, " + in, X: "seconds since ready", Y: "bytes", Kind: harness.Linear,
		Lines: []harness.Line{{Name: who, Points: b.meter.Memory[self]}},
	}
}
