package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"strconv"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/jackc/pgx/v5"

	"example.com/tiffin/cmd/bench/internal/harness"
)

// bigtxnGoal is in bytes of resident memory above rest.
const bigtxnGoal = 64 << 20

// bigtxnRestaurants and bigtxnClients are what the rows are spread over. Both divide their
// number, so that a restaurant's rows can be computed.
const (
	bigtxnRestaurants = 50_000
	bigtxnClients     = 1_000_000
)

// bigtxn changes every row of a table in one transaction and watches memory, answers and the
// replication connection.
func bigtxn() harness.Scenario {
	return harness.Scenario{
		Name:       "bigtxn",
		Summary:    "5,000,000 rows changed in one transaction: memory above rest, atomic, no keepalive missed",
		Goals:      []harness.Goal{harness.AtMost("", aboveRest, bigtxnGoal).In(harness.Bytes)},
		OwnServers: true, Run: runBigtxn,
	}
}

func runBigtxn(ctx context.Context, e *harness.Env) (r *harness.Result, err error) {
	rows := 5_000_000
	if e.Quick {
		rows = 500_000
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
	if err := fillBig(ctx, conn, rows); err != nil {
		return nil, err
	}
	e.Say("%s rows are in the table", humanize.Comma(int64(rows)))
	f, err := follow(ctx, server, "tiffin", 1<<30)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.close()) }()
	e.Say("the index follows")
	run := &bigRun{conn: conn, f: f, rows: rows}
	if err := run.measure(ctx, e); err != nil {
		return nil, err
	}
	return run.result(), nil
}

// fillBig makes row i one of restaurant i % bigtxnRestaurants and of a client that follows
// from i; the server gives up a silent client soon.
func fillBig(ctx context.Context, conn *pgx.Conn, rows int) error {
	for _, sql := range []string{
		"CREATE TABLE subscribers_restaurants (id serial PRIMARY KEY, client_id varchar NOT NULL, restaurant_id varchar NOT NULL)",
		fmt.Sprintf(`INSERT INTO subscribers_restaurants (id, client_id, restaurant_id)
			SELECT i, %s, 'restaurant ' || i %% %d FROM generate_series(1, %d) i`, bigClientSQL("i", 0), bigtxnRestaurants, rows),
		"VACUUM (ANALYZE) subscribers_restaurants",
		"ALTER SYSTEM SET wal_sender_timeout = '3s'",
		"SELECT pg_reload_conf()",
	} {
		if _, err := conn.Exec(ctx, sql); err != nil {
			return fmt.Errorf("prepare the table: %w", err)
		}
	}
	return nil
}

// bigClientSQL is bigClient in SQL.
func bigClientSQL(id string, shift int) string {
	return fmt.Sprintf("lpad(to_hex((%s::bigint * 7919 + %d) %% %d), 8, '0') || '-0000-4000-8000-000000000000'", id, shift, bigtxnClients)
}

func bigClient(id, shift int) string {
	return fmt.Sprintf("%08x-0000-4000-8000-000000000000", (id*7919+shift)%bigtxnClients)
}

// bigRun is one measurement.
type bigRun struct {
	conn          *pgx.Conn
	f             *follower
	rows          int
	rest, most    int64 // resident bytes
	wrote, became time.Duration
	answers       int
}

func (r *bigRun) measure(ctx context.Context, e *harness.Env) error {
	debug.FreeOSMemory() // what the load left behind is no part of rest
	r.rest = resident()
	sender, err := r.sender(ctx)
	if err != nil {
		return err
	}
	done, watched := make(chan struct{}), make(chan error, 1)
	go func() { watched <- r.watch(ctx, done) }()
	err = r.change(ctx, e)
	close(done)
	if err := errors.Join(err, <-watched); err != nil {
		return err
	}
	for n := 0; n < bigtxnRestaurants; n += 97 {
		if state, err := r.state(ctx, n); err != nil || state != 1 {
			return errors.Join(err, fmt.Errorf("%w: restaurant %d after the transaction", harness.ErrDiffer, n))
		}
	}
	after, err := r.sender(ctx)
	if err == nil && after != sender {
		err = errors.New("the server ended the replication connection in the middle")
	}
	return err
}

