package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"slices"
	"strconv"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"example.com/tiffin/cmd/bench/internal/harness"
)

// bigtxnGoal is in bytes of resident memory above rest.
const bigtxnGoal = 64 << 20

// bigtxn changes every row of a table in one transaction, in each of the shapes that a change
// can have, and watches memory, answers, fences and the replication connection.
func bigtxn() harness.Scenario {
	s := harness.Scenario{
		Name:       "bigtxn",
		Summary:    "5,000,000 rows changed in one transaction: memory above rest, atomic, no keepalive missed, small transactions beside it",
		OwnServers: true, Run: runBigtxn,
	}
	for _, shape := range bigShapes(0) {
		s.Goals = append(s.Goals, harness.AtMost(shape.name, aboveRest, bigtxnGoal).In(harness.Bytes))
	}
	return s
}

// bigShape is a kind of transaction, and what every restaurant has before and after it.
type bigShape struct {
	name     string
	identity string // replica identity
	sql      string
	before   []bigRows
	after    []bigRows
}

// bigShapes begin with a table of so many rows, and change as many.
func bigShapes(rows int) []bigShape {
	old := bigRows{1, rows, 0}
	changed, more := bigRows{1, rows, 1}, bigRows{rows + 1, 2 * rows, 1}
	update := "UPDATE subscribers_restaurants SET client_id = " + bigClientSQL("id", changed.shift)
	return []bigShape{
		{"UPDATE", "DEFAULT", update, []bigRows{old}, []bigRows{changed}},
		{"UPDATE, identity FULL", "FULL", update, []bigRows{old}, []bigRows{changed}},
		{"INSERT", "DEFAULT", more.insertSQL(), []bigRows{old}, []bigRows{old, more}},
		{"DELETE", "DEFAULT", "DELETE FROM subscribers_restaurants", []bigRows{old}, nil},
	}
}

func runBigtxn(ctx context.Context, e *harness.Env) (*harness.Result, error) {
	rows := 5_000_000
	if e.Quick {
		rows = 200_000
	}
	r := &harness.Result{}
	for _, shape := range bigShapes(rows) {
		if !e.Wants(shape.name) {
			continue
		}
		if err := runBigShape(ctx, e, shape, r); err != nil {
			return r, fmt.Errorf("%s: %w", shape.name, err)
		}
	}
	r.Note("%s rows in one transaction, of a table of as many, wal_sender_timeout 3 s; one replication connection throughout. Memory is the resident set of the index's process, "+
		"which also asks a restaurant every 5 ms. Every 20 ms a small transaction is committed, and a fence asked for behind it. Rest is before the transaction, with what nobody uses given back; of INSERT, after which the index is larger, it is after it.",
		humanize.Comma(int64(rows)))
	r.Note("Counted is from a small transaction's commit to its fence, behind which it must be in the index: beside the open transaction if that ended before COMMIT was sent, otherwise behind the commit, which it then waits for to be visible.")
	return r, nil
}

func runBigShape(ctx context.Context, e *harness.Env, shape bigShape, r *harness.Result) (err error) {
	server, err := startSource(ctx, e, nil)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, server.Close()) }()
	conn, err := pgx.Connect(ctx, server.DSN(sourceDatabase))
	if err != nil {
		return fmt.Errorf("connect to the source: %w", err)
	}
	defer func() { err = errors.Join(err, conn.Close(context.WithoutCancel(ctx))) }()
	if err := shape.prepare(ctx, conn); err != nil {
		return err
	}
	f, err := follow(ctx, server, "tiffin", 1<<30)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.close()) }()
	e.Say("%s: the table is there, and the index follows", shape.name)
	small, err := pgxpool.New(ctx, server.DSN(sourceDatabase))
	if err != nil {
		return fmt.Errorf("connect to the source: %w", err)
	}
	defer small.Close()
	run := &bigRun{bigShape: shape, conn: conn, f: f, fences: bigFences{reader: f.reader, index: f.index, small: small}}
	if err := run.measure(ctx, e); err != nil {
		return err
	}
	run.add(r)
	return nil
}

// prepare fills the table; the server gives up a silent client soon.
func (s *bigShape) prepare(ctx context.Context, conn *pgx.Conn) error {
	statements := []string{
		"CREATE TABLE subscribers_restaurants (id serial PRIMARY KEY, client_id varchar NOT NULL, restaurant_id varchar NOT NULL)",
		"ALTER TABLE subscribers_restaurants REPLICA IDENTITY " + s.identity,
	}
	for _, rows := range s.before {
		statements = append(statements, rows.insertSQL())
	}
	for _, sql := range append(statements,
		"VACUUM (ANALYZE) subscribers_restaurants",
		"ALTER SYSTEM SET wal_sender_timeout = '3s'",
		"SELECT pg_reload_conf()",
	) {
		if _, err := conn.Exec(ctx, sql); err != nil {
			return fmt.Errorf("prepare the table: %w", err)
		}
	}
	return nil
}

