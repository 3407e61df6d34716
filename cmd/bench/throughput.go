package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/jackc/pgx/v5"
)

// throughputGoal is in deliveries a second on two cores that broker and database share.
const throughputGoal = 150_000

// patience bounds the wait for a daemon that gets nowhere.
const patience = 10 * time.Minute

// figures are one run's.
type figures struct {
	deliveries     int
	load           time.Duration // process start to ready
	limit, backlog time.Duration // for all deliveries
	cpu            time.Duration // of the daemon, during the backlog
	peak           int64         // bytes of memory of the daemon, over its life
}

func throughput(ctx context.Context, o options) (err error) {
	w, err := newWorkload(10_000, 100, 10_000, time.Now())
	if o.quick {
		w, err = newWorkload(500, 100, 1_000, time.Now())
	}
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp(o.dir, "tiffin-bench-")
	if err != nil {
		return fmt.Errorf("make a directory: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	say := stopwatch(o)
	program, err := findTiffin(ctx, o, dir)
	if err != nil {
		return err
	}
	say("program: " + program)
	s, err := startServers(ctx, o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	say("Kafka and Postgres run")
	if err := w.load(ctx, s); err != nil {
		return err
	}
	say(fmt.Sprintf("%s subscriptions and %s campaigns are loaded", humanize.Comma(int64(w.restaurants*w.fanout)), humanize.Comma(int64(w.campaigns))))
	f, err := measure(ctx, w, s, program, say)
	if err != nil {
		return err
	}
	if err := verify(ctx, w, s); err != nil {
		return err
	}
	say("both sinks hold exactly what was expected")
	return report(o, f)
}

// measure runs the limit (first a tenth of it, so that the servers are warm) and then the daemon.
func measure(ctx context.Context, w *workload, s *servers, program string, say func(string)) (f figures, err error) {
	f.deliveries = w.deliveries()
	if _, err = limit(ctx, w, s, max(1, w.campaigns/10)); err != nil {
		return f, err
	}
	if f.limit, err = limit(ctx, w, s, w.campaigns); err != nil {
		return f, err
	}
	say(fmt.Sprintf("the limit took %v", f.limit.Round(time.Millisecond)))
	if err := settle(ctx, s); err != nil {
		return f, err
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	started := time.Now()
	daemon, err := startTiffin(ctx, program, s)
	if err != nil {
		return f, err
	}
	defer func() {
		if stopped := daemon.stop(); err == nil {
			err = stopped
		}
	}()
	ready, err := daemon.waitReady(ctx)
	if err != nil {
		return f, err
	}
	before := usageOf(daemon.cmd.Process.Pid)
	f.load = ready.Sub(started)
	say(fmt.Sprintf("the daemon is ready after %v", f.load.Round(time.Millisecond)))
	told := ready
	handled, err := waitHandled(ctx, s, daemon, func(done, of int64) {
		if now := time.Now(); now.Sub(told) >= time.Second {
			told = now
			say(fmt.Sprintf("%d of %d campaigns", done, of))
		}
	})
	if err != nil {
		return f, err
	}
	after := usageOf(daemon.cmd.Process.Pid)
	f.backlog, f.cpu, f.peak = handled.Sub(ready), after.cpu-before.cpu, after.peak
	return f, nil
}

// settle writes out what the limit left, so that the daemon does not pay for it.
func settle(ctx context.Context, s *servers) error {
	conn, err := pgx.Connect(ctx, s.feedback.DSN(feedbackDatabase))
	if err != nil {
		return fmt.Errorf("settle the database: %w", err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	if _, err := conn.PgConn().Exec(ctx, "TRUNCATE limit_feedback; CHECKPOINT").ReadAll(); err != nil {
		return fmt.Errorf("settle the database: %w", err)
	}
	return nil
}

// report prints the figures and judges them.
func report(o options, f figures) error {
	rate := float64(f.deliveries) / f.backlog.Seconds()
	most := float64(f.deliveries) / f.limit.Seconds()
	perDelivery := f.cpu / time.Duration(f.deliveries)
	_, err := fmt.Fprintf(o.out, `throughput: a backlog of %s deliveries, exactly once, lz4, acks=all, fsync and synchronous_commit on, %d cores
  tiffin       %9s deliveries/s   (%v)
  limit        %9s deliveries/s   (%v), INSERT ... unnest and transactional produce, nothing else
  ratio        %9.2f
  daemon       CPU %v a delivery, memory at most %s, ready %v after its start
  both sinks   equal, and exactly as expected: %s rows, %s records
`, humanize.Comma(int64(f.deliveries)), runtime.NumCPU(),
		humanize.Comma(int64(rate)), f.backlog.Round(time.Millisecond), humanize.Comma(int64(most)), f.limit.Round(time.Millisecond), rate/most,
		perDelivery, humanize.IBytes(uint64(f.peak)), f.load.Round(time.Millisecond),
		humanize.Comma(int64(f.deliveries)), humanize.Comma(int64(f.deliveries)))
	if err != nil {
		return err
	}
	if o.quick {
		_, err = fmt.Fprintln(o.out, "  goal         not judged with --quick")
		return err
	}
	verdict := "reached"
	if rate < throughputGoal {
		verdict = "MISSED"
	}
	if _, err := fmt.Fprintf(o.out, "  goal         %9s deliveries/s: %s\n", humanize.Comma(throughputGoal), verdict); err != nil {
		return err
	}
	if rate < throughputGoal {
		return errMissed
	}
	return nil
}

// stopwatch returns a function that says what happened, with the time since the beginning.
func stopwatch(o options) func(string) {
	begun := time.Now()
	return func(what string) {
		_, _ = fmt.Fprintf(o.progress, "%6.1fs  %s\n", time.Since(begun).Seconds(), what) // progress is a courtesy
	}
}