// change commits the transaction and waits until a fence has passed it.
func (r *bigRun) change(ctx context.Context, e *harness.Env) error {
	begun := time.Now()
	if _, err := r.conn.Exec(ctx, "UPDATE subscribers_restaurants SET client_id = "+bigClientSQL("id", 1)); err != nil {
		return fmt.Errorf("change every row: %w", err)
	}
	committed := time.Now()
	r.wrote = committed.Sub(begun)
	e.Say("committed after %v", r.wrote.Round(time.Millisecond))
	if _, err := r.f.reader.Wait(ctx); err != nil {
		return fmt.Errorf("wait for the transaction: %w", err)
	}
	r.became = time.Since(committed)
	e.Say("visible %v later", r.became.Round(time.Millisecond))
	return nil
}

// watch looks at memory and at restaurants until done: each is the old or the new one.
func (r *bigRun) watch(ctx context.Context, done <-chan struct{}) error {
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	for n := 0; ; n = (n + 7919) % bigtxnRestaurants {
		r.most = max(r.most, resident())
		if _, err := r.state(ctx, n); err != nil {
			return err
		}
		r.answers++
		select {
		case <-done:
			return nil
		case <-ticker.C:
		}
	}
}

// state says which of its two states restaurant n is in, 0 or 1; a mixture is an error.
func (r *bigRun) state(ctx context.Context, n int) (int, error) {
	recipients, err := r.f.index.Lookup(ctx, "restaurant "+strconv.Itoa(n))
	if err != nil {
		return 0, err
	}
	defer recipients.Release()
	var want [2]map[string]bool
	for shift := range want {
		want[shift] = map[string]bool{}
		for id := n; id <= r.rows; id += bigtxnRestaurants {
			if id > 0 {
				want[shift][bigClient(id, shift)] = true
			}
		}
	}
	for shift, clients := range want {
		same := recipients.Len() == len(clients)
		for c := range recipients.Range(0, recipients.Len()) {
			same = same && clients[string(c)]
		}
		if same {
			return shift, nil
		}
	}
	return 0, fmt.Errorf("%w: restaurant %d has %d clients, neither the old nor the new ones", harness.ErrDiffer, n, recipients.Len())
}

// sender is the process that streams to us.
func (r *bigRun) sender(ctx context.Context) (pid int, err error) {
	err = r.conn.QueryRow(ctx, "SELECT active_pid FROM pg_replication_slots WHERE slot_name = 'tiffin' AND active").Scan(&pid)
	if err != nil {
		err = fmt.Errorf("look at the slot: %w", err)
	}
	return pid, err
}

func (r *bigRun) result() *harness.Result {
	result := &harness.Result{}
	result.Add(harness.Figure{Name: aboveRest, Unit: harness.Bytes, Value: float64(max(0, r.most-r.rest))},
		harness.Figure{Name: "memory at rest", Unit: harness.Bytes, Value: float64(r.rest)},
		harness.Figure{Name: "time to commit", Unit: harness.Seconds, Value: r.wrote.Seconds()},
		harness.Figure{Name: visibleAfter, Unit: harness.Seconds, Value: r.became.Seconds()},
		harness.Figure{Name: "answers meanwhile, each before or after it", Unit: harness.Count, Value: float64(r.answers)})
	result.Note("UPDATE of %s rows in one transaction, wal_sender_timeout 3 s; one replication connection throughout.", humanize.Comma(int64(r.rows)))
	return result
}

// resident is this process's memory: proc(5), statm; 0 where there is none.
func resident() int64 {
	b, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0
	}
	fields := bytes.Fields(b)
	if len(fields) < 2 {
		return 0
	}
	pages, _ := strconv.ParseInt(string(fields[1]), 10, 64)
	return pages * int64(os.Getpagesize())
}
