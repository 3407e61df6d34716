package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"example.com/tiffin/cmd/bench/internal/harness"
	"example.com/tiffin/cmd/bench/internal/testbed"
	"example.com/tiffin/cmd/bench/internal/work"
)

// The cases and figures of recovery.
const (
	comesBack     = "comes back"
	staysAway     = "stays away"
	firstNew      = "restart to first new delivery"
	takenOver     = "kill to first new delivery of every partition"
	recoveryLimit = 5 // seconds
	// awaySession is the group's session time-out while one of two processes stays away: short, so
	// that the benchmark is. The default is 45 s.
	awaySession = 10 * time.Second
)

func recovery() harness.Scenario {
	return harness.Scenario{
		Name:    "recovery",
		Summary: "kill -9 in a backlog, 1,000,000 subscriptions in the index: to the first new delivery, restarted at once, or taken over by another",
		Goals: []harness.Goal{
			harness.AtMost(comesBack, firstNew, recoveryLimit).In(harness.Seconds),
			// The group waits for the dead one; then a recovery's time.
			harness.AtMost(staysAway, takenOver, awaySession.Seconds()+recoveryLimit).In(harness.Seconds),
		},
		Peers: true, Run: runRecovery,
	}
}

func runRecovery(ctx context.Context, e *harness.Env) (*harness.Result, error) {
	shape := work.Shape{Campaigns: 20_000, Restaurants: 10_000, Subscriptions: 1_000_000}
	if e.Quick {
		shape = work.Shape{Campaigns: 4_000, Restaurants: 500, Subscriptions: 50_000}
	}
	w, err := work.New(shape, time.Now())
	if err != nil {
		return nil, err
	}
	r := &harness.Result{}
	for _, c := range []struct {
		name string
		kill func(context.Context, *harness.Env, *recoveryRun) (harness.Figure, error)
	}{{comesBack, killAndRestart}, {staysAway, killOneOfTwo}} {
		if !e.Wants(c.name) {
			continue
		}
		if err := recoverOnce(ctx, e, w, c.name, c.kill, r); err != nil {
			return r, fmt.Errorf("%s: %w", c.name, err)
		}
	}
	for _, who := range contenders(e) {
		if who.name == harness.Tiffin || !e.Wants(comesBack) {
			continue
		}
		if err := recoverPeer(ctx, e, w, who, r); err != nil {
			return r, err
		}
	}
	r.Note("Exactly once, static membership; a delivery is new when its campaign had not reached the ledger before the kill, and it counts when it is in both sinks. "+
		"Session time-out: 45 s where the process comes back, %v where it stays away. The limits: a first start, from nothing to ready; the session time-out.", awaySession)
	return r, nil
}

// recoveryRun is one backlog of which somebody dies.
type recoveryRun struct {
	stage   *testbed.Stage
	lane    *testbed.Lane
	w       *work.Workload
	program string
	started []*testbed.Tiffin
}

// recoverOnce lets the backlog be killed in, measures, and wants both sinks exact in the end.
func recoverOnce(ctx context.Context, e *harness.Env, w *work.Workload, name string,
	kill func(context.Context, *harness.Env, *recoveryRun) (harness.Figure, error), r *harness.Result,
) (err error) {
	ctx, cancel := context.WithTimeout(ctx, harness.Patience)
	defer cancel()
	stage, err := stageOf(ctx, e, w)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stage.Close(ctx)) }()
	run := &recoveryRun{w: w, stage: stage}
	if run.lane, err = stage.NewLane(ctx); err != nil {
		return err
	}
	if run.program, err = e.Program(ctx); err != nil {
		return err
	}
	defer func() {
		for _, t := range run.started {
			t.Kill()
		}
	}()
	figure, err := kill(ctx, e, run)
	if err != nil {
		return err
	}
	figure.Case, figure.Unit = name, harness.Seconds
	r.Add(figure)
	last := run.started[len(run.started)-1]
	if _, err := work.AwaitGroup(ctx, run.lane, w.Campaigns, last, func(int64) {}); err != nil {
		return err
	}
	verdict, err := work.Verify(ctx, w, run.lane, work.UpTo(w.Campaigns))
	if err != nil {
		return err
	}
	verdict.Case, verdict.Who, verdict.Guarantee = name, harness.Tiffin, exactlyOnce
	return r.Judge(verdict)
}

// start runs a daemon; number tells the processes of the group apart.
func (r *recoveryRun) start(ctx context.Context, number int, session time.Duration) (*testbed.Tiffin, error) {
	t, err := testbed.StartTiffin(ctx, r.program, r.lane, map[string]string{
		"TIFFIN_SOURCE_SLOT":           fmt.Sprintf("%s_%d", r.lane.Slot, number),
		"TIFFIN_KAFKA_SESSION_TIMEOUT": session.String(),
	})
	if err == nil {
		r.started = append(r.started, t)
	}
	return t, err
}

// killAndRestart kills the only process in the middle of the backlog and starts it again at once.
func killAndRestart(ctx context.Context, e *harness.Env, r *recoveryRun) (f harness.Figure, err error) {
	const session = 45 * time.Second // the default
	t, err := r.start(ctx, 1, session)
	if err != nil {
		return f, err
	}
	begun := time.Now()
	ready, err := t.WaitReady(ctx)
	if err != nil {
		return f, err
	}
	undisturbed := ready.Sub(begun) // of a start that has nothing to recover
	watch, _, err := r.killInBacklog(ctx, t)
	if err != nil {
		return f, err
	}
	defer watch.close()
	begun = time.Now()
	if t, err = r.start(ctx, 1, session); err != nil {
		return f, err
	}
	at, err := watch.await(ctx, t, func(moved, _ int) bool { return moved > 0 })
	if err != nil {
		return f, err
	}
	e.Say("%s: the first new delivery came %v after the restart", comesBack, at.Sub(begun).Round(time.Millisecond))
	return harness.Figure{Name: firstNew, Value: at.Sub(begun).Seconds(), Limit: undisturbed.Seconds()}, nil
}

