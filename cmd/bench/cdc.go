package main

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/jackc/pgx/v5"

	"example.com/tiffin/cmd/bench/internal/harness"
	"example.com/tiffin/internal/devstack"
)

// cdcGoal is the least ratio to pg_recvlogical.
const cdcGoal = 1.0

// backlog is what a stopped reader has to catch up with.
type backlog struct {
	what         string
	transactions int
	rows         int // in each
}

func (b backlog) changes() int { return b.transactions * b.rows }

func cdcBacklogs(quick bool) []backlog {
	if quick {
		return []backlog{{"single rows", 5_000, 1}, {"100 rows each", 200, 100}, {"one transaction", 1, 20_000}}
	}
	return []backlog{{"single rows", 300_000, 1}, {"100 rows each", 10_000, 100}, {"one transaction", 1, 1_000_000}}
}

// cdcApply measures how fast a backlog is applied, against pg_recvlogical that reads the same
// position from a slot of its own and throws everything away: the walsender's limit.
func cdcApply() harness.Scenario {
	s := harness.Scenario{
		Name:       "cdc",
		Summary:    "applying a backlog of changes, against pg_recvlogical that throws the same away",
		OwnServers: true, Run: runCDC,
	}
	for _, b := range cdcBacklogs(false) {
		s.Goals = append(s.Goals, harness.AtLeast(b.what, applied, cdcGoal).OfLimit())
	}
	return s
}

func runCDC(ctx context.Context, e *harness.Env) (r *harness.Result, err error) {
	server, err := devstack.StartPostgres(ctx, devstack.PostgresOptions{
		Dir: e.Dir, Durable: true, Settings: map[string]string{"max_wal_size": maxWAL, "logical_decoding_work_mem": "256MB"},
	})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, server.Close()) }()
	f, err := startFreshness(ctx, server)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.close()) }()
	e.Say("the index follows")
	if _, err := f.conn.Exec(ctx, writeProcedure); err != nil {
		return nil, fmt.Errorf("create the writer: %w", err)
	}
	r = &harness.Result{}
	for _, b := range cdcBacklogs(e.Quick) {
		if !e.Wants(b.what) {
			continue
		}
		if !e.Quick { // it takes 10 s
			if err := f.released(ctx); err != nil {
				return r, fmt.Errorf("%s: %w", b.what, err)
			}
		}
		wire, ours, err := f.catchUp(ctx, b)
		if err != nil {
			return r, fmt.Errorf("%s: %w", b.what, err)
		}
		if err := compareIndex(ctx, f.conn, f.index, "restaurant_id IN (SELECT 'restaurant ' || i * 10 FROM generate_series(0, 99) i)"); err != nil {
			return r, fmt.Errorf("%s: %w", b.what, err)
		}
		changes := float64(b.changes())
		r.Add(harness.Figure{Case: b.what, Name: applied, Unit: harness.PerSecond, Value: changes / ours.Seconds(), Limit: changes / wire.Seconds()})
		e.Say("%s: %v, pg_recvlogical %v", b.what, ours.Round(time.Millisecond), wire.Round(time.Millisecond))
	}
	r.Note("From the start of the session that reads the backlog to its last transaction applied; the limit is pg_recvlogical, which reads the same from a slot of its own into /dev/null.")
	return r, nil
}

// writeProcedure commits on the server, so that the backlog is there quickly.
const writeProcedure = `
CREATE PROCEDURE write_backlog(transactions int, rows int) LANGUAGE plpgsql AS $$
BEGIN
  FOR t IN 1..transactions LOOP
    INSERT INTO subscribers_restaurants (restaurant_id, client_id)
      SELECT 'restaurant ' || (t::int8 * 7919 + i) % 1000, 'client ' || (t::int8 * 31 + i) % 50000 FROM generate_series(1, rows) i;
    COMMIT;
  END LOOP;
END $$`

