package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/jackc/pgx/v5"

	"example.com/tiffin/cmd/bench/internal/harness"
	"example.com/tiffin/internal/devstack"
)

// What is measured, and the part of psql's rate that it is to be.
const (
	rowsLoaded   = "rows"
	snapshotGoal = 0.8
)

// snapshot measures how long a start takes, from nothing to in sync with the table indexed,
// beside psql's COPY of the same columns to nowhere.
func snapshot() harness.Scenario {
	return harness.Scenario{
		Name:       "snapshot",
		Summary:    "start to ready for 10,000,000 rows, beside psql's binary COPY to /dev/null",
		Goals:      []harness.Goal{harness.AtLeast("", rowsLoaded, snapshotGoal).OfLimit()},
		OwnServers: true, Run: runSnapshot,
	}
}

func runSnapshot(ctx context.Context, e *harness.Env) (r *harness.Result, err error) {
	table := devstack.Subscriptions{Seed: 7, Rows: 10_000_000, Restaurants: 100_000, Clients: 1_000_000, Zipf: 0.7}
	rounds := 3
	if e.Quick {
		table.Rows, table.Restaurants, table.Clients, rounds = 200_000, 2_000, 20_000, 1
	}
	server, err := startSource(ctx, e, nil)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, server.Close()) }()
	conn, err := pgx.Connect(ctx, server.DSN(sourceDatabase))
	if err != nil {
		return nil, fmt.Errorf("connect to the source: %w", err)
	}
	defer func() { err = errors.Join(err, conn.Close(context.WithoutCancel(ctx))) }()
	if _, err := table.Load(ctx, conn, pgx.Identifier{"public", "subscribers_restaurants"}); err != nil {
		return nil, err
	}
	e.Say("%s rows are in the table", humanize.Comma(int64(table.Rows)))
	if _, err := psqlCopy(ctx, server); err != nil { // so that both find it in memory
		return nil, err
	}
	var copies, starts []float64 // seconds
	for n := range rounds {
		c, err := psqlCopy(ctx, server)
		if err != nil {
			return nil, err
		}
		s, err := startOnce(ctx, server, conn, "tiffin_"+strconv.Itoa(n), table.Rows)
		if err != nil {
			return nil, err
		}
		e.Say("psql %v, tiffin %v", c.Round(time.Millisecond), s.Round(time.Millisecond))
		copies, starts = append(copies, c.Seconds()), append(starts, s.Seconds())
	}
	r = &harness.Result{}
	rows := float64(table.Rows)
	r.Add(harness.Figure{Name: rowsLoaded, Unit: harness.PerSecond, Value: rows / middle(starts), Limit: rows / middle(copies)},
		harness.Figure{Name: startup, Unit: harness.Seconds, Value: middle(starts)})
	r.Note("%s rows, medians of %d starts in turn with the limit: psql's binary COPY of the same columns to /dev/null. Set-up, slot, index and catching up are included.", humanize.Comma(int64(table.Rows)), rounds)
	return r, nil
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
