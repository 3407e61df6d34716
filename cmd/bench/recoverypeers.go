package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"example.com/tiffin/cmd/bench/internal/harness"
	"example.com/tiffin/cmd/bench/internal/work"
)

// What is measured of a peer that is killed. It has no ledger that tells new from repeated.
const (
	firstAny = "restart to first delivery, new or repeated"
	allThere = "restart to the last delivery"
)

// recoverPeer kills a peer in the backlog and starts it again at once; the oracle tells what it lost
// and doubled. A peer's fault is only reported.
func recoverPeer(ctx context.Context, e *harness.Env, w *work.Workload, who contender, r *harness.Result) error {
	v, err := killPeer(ctx, e, w, who, r)
	if err != nil {
		v = harness.Verdict{Text: "did not finish: " + err.Error()}
	}
	r.Note("%s: %s", who.name, who.guarantee)
	return r.Judge(who.judged(comesBack, v))
}

func killPeer(ctx context.Context, e *harness.Env, w *work.Workload, who contender, r *harness.Result) (v harness.Verdict, err error) {
	ctx, cancel := context.WithTimeout(ctx, harness.Patience)
	defer cancel()
	stage, err := stageOf(ctx, e, w)
	if err != nil {
		return v, err
	}
	defer func() { err = errors.Join(err, stage.Close(ctx)) }()
	lane, err := stage.NewLane(ctx)
	if err != nil {
		return v, err
	}
	process, err := who.start(ctx, lane)
	if err != nil {
		return v, err
	}
	defer func() {
		if stopped := process.Stop(); err == nil {
			err = stopped
		}
	}()
	if _, err := process.WaitReady(ctx); err != nil {
		return v, err
	}
	if err := w.Publish(ctx, stage, 0, w.Campaigns); err != nil {
		return v, err
	}
	total := w.Deliveries(0, w.Campaigns)
	if _, _, err := work.AwaitDelivered(ctx, lane, 0, int64(total/20), process); err != nil {
		return v, err
	}
	process.Kill()
	_, had, err := work.AwaitDelivered(ctx, lane, 0, 0, process) // as it is
	if err != nil {
		return v, err
	}
	if had >= int64(total) {
		return v, fmt.Errorf("all %d deliveries were there before the kill: the backlog is too small", total)
	}
	begun := time.Now()
	restarted, err := who.again(ctx, lane, process)
	if err != nil {
		return v, err
	}
	process = restarted
	first, _, err := work.AwaitDelivered(ctx, lane, had, 1, process)
	if err != nil {
		return v, err
	}
	bar := e.Bar(int64(total), who.name)
	last, err := work.AwaitSinks(ctx, lane, total, process, work.StillAfterKill, bar.Set)
	bar.Done()
	if err != nil {
		return v, err
	}
	r.Add(harness.Figure{Case: comesBack, Name: firstAny, Who: who.name, Unit: harness.Seconds, Value: first.Sub(begun).Seconds()},
		harness.Figure{Case: comesBack, Name: allThere, Who: who.name, Unit: harness.Seconds, Value: last.Sub(begun).Seconds()})
	return work.Verify(ctx, w, lane, work.UpTo(w.Campaigns))
}