// bigRun is one measurement.
type bigRun struct {
	bigShape
	conn              *pgx.Conn
	f                 *follower
	rest, most, later int64 // resident bytes
	wrote, became     time.Duration
	answers           int
	fences            bigFences
}

func (r *bigRun) measure(ctx context.Context, e *harness.Env) error {
	debug.FreeOSMemory() // what the load left behind is no part of rest
	r.rest = resident()
	sender, err := r.sender(ctx)
	if err != nil {
		return err
	}
	done, watched, asked := make(chan struct{}), make(chan error, 1), make(chan error, 1)
	go func() { watched <- r.watch(ctx, done) }()
	go func() { asked <- r.fences.ask(ctx, done) }()
	err = r.change(ctx, e)
	close(done)
	if err := errors.Join(err, <-watched, <-asked); err != nil {
		return err
	}
	for n := 0; n < bigRestaurants; n += 97 {
		if err := r.holds(ctx, n, r.after); err != nil {
			return fmt.Errorf("after the transaction: %w", err)
		}
	}
	debug.FreeOSMemory()
	r.later = resident()
	after, err := r.sender(ctx)
	if err == nil && after != sender {
		err = errors.New("the server ended the replication connection in the middle")
	}
	return err
}

// change commits the transaction and waits until a fence has passed it.
func (r *bigRun) change(ctx context.Context, e *harness.Env) error {
	if err := r.fences.quiet(ctx); err != nil {
		return err
	}
	begun := time.Now()
	tx, err := r.conn.Begin(ctx)
	if err != nil {
		return fmt.Errorf("begin the transaction: %w", err)
	}
	r.fences.enter(besideOpen)
	if _, err := tx.Exec(ctx, r.sql); err != nil {
		return fmt.Errorf("change every row: %w", err)
	}
	r.fences.enter(behindCommit)
	if err := tx.Commit(ctx); err != nil {
		return fmt.Errorf("commit the transaction: %w", err)
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
	for n := 0; ; n = (n + 7919) % bigRestaurants {
		r.most = max(r.most, resident())
		if err := r.holds(ctx, n, r.before, r.after); err != nil {
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

// holds asks whether restaurant n is in one of its states; a mixture is an error.
func (r *bigRun) holds(ctx context.Context, n int, states ...[]bigRows) error {
	recipients, err := r.f.index.Lookup(ctx, "restaurant "+strconv.Itoa(n))
	if err != nil {
		return err
	}
	defer recipients.Release()
	for _, state := range states {
		want, same := 0, true
		for _, rows := range state {
			want += rows.clients(n)
		}
		for c := range recipients.Range(0, recipients.Len()) {
			same = same && slices.ContainsFunc(state, func(rows bigRows) bool { return rows.hold(n, c) })
		}
		if same && recipients.Len() == want {
			return nil
		}
	}
	return fmt.Errorf("%w: restaurant %d has %d clients, neither the old nor the new ones", harness.ErrDiffer, n, recipients.Len())
}

// sender is the process that streams to us.
func (r *bigRun) sender(ctx context.Context) (pid int, err error) {
	err = r.conn.QueryRow(ctx, "SELECT active_pid FROM pg_replication_slots WHERE slot_name = 'tiffin' AND active").Scan(&pid)
	if err != nil {
		err = fmt.Errorf("look at the slot: %w", err)
	}
	return pid, err
}

func (r *bigRun) add(to *harness.Result) {
	rest := r.rest
	if len(r.after) > len(r.before) {
		rest = r.later
	}
	to.Add(harness.Figure{Case: r.name, Name: aboveRest, Unit: harness.Bytes, Value: float64(max(0, r.most-rest))},
		harness.Figure{Case: r.name, Name: "memory at rest", Unit: harness.Bytes, Value: float64(r.rest)},
		harness.Figure{Case: r.name, Name: "memory at rest afterwards", Unit: harness.Bytes, Value: float64(r.later)},
		harness.Figure{Case: r.name, Name: "time to commit", Unit: harness.Seconds, Value: r.wrote.Seconds()},
		harness.Figure{Case: r.name, Name: visibleAfter, Unit: harness.Seconds, Value: r.became.Seconds()},
		harness.Figure{Case: r.name, Name: "answers meanwhile, each before or after it", Unit: harness.Count, Value: float64(r.answers)})
	r.fences.add(to, r.name)
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