// killOneOfTwo kills one of two processes, which stays away: the other takes its partitions over.
func killOneOfTwo(ctx context.Context, e *harness.Env, r *recoveryRun) (f harness.Figure, err error) {
	var pair [2]*testbed.Tiffin
	for n := range pair {
		if pair[n], err = r.start(ctx, n+1, awaySession); err != nil {
			return f, err
		}
		if _, err := pair[n].WaitReady(ctx); err != nil {
			return f, err
		}
	}
	if err := r.awaitOwners(ctx, len(pair)); err != nil {
		return f, err
	}
	watch, killed, err := r.killInBacklog(ctx, pair[0])
	if err != nil {
		return f, err
	}
	defer watch.close()
	at, err := watch.await(ctx, pair[1], func(moved, of int) bool { return moved == of })
	if err != nil {
		return f, err
	}
	e.Say("%s: every partition moved on %v after the kill", staysAway, at.Sub(killed).Round(time.Millisecond))
	return harness.Figure{Name: takenOver, Value: at.Sub(killed).Seconds(), Limit: awaySession.Seconds()}, nil
}

// killInBacklog publishes the backlog and kills the process once a twentieth is handled.
func (r *recoveryRun) killInBacklog(ctx context.Context, t *testbed.Tiffin) (_ *watchNew, killed time.Time, err error) {
	if err := r.w.Publish(ctx, r.stage, 0, r.w.Campaigns); err != nil {
		return nil, killed, err
	}
	if _, err := work.AwaitGroup(ctx, r.lane, r.w.Campaigns/20, t, func(int64) {}); err != nil {
		return nil, killed, err
	}
	killed = time.Now()
	t.Kill()
	watch, err := r.watch(ctx)
	return watch, killed, err
}

// awaitOwners waits until so many processes have partitions.
func (r *recoveryRun) awaitOwners(ctx context.Context, want int) error {
	conn, err := pgx.Connect(ctx, r.lane.FeedbackDSN)
	if err != nil {
		return fmt.Errorf("read the ledger: %w", err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	ticker := time.NewTicker(100 * time.Millisecond)
	defer ticker.Stop()
	for {
		var owners int
		if err := conn.QueryRow(ctx, "SELECT count(DISTINCT owner) FROM tiffin.progress WHERE consumer_group = $1 AND owner <> ''", r.lane.Group).Scan(&owners); err != nil {
			return fmt.Errorf("read the ledger: %w", err)
		}
		if owners >= want {
			return nil
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return fmt.Errorf("wait until %d processes have partitions: %w", want, ctx.Err())
		}
	}
}

// watchNew waits for deliveries of campaigns that the ledger did not know when it was made.
type watchNew struct {
	client *kgo.Client
	group  string
	ends   map[int32]int64 // of the input's partitions
	ledger map[int32]int64
}

// watch reads the ledger. Whoever is dead writes no more; a survivor's partitions may move on.
func (r *recoveryRun) watch(ctx context.Context) (*watchNew, error) {
	conn, err := pgx.Connect(ctx, r.lane.FeedbackDSN)
	if err != nil {
		return nil, fmt.Errorf("read the ledger: %w", err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	rows, err := conn.Query(ctx, "SELECT partition, next_offset FROM tiffin.progress WHERE consumer_group = $1", r.lane.Group)
	if err != nil {
		return nil, fmt.Errorf("read the ledger: %w", err)
	}
	w := &watchNew{group: r.lane.Group, ends: map[int32]int64{}, ledger: map[int32]int64{}}
	var partition int32
	var next int64
	if _, err := pgx.ForEachRow(rows, []any{&partition, &next}, func() error { w.ledger[partition] = next; return nil }); err != nil {
		return nil, fmt.Errorf("read the ledger: %w", err)
	}
	if w.client, err = kgo.NewClient(kgo.SeedBrokers(r.lane.Brokers...)); err != nil {
		return nil, fmt.Errorf("watch the group: %w", err)
	}
	ends, err := kadm.NewClient(w.client).ListEndOffsets(ctx, r.lane.Input)
	if err := errors.Join(err, ends.Error()); err != nil {
		w.close()
		return nil, fmt.Errorf("watch the group: %w", err)
	}
	ends.Each(func(o kadm.ListedOffset) { w.ends[o.Partition] = o.Offset })
	for partition, end := range w.ends {
		if w.ledger[partition] >= end {
			w.close()
			return nil, fmt.Errorf("partition %d was handled to its end %d before the kill: the backlog is too small", partition, end)
		}
	}
	return w, nil
}

func (w *watchNew) close() { w.client.Close() }

// await returns when enough partitions have a new delivery in both sinks: the group's offset follows
// the rows, in the transaction of the records.
func (w *watchNew) await(ctx context.Context, of work.Ender, enough func(moved, of int) bool) (time.Time, error) {
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	admin := kadm.NewClient(w.client)
	for {
		moved := 0
		if offsets, err := admin.FetchOffsets(ctx, w.group); err == nil { // an answer that fails is asked for again
			offsets.Each(func(o kadm.OffsetResponse) {
				if o.At > w.ledger[o.Partition] {
					moved++
				}
			})
		}
		if enough(moved, len(w.ends)) {
			return time.Now(), nil
		}
		select {
		case <-of.Exited():
			return time.Time{}, of.Ended("in the middle of the work")
		case <-ctx.Done():
			return time.Time{}, fmt.Errorf("wait for a new delivery: %w", ctx.Err())
		case <-ticker.C:
		}
	}
}