// catchUp writes a backlog while the reader is locked out, and lets first pg_recvlogical and
// then the reader read it.
func (f *freshnessRig) catchUp(ctx context.Context, b backlog) (wire, ours time.Duration, err error) {
	if err := f.fenced(ctx); err != nil {
		return 0, 0, err
	}
	caughtUp := f.seen.expect(b.transactions)
	if err := f.admit(ctx, false); err != nil {
		return 0, 0, err
	}
	for _, sql := range []string{
		"SELECT pg_create_logical_replication_slot('peer', 'pgoutput')",
		"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()",
		"SET synchronous_commit = off",
		fmt.Sprintf("CALL write_backlog(%d, %d)", b.transactions, b.rows),
		"SET synchronous_commit = on",
		"CHECKPOINT",
	} {
		if _, err := f.conn.Exec(ctx, sql); err != nil {
			return 0, 0, fmt.Errorf("%s: %w", sql, err)
		}
	}
	if err := f.admit(ctx, true); err != nil {
		return 0, 0, err
	}
	// The reader comes back by itself, within its backoff: it is measured from the start of
	// its session to its last transaction.
	select {
	case ours = <-caughtUp:
	case <-time.After(harness.Patience):
		return 0, 0, errors.New("the backlog was not applied in time")
	case <-ctx.Done():
		return 0, 0, ctx.Err()
	}
	if wire, err = f.receive(ctx); err != nil {
		return 0, 0, err
	}
	if _, err := f.conn.Exec(ctx, "SELECT pg_drop_replication_slot('peer')"); err != nil {
		return 0, 0, fmt.Errorf("drop the peer's slot: %w", err)
	}
	return wire, ours, nil
}

// released waits until the reader's slot begins where the log ends now, as the peer's will: otherwise
// the walsender would first decode again what was written for the case before.
func (f *freshnessRig) released(ctx context.Context) error {
	var end string
	if err := f.conn.QueryRow(ctx, "SELECT pg_current_wal_lsn()::text").Scan(&end); err != nil {
		return fmt.Errorf("read the log's end: %w", err)
	}
	for begun := time.Now(); time.Since(begun) < harness.Patience; {
		if _, err := f.conn.Exec(ctx, "CHECKPOINT"); err != nil { // which logs the running transactions
			return fmt.Errorf("checkpoint: %w", err)
		}
		var there bool
		if err := f.conn.QueryRow(ctx, "SELECT bool_and(restart_lsn >= $1::text::pg_lsn) FROM pg_replication_slots", end).Scan(&there); err != nil {
			return fmt.Errorf("read the slot: %w", err)
		}
		if there {
			return nil
		}
		select {
		case <-time.After(200 * time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return errors.New("the slot was not released in time")
}

// admit lets connections to the source database in, or keeps them out.
func (f *freshnessRig) admit(ctx context.Context, in bool) error {
	conn, err := pgx.Connect(ctx, f.server.DSN("postgres"))
	if err != nil {
		return fmt.Errorf("connect to the server: %w", err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	if _, err := conn.Exec(ctx, fmt.Sprintf("ALTER DATABASE %s ALLOW_CONNECTIONS %t", sourceDatabase, in)); err != nil {
		return fmt.Errorf("admit connections: %w", err)
	}
	return nil
}

// receive reads the peer's slot to the log's end.
func (f *freshnessRig) receive(ctx context.Context) (time.Duration, error) {
	var end string
	if err := f.conn.QueryRow(ctx, "SELECT pg_current_wal_lsn()::text").Scan(&end); err != nil {
		return 0, fmt.Errorf("read the log's end: %w", err)
	}
	cmd := exec.CommandContext(ctx, filepath.Join(f.server.BinDir(), "pg_recvlogical"), "-d", f.server.DSN(sourceDatabase),
		"-S", "peer", "--start", "--endpos", end, "-f", "/dev/null", "-o", "proto_version=1", "-o", "publication_names=tiffin")
	begun := time.Now()
	if out, err := cmd.CombinedOutput(); err != nil {
		return 0, fmt.Errorf("pg_recvlogical: %w: %s", err, out)
	}
	return time.Since(begun), nil
}
