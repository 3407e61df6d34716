package main

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"

	"example.com/tiffin/cmd/bench/internal/harness"
	"example.com/tiffin/cmd/bench/internal/testbed"
	"example.com/tiffin/internal/devstack"
)

// The figures of harmless that have goals.
const (
	retainedRunning = "retained by the slot, max, daemon running"
	retainedFrozen  = "retained by the slot, max, daemon frozen"
	strongLocks     = "locks on the table above ACCESS SHARE"
	lateLocks       = "locks on the table held outside a snapshot read"
)

// An hour's worth of writes is the log of an hour of a busy server, written as fast as the disk
// takes it. pgbench writes about 1 kB of log a transaction: 1 MiB/s is 1,000 of them a second.
const (
	hourlyRate     = 1 << 20 // bytes of log a second
	hourOfWrites   = 3600 * int64(hourlyRate)
	harmlessBudget = 768 << 20 // source.max_retained_wal
	harmlessRate   = 24 << 20  // bytes of log a second that are written: an hour's in a few minutes
)

// harmless runs the daemon beside pgbench and bulk writers on other tables and looks at the source
// server from outside: what the slot holds back, which locks the daemon's sessions hold.
func harmless() harness.Scenario {
	return harness.Scenario{
		Name:    "harmless",
		Summary: "an hour's worth of the source's writes: log held back by the slot, beside the budget, and locks",
		Goals: []harness.Goal{
			harness.AtMost("", retainedRunning, harmlessBudget).In(harness.Bytes),
			harness.AtMost("", strongLocks, 0).In(harness.Count),
			harness.AtMost("", lateLocks, 0).In(harness.Count),
		},
		OwnServers: true, Run: runHarmless,
	}
}

func runHarmless(ctx context.Context, e *harness.Env) (r *harness.Result, err error) {
	h := &harmlessRun{env: e, volume: hourOfWrites, budget: harmlessBudget, rate: harmlessRate, senderTimeout: "15s", rows: 1_000_000}
	if e.Quick {
		h.volume, h.budget, h.rate, h.senderTimeout, h.rows = 80<<20, 64<<20, 16<<20, "3s", 50_000
	}
	defer func() { err = errors.Join(err, h.close(context.WithoutCancel(ctx))) }()
	if err := h.prepare(ctx); err != nil {
		return nil, err
	}
	if err := h.phases(ctx); err != nil {
		return nil, err
	}
	return h.result(), nil
}

// harmlessRun is one run. Its methods belong to one goroutine, but for the observer's.
type harmlessRun struct {
	env    *harness.Env
	volume int64 // bytes of log to write in all
	budget int64
	rate   int64 // bytes of log a second
	// The daemon looks three times in it: what is written between two looks must be a fraction
	// of the budget, as it is where an hour takes an hour.
	senderTimeout string
	rows          int

	server   *devstack.Postgres
	broker   *devstack.FakeBroker
	conn     *pgx.Conn // of the superuser
	daemon   *testbed.Tiffin
	observer *observer
	begun    time.Time
	marks    []phaseMark
	tps      float64
	rebuilds float64
}

// phaseMark is when a phase began.
type phaseMark struct {
	name string
	at   time.Duration
}

const (
	sourceRole   = "bench_reader"
	feedbackRole = "bench_writer"
)

