package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"example.com/tiffin/cmd/bench/internal/harness"
	"example.com/tiffin/cmd/bench/internal/testbed"
	"example.com/tiffin/cmd/bench/internal/work"
)

// mostProcesses of one group.
const mostProcesses = 3

// keptGoal is what is left of one process's rate with several that share its cores. More cannot
// come out of cores that one process keeps busy.
const keptGoal = 0.9

// scale measures one, two and three processes of one group on the same machine.
func scale() harness.Scenario {
	s := harness.Scenario{
		Name:    "scale",
		Summary: "a backlog worked off by 1, 2 and 3 processes of one group that share the machine",
		Run:     runScale,
	}
	for n := 2; n <= mostProcesses; n++ {
		s.Goals = append(s.Goals, harness.AtLeast(processes(n), "to one process", keptGoal))
	}
	return s
}

func processes(n int) string {
	if n == 1 {
		return "1 process"
	}
	return strconv.Itoa(n) + " processes"
}

func runScale(ctx context.Context, e *harness.Env) (*harness.Result, error) {
	if err := warmBacklogs(ctx, e); err != nil {
		return nil, err
	}
	r := &harness.Result{}
	var one, limit float64
	for n := 1; n <= mostProcesses; n++ {
		rate, err := runGroup(ctx, e, n, &limit, r)
		if err != nil {
			return r, fmt.Errorf("%s: %w", processes(n), err)
		}
		if n == 1 {
			one = rate
		}
		r.Add(harness.Figure{Case: processes(n), Name: "to one process", Unit: harness.Ratio, Value: rate / one})
	}
	r.Note("Campaigns of 100 recipients in 6 partitions, published once every process has its share of them; " +
		"each process has a slot and an index of its own. Brokers, databases and processes share the cores. The limit is that of throughput, measured once.")
	return r, nil
}

// runGroup measures from the publishing of the backlog to the group's last offset, and the limit if
// it is not known yet.
func runGroup(ctx context.Context, e *harness.Env, n int, limit *float64, r *harness.Result) (rate float64, err error) {
	shape := work.Shape{Campaigns: 8_000, Restaurants: 10_000, Subscriptions: 1_000_000, Partitions: 2 * mostProcesses}
	if e.Quick {
		shape.Campaigns, shape.Restaurants, shape.Subscriptions = 200, 500, 50_000
	}
	w, err := work.New(shape, time.Now())
	if err != nil {
		return 0, err
	}
	stage, err := stageOf(ctx, e, w)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, stage.Close(ctx)) }()
	if *limit == 0 {
		if *limit, err = limitRate(ctx, stage, w); err != nil {
			return 0, err
		}
	}
	lane, err := stage.NewLane(ctx)
	if err != nil {
		return 0, err
	}
	ctx, cancel := context.WithTimeout(ctx, harness.Patience)
	defer cancel()
	group, err := startGroup(ctx, e, lane, n)
	defer func() {
		if stopped := group.stop(); err == nil {
			err = stopped
		}
	}()
	if err != nil {
		return 0, err
	}
	meter := testbed.StartMeter(group.pids())
	begun := time.Now()
	if err := w.Publish(ctx, stage, 0, w.Campaigns); err != nil {
		meter.Stop()
		return 0, err
	}
	bar := e.Bar(int64(w.Campaigns), processes(n))
	handled, err := work.AwaitGroup(ctx, lane, w.Campaigns, group[0], bar.Set)
	bar.Done()
	meter.Stop()
	if err != nil {
		return 0, err
	}
	rate = float64(w.Deliveries(0, w.Campaigns)) / handled.Sub(begun).Seconds()
	e.Say("%s: %s deliveries/s", processes(n), humanize.Comma(int64(rate)))
	r.Add(harness.Figure{Case: processes(n), Name: deliveries, Unit: harness.PerSecond, Value: rate, Limit: *limit})
	for i := range group {
		name := process(i)
		r.Add(harness.Figure{Case: processes(n), Name: "CPU time of process " + strconv.Itoa(i+1), Unit: harness.Seconds, Value: meter.CPU[name].Seconds()})
	}
	verdict, err := work.Verify(ctx, w, lane, work.UpTo(w.Campaigns))
	if err != nil {
		return 0, err
	}
	verdict.Case, verdict.Guarantee = processes(n), exactlyOnce
	return rate, r.Judge(verdict)
}

// processGroup are the processes of one consumer group.
type processGroup []*testbed.Tiffin

func process(i int) string { return "process " + strconv.Itoa(i+1) }

// startGroup starts n processes and waits until each is ready and has its share of the partitions.
// What it returns must be stopped also beside an error.
func startGroup(ctx context.Context, e *harness.Env, lane *testbed.Lane, n int) (group processGroup, err error) {
	program, err := e.Program(ctx)
	if err != nil {
		return nil, err
	}
	for i := range n {
		p, err := testbed.StartTiffin(ctx, program, lane, map[string]string{"TIFFIN_SOURCE_SLOT": lane.Slot + "_p" + strconv.Itoa(i+1)})
		if err != nil {
			return group, err
		}
		group = append(group, p)
		if _, err := p.WaitReady(ctx); err != nil { // one after the other: the first makes publication and schema
			return group, err
		}
	}
	return group, group.shared(ctx, lane)
}

// shared waits until every process has as many partitions as the others.
func (g processGroup) shared(ctx context.Context, lane *testbed.Lane) error {
	client, err := kgo.NewClient(kgo.SeedBrokers(lane.Brokers...))
	if err != nil {
		return fmt.Errorf("look at the group: %w", err)
	}
	defer client.Close()
	admin := kadm.NewClient(client)
	ticker := time.NewTicker(100 * time.Millisecond)
	defer ticker.Stop()
	for {
		if groups, err := admin.DescribeGroups(ctx, lane.Group); err == nil && evenly(groups[lane.Group], len(g)) {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait until %d processes share the partitions: %w", len(g), ctx.Err())
		case <-ticker.C:
		}
	}
}

func evenly(group kadm.DescribedGroup, n int) bool {
	if group.State != "Stable" || len(group.Members) != n {
		return false
	}
	for _, m := range group.Members {
		assigned, ok := m.Assigned.AsConsumer()
		if !ok {
			return false
		}
		partitions := 0
		for _, t := range assigned.Topics {
			partitions += len(t.Partitions)
		}
		if partitions != 2*mostProcesses/n {
			return false
		}
	}
	return true
}

func (g processGroup) pids() map[string]int {
	pids := map[string]int{}
	for i, p := range g {
		pids[process(i)] = p.PID()
	}
	return pids
}

func (g processGroup) stop() error {
	var err error
	for _, p := range g {
		err = errors.Join(err, p.Stop())
	}
	return err
}
