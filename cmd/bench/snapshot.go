package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/jackc/pgx/v5"

	"example.com/tiffin/internal/devstack"
)

// snapshotGoal is the rate from start to ready, of psql's.
const snapshotGoal = 0.8

// snapshot measures how long a start takes, from nothing to in sync with the table indexed,
// beside psql's COPY of the same columns to nowhere.
func snapshot(ctx context.Context, o options) (err error) {
	table := devstack.Subscriptions{Seed: 7, Rows: 10_000_000, Restaurants: 100_000, Clients: 1_000_000, Zipf: 0.7}
	rounds := 3
	if o.quick {
		table.Rows, table.Restaurants, table.Clients, rounds = 200_000, 2_000, 20_000, 1
	}
	say := stopwatch(o)
	server, err := startPostgres(ctx, o, sourceDatabase)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, server.Close()) }()
	conn, err := pgx.Connect(ctx, server.DSN(sourceDatabase))
	if err != nil {
		return fmt.Errorf("connect to the source: %w", err)
	}
	defer func() { err = errors.Join(err, conn.Close(context.WithoutCancel(ctx))) }()
	if _, err := table.Load(ctx, conn, pgx.Identifier{"public", "subscribers_restaurants"}); err != nil {
		return err
	}
	say(humanize.Comma(int64(table.Rows)) + " rows are in the table")
	if _, err := psqlCopy(ctx, server); err != nil { // so that both find it in memory
		return err
	}
	var copies, starts []time.Duration
	for n := range rounds {
		c, err := psqlCopy(ctx, server)
		if err != nil {
			return err
		}
		s, err := startOnce(ctx, server, conn, "tiffin_"+strconv.Itoa(n), table.Rows)
		if err != nil {
			return err
		}
		say(fmt.Sprintf("psql %v, tiffin %v", c.Round(time.Millisecond), s.Round(time.Millisecond)))
		copies, starts = append(copies, c), append(starts, s)
	}
	slices.Sort(copies)
	slices.Sort(starts)
	return reportSnapshot(o, table.Rows, copies[rounds/2], starts[rounds/2])
}

func reportSnapshot(o options, rows int, copied, started time.Duration) error {
	rate := func(d time.Duration) string { return humanize.Comma(int64(float64(rows) / d.Seconds())) }
	ratio := copied.Seconds() / started.Seconds()
	verdict := "reached"
	switch {
	case o.quick:
		verdict = "not judged with --quick"
	case ratio < snapshotGoal:
		verdict = "MISSED"
	}
	_, err := fmt.Fprintf(o.out, `snapshot: from nothing to in sync, %s rows, medians
  tiffin       %10s rows/s   (%v), set-up, slot, index and catching up included
  psql         %10s rows/s   (%v), binary COPY of the same columns to /dev/null
  ratio        %10.2f
  goal         %10.2f: %s
`, humanize.Comma(int64(rows)), rate(started), started.Round(time.Millisecond), rate(copied), copied.Round(time.Millisecond), ratio, snapshotGoal, verdict)
	if err == nil && verdict == "MISSED" {
		return errMissed
	}
	return err
}

// psqlCopy is the limit: what one connection of the server's own client takes.
func psqlCopy(ctx context.Context, server *devstack.Postgres) (took time.Duration, err error) {
	nowhere, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		return 0, fmt.Errorf("open nowhere: %w", err)
	}
	defer func() { err = errors.Join(err, nowhere.Close()) }()
	cmd := exec.CommandContext(ctx, filepath.Join(server.BinDir(), "psql"), "-X", "-d", server.DSN(sourceDatabase),
		"-c", "COPY subscribers_restaurants (id, restaurant_id, client_id) TO STDOUT (FORMAT binary)")
	cmd.Stdout, cmd.Stderr = nowhere, os.Stderr
	begun := time.Now()
	if err := cmd.Run(); err != nil {
		return 0, fmt.Errorf("psql: %w", err)
	}
	return time.Since(begun), nil
}

// startOnce starts from nothing and leaves nothing behind.
func startOnce(ctx context.Context, server *devstack.Postgres, conn *pgx.Conn, slot string, rows int) (time.Duration, error) {
	begun := time.Now()
	f, err := follow(ctx, server, slot, 1<<30)
	if err != nil {
		return 0, err
	}
	took := time.Since(begun)
	if got := f.index.Stats().Subscriptions; got != int64(rows) {
		err = fmt.Errorf("%d rows are indexed, want %d", got, rows)
	}
	if err := errors.Join(err, f.close()); err != nil {
		return 0, err
	}
	_, err = conn.Exec(ctx, "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = $1 AND NOT active", slot)
	if err != nil {
		return 0, fmt.Errorf("drop slot %s: %w", slot, err)
	}
	return took, nil
}