// prepare starts the servers, with a role that has the rights of the README and no more, and has
// the observer look before the daemon's first connection is made.
func (h *harmlessRun) prepare(ctx context.Context) (err error) {
	h.server, err = testbed.StartPostgres(ctx, h.env.Dir, map[string]string{
		// The server's own bound is the only one on a slot whose daemon does not run at all.
		"max_slot_wal_keep_size": strconv.FormatInt(h.budget>>20, 10) + "MB",
		"wal_sender_timeout":     h.senderTimeout,
		"max_wal_size":           strconv.FormatInt(max(h.budget>>20/2, 64), 10) + "MB", "min_wal_size": "64MB",
	})
	if err != nil {
		return err
	}
	if h.broker, err = devstack.StartFakeBroker(ctx, devstack.FakeBrokerOptions{Topics: map[string]int32{"campaigns": 1, "deliveries": 1, "dlq": 1}}); err != nil {
		return err
	}
	for _, name := range []string{sourceDatabase, "feedback"} {
		if err := h.server.CreateDatabase(ctx, name); err != nil {
			return err
		}
	}
	if h.conn, err = pgx.Connect(ctx, h.server.DSN(sourceDatabase)); err != nil {
		return fmt.Errorf("connect to the source: %w", err)
	}
	subscriptions := devstack.Subscriptions{Rows: h.rows, Restaurants: 1000, Clients: h.rows}
	if _, err := subscriptions.Load(ctx, h.conn, pgx.Identifier{"public", "subscribers_restaurants"}); err != nil {
		return err
	}
	for _, sql := range []string{
		"CREATE ROLE " + feedbackRole + " LOGIN", "ALTER DATABASE feedback OWNER TO " + feedbackRole,
		"CREATE ROLE " + sourceRole + " LOGIN REPLICATION",
		"REVOKE ALL ON DATABASE " + sourceDatabase + " FROM PUBLIC", "REVOKE ALL ON SCHEMA public FROM PUBLIC",
		"GRANT CONNECT ON DATABASE " + sourceDatabase + " TO " + sourceRole, "GRANT USAGE ON SCHEMA public TO " + sourceRole,
		"GRANT SELECT ON subscribers_restaurants TO " + sourceRole,
		"CREATE PUBLICATION tiffin FOR TABLE subscribers_restaurants",
		"CREATE TABLE ballast (x text)", "CREATE TABLE pinned (x int)",
	} {
		if _, err := h.conn.Exec(ctx, sql); err != nil {
			return fmt.Errorf("prepare the source: %s: %w", sql, err)
		}
	}
	h.begun = time.Now()
	if h.observer, err = observe(ctx, h.server.DSN(sourceDatabase), h.begun); err != nil {
		return err
	}
	return h.startDaemon(ctx)
}

func (h *harmlessRun) startDaemon(ctx context.Context) (err error) {
	program, err := h.env.Program(ctx)
	if err != nil {
		return err
	}
	lane := &testbed.Lane{
		Brokers: h.broker.Brokers(), SourceDSN: h.server.DSNFor(sourceRole, "", sourceDatabase), FeedbackDSN: h.server.DSNFor(feedbackRole, "", "feedback"),
		Input: "campaigns", Output: "deliveries", DeadLetters: "dlq", Group: "harmless", Slot: "tiffin", Publication: "tiffin",
	}
	h.enter("the daemon loads")
	h.daemon, err = testbed.StartTiffin(ctx, program, lane, map[string]string{"TIFFIN_SOURCE_MAX_RETAINED_WAL": strconv.FormatInt(h.budget, 10) + "B"})
	if err != nil {
		return err
	}
	_, err = h.daemon.WaitReady(ctx)
	return err
}

func (h *harmlessRun) enter(phase string) {
	h.env.Say("%s", phase)
	h.marks = append(h.marks, phaseMark{phase, time.Since(h.begun)})
	if h.observer != nil {
		h.observer.frozen.Store(strings.Contains(phase, "frozen"))
	}
}

// phases writes three fifths of the volume while the daemon runs, one while an application's
// transaction stays open, which pins every slot, and one while the daemon is frozen; then the
// daemon must be ready again by itself.
func (h *harmlessRun) phases(ctx context.Context) error {
	fifth := h.volume / 5
	stop, err := h.pgbench(ctx)
	if err != nil {
		return err
	}
	h.enter("others write")
	err = h.write(ctx, 3*fifth)
	if stopped := stop(); err != nil || stopped != nil {
		return errors.Join(err, stopped)
	}
	h.enter("a transaction stays open")
	if err := h.writePinned(ctx, max(fifth, h.budget*5/4)); err != nil {
		return err
	}
	if err := h.recovered(ctx); err != nil {
		return err
	}
	h.enter("the daemon is frozen")
	if err := syscall.Kill(h.daemon.PID(), syscall.SIGSTOP); err != nil {
		return fmt.Errorf("freeze the daemon: %w", err)
	}
	err = h.write(ctx, max(fifth, h.budget*5/4))
	if err == nil { // the server looks at its own bound when it writes one
		_, err = h.conn.Exec(ctx, "CHECKPOINT")
	}
	if thawed := syscall.Kill(h.daemon.PID(), syscall.SIGCONT); err != nil || thawed != nil {
		return errors.Join(err, thawed)
	}
	h.enter("the daemon is back")
	return h.recovered(ctx)
}

// recovered waits until a new subscription can be served again.
func (h *harmlessRun) recovered(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, harness.Patience)
	defer cancel()
	// What was ready a moment ago may not know yet: the slot tells.
	const fresh = "SELECT EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = 'tiffin' AND active AND confirmed_flush_lsn >= $1::pg_lsn)"
	var now string
	if err := h.conn.QueryRow(ctx, "SELECT pg_current_wal_lsn()::text").Scan(&now); err != nil {
		return fmt.Errorf("ask for the log's end: %w", err)
	}
	ticker := time.NewTicker(100 * time.Millisecond)
	defer ticker.Stop()
	for follows := false; !follows; {
		if err := h.conn.QueryRow(ctx, fresh, now).Scan(&follows); err != nil {
			return fmt.Errorf("look at the slot: %w", err)
		}
		select {
		case <-ticker.C:
		case <-h.daemon.Exited():
			return h.daemon.Ended("while others wrote")
		}
	}
	if _, err := h.daemon.WaitReady(ctx); err != nil {
		return err
	}
	var err error
	h.rebuilds, err = h.daemon.Metric(ctx, "tiffin_rebuilds_total")
	return err
}

// writePinned writes while a transaction that has written stays open.
func (h *harmlessRun) writePinned(ctx context.Context, volume int64) error {
	pin, err := pgx.Connect(ctx, h.server.DSN(sourceDatabase))
	if err != nil {
		return fmt.Errorf("connect to hold a transaction open: %w", err)
	}
	defer func() { _ = pin.Close(context.WithoutCancel(ctx)) }()
	if _, err := pin.Exec(ctx, "BEGIN; INSERT INTO pinned VALUES (1)"); err != nil {
		return fmt.Errorf("hold a transaction open: %w", err)
	}
	if err := h.write(ctx, volume); err != nil {
		return err
	}
	if _, err := pin.Exec(ctx, "COMMIT"); err != nil {
		return fmt.Errorf("end the open transaction: %w", err)
	}
	return nil
}

// write lengthens the log by so many bytes: rows of another table.
func (h *harmlessRun) write(ctx context.Context, volume int64) error {
	end := func() (n int64, err error) {
		err = h.conn.QueryRow(ctx, "SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::bigint").Scan(&n)
		return n, err
	}
	from, err := end()
	if err != nil {
		return fmt.Errorf("ask for the log's end: %w", err)
	}
	bar := h.env.Bar(volume>>20, "MiB of log")
	defer bar.Done()
	begun := time.Now()
	for n := 0; ; n++ {
		at, err := end()
		if err != nil {
			return fmt.Errorf("ask for the log's end: %w", err)
		}
		done := at - from
		bar.Set(done >> 20)
		if done >= volume {
			return nil
		}
		if n%64 == 63 { // the disk is not what is measured
			if _, err := h.conn.Exec(ctx, "TRUNCATE ballast"); err != nil {
				return fmt.Errorf("empty the ballast: %w", err)
			}
		}
		if h.env.Quick && n%8 == 7 { // a slot's restart position moves at checkpoints, or every 15 s
			if _, err := h.conn.Exec(ctx, "CHECKPOINT"); err != nil {
				return fmt.Errorf("write a checkpoint: %w", err)
			}
		}
		due := begun.Add(time.Duration(float64(done) / float64(h.rate) * float64(time.Second)))
		select {
		case <-time.After(time.Until(due)):
		case <-h.daemon.Exited():
			return h.daemon.Ended("while others wrote")
		case <-ctx.Done():
			return ctx.Err()
		}
		if _, err := h.conn.Exec(ctx, "INSERT INTO ballast SELECT repeat('x', 1000) FROM generate_series(1, 1000)"); err != nil {
			return fmt.Errorf("write ballast: %w", err)
		}
	}
}

func (h *harmlessRun) close(ctx context.Context) error {
	var err error
	if h.daemon != nil {
		_ = syscall.Kill(h.daemon.PID(), syscall.SIGCONT) // a frozen one would not stop
		err = h.daemon.Stop()
	}
	if h.observer != nil {
		err = errors.Join(err, h.observer.close(ctx))
	}
	if h.conn != nil {
		err = errors.Join(err, h.conn.Close(ctx))
	}
	if h.broker != nil {
		h.broker.Close()
	}
	if h.server != nil {
		err = errors.Join(err, h.server.Close())
	}
	return err
}

// result judges nothing: it counts.
func (h *harmlessRun) result() *harness.Result {
	o := h.observer.account()
	r := &harness.Result{}
	r.Add(
		harness.Figure{Name: retainedRunning, Unit: harness.Bytes, Value: float64(o.running)},
		harness.Figure{Name: retainedFrozen, Unit: harness.Bytes, Value: float64(o.frozen)},
		harness.Figure{Name: strongLocks, Unit: harness.Count, Value: float64(o.strong)},
		harness.Figure{Name: lateLocks, Unit: harness.Count, Value: float64(o.late)},
		harness.Figure{Name: "longest hold of a lock on the table", Unit: harness.Seconds, Value: o.longest.Seconds()},
		harness.Figure{Name: "longest snapshot read", Unit: harness.Seconds, Value: o.reading.Seconds()},
		harness.Figure{Name: "looks at the slot and at pg_locks", Unit: harness.Count, Value: float64(o.looks)},
		harness.Figure{Name: "rebuilds", Unit: harness.Count, Value: h.rebuilds},
		harness.Figure{Name: "pgbench transactions", Unit: harness.PerSecond, Value: h.tps},
	)
	r.Plot(h.retainedSeries(o.points))
	r.Note("%d MiB of log or more, written at %d MiB/s to other tables: an hour's at %d MiB/s, unless --quick. Budget %d MiB. max_slot_wal_keep_size is the same: "+
		"it is the only bound while the daemon does not run, and the server applies it at its checkpoints.", h.volume>>20, h.rate>>20, hourlyRate>>20, h.budget>>20)
	r.Note("The daemon's role has LOGIN, REPLICATION, CONNECT, USAGE of the schema and SELECT on the table; PUBLIC has nothing.")
	for i, m := range h.marks {
		end := time.Since(h.begun)
		if i+1 < len(h.marks) {
			end = h.marks[i+1].at
		}
		r.Note("%6.1fs to %6.1fs  %-26s at most %s", m.at.Seconds(), end.Seconds(), m.name, harness.Bytes.Format(o.mostBetween(m.at, end)))
	}
	for _, line := range textPlot(o.points, float64(h.budget)) {
		r.Note("%s", line)
	}
	return r
}

// retainedSeries is what was held back over time, beside the budget, from the first look to the last.
func (h *harmlessRun) retainedSeries(points [][2]float64) harness.Series {
	budget := float64(h.budget)
	limit := [][2]float64{{points[0][0], budget}, {points[len(points)-1][0], budget}}
	var phases []string
	for _, m := range h.marks {
		phases = append(phases, fmt.Sprintf("%.0f s: %s", m.at.Seconds(), m.name))
	}
	return harness.Series{
		Title: "log held back by the slot", X: "seconds since the observation began", Y: "bytes", Kind: harness.Linear,
		Lines:  []harness.Line{{Name: "slot of the daemon", Points: thinned(points, 500)}, {Name: "source.max_retained_wal", Points: limit}},
		Detail: "The highest of each stretch of time. " + strings.Join(phases, " · "),
	}
}

// pgbench keeps its own tables busy until stop is called.
func (h *harmlessRun) pgbench(ctx context.Context) (stop func() error, err error) {
	program := filepath.Join(h.server.BinDir(), "pgbench")
	run := func(ctx context.Context, args ...string) error {
		out, err := exec.CommandContext(ctx, program, append(args, h.server.DSN(sourceDatabase))...).CombinedOutput()
		if err != nil {
			return fmt.Errorf("pgbench: %w: %s", err, out)
		}
		return nil
	}
	if err := run(ctx, "-i", "-q"); err != nil {
		return nil, err
	}
	running, cancel := context.WithCancel(ctx)
	begun, ended := time.Now(), make(chan error, 1)
	go func() { ended <- run(running, "-n", "-c", "2", "-T", strconv.Itoa(int(harness.Patience.Seconds()))) }()
	return func() error {
		defer cancel()
		select {
		case err := <-ended:
			return errors.Join(errors.New("pgbench ended before the measurement did"), err)
		default:
		}
		var transactions int64
		err := h.conn.QueryRow(ctx, "SELECT count(*) FROM pgbench_history").Scan(&transactions)
		h.tps = float64(transactions) / time.Since(begun).Seconds()
		cancel()
		if killed := <-ended; killed == nil {
			err = errors.Join(err, errors.New("pgbench ended before the measurement did"))
		}
		return err
	}, nil
}
