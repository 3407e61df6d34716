package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"example.com/tiffin/cache"
	"example.com/tiffin/cdc"
	"example.com/tiffin/cmd/bench/internal/harness"
	"example.com/tiffin/internal/devstack"
)

// The cases and figures of freshness.
const (
	idleServer   = "idle server"
	besideBench  = "beside pgbench"
	fence        = "fence"
	visibleAfter = "commit to visible"
)

// freshness measures how long a commit takes to be in the index and how long a fence takes,
// on an idle server and beside pgbench, and in the same run what the wire alone allows.
func freshness() harness.Scenario {
	return harness.Scenario{
		Name:    "freshness",
		Summary: "commit to visible in the index, and the fence, idle and beside pgbench, against the wire alone",
		Goals: []harness.Goal{
			harness.AtMost(idleServer, fence+", p99", 1e-3).In(harness.Seconds),
			harness.AtMost(idleServer, visibleAfter+", p99", 1e-3).In(harness.Seconds),
			harness.AtMost(besideBench, visibleAfter+", p99", 5e-3).In(harness.Seconds),
		},
		OwnServers: true, Run: runFreshness,
	}
}

func runFreshness(ctx context.Context, e *harness.Env) (r *harness.Result, err error) {
	times := 2000
	if e.Quick {
		times = 200
	}
	server, err := devstack.StartPostgres(ctx, devstack.PostgresOptions{Dir: e.Dir, Durable: true})
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
	idle, err := f.measure(ctx, times)
	if err != nil {
		return nil, err
	}
	e.Say("measured on the idle server; pgbench is next")
	stop, err := f.pgbench(ctx)
	if err != nil {
		return nil, err
	}
	busy, err := f.measure(ctx, times)
	if err := errors.Join(err, stop()); err != nil {
		return nil, err
	}
	r = &harness.Result{}
	r.Add(idle.figures(idleServer)...)
	r.Add(busy.figures(besideBench)...)
	r.Note("%d measurements each, fsync and synchronous_commit on; pgbench writes to other tables of the same server. "+
		"The limit is the wire: from the flushed position to a keepalive that has reached it.", times)
	return r, nil
}

// spread is what a hundred, or thousands, of durations say.
type spread struct{ p50, p99, most time.Duration }

func spreadOf(d []time.Duration) spread {
	slices.Sort(d)
	return spread{d[len(d)/2], d[len(d)*99/100], d[len(d)-1]}
}

// freshnessFigures are one round's.
type freshnessFigures struct {
	wire    spread // flushed position to a keepalive that has reached it
	fence   spread
	visible spread // commit record to visible in the index: tiffin_cdc_visible_seconds
	behind  spread // the commit's acknowledgement to visible; 0 when it was visible before
}

func (f freshnessFigures) figures(in string) (list []harness.Figure) {
	for _, m := range []struct {
		name  string
		of    spread
		limit spread
	}{
		{fence, f.fence, f.wire}, {visibleAfter, f.visible, f.wire}, {"acknowledged to visible", f.behind, spread{}},
	} {
		list = append(list, spreadFigures(in, m.name, m.of, m.limit)...)
	}
	return list
}

// spreadFigures have no limit if there is none.
func spreadFigures(in, name string, of, limit spread) []harness.Figure {
	return []harness.Figure{
		{Case: in, Name: name + ", p50", Unit: harness.Seconds, Value: of.p50.Seconds(), Limit: limit.p50.Seconds()},
		{Case: in, Name: name + ", p99", Unit: harness.Seconds, Value: of.p99.Seconds(), Limit: limit.p99.Seconds()},
		{Case: in, Name: name + ", max", Unit: harness.Seconds, Value: of.most.Seconds()},
	}
}

// freshnessRig is a reader in this process that follows a server.
type freshnessRig struct {
	server *devstack.Postgres
	source *cdc.Source
	index  *cache.Index
	reader *cdc.Reader
	seen   *appliedIndex
	conn   *pgx.Conn
	stop   context.CancelFunc
	done   chan error
}

// appliedIndex notes when each transaction became visible.
type appliedIndex struct {
	*cache.Index
	applied chan visible

	mu     sync.Mutex
	begun  time.Time // of the reader's session
	left   int       // transactions until whoever expects them is told
	behind chan<- time.Duration
}

// expect says, once so many transactions are applied, how long that took since the session
// began in which the last was.
func (a *appliedIndex) expect(transactions int) <-chan time.Duration {
	told := make(chan time.Duration, 1)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.left, a.behind = transactions, told
	return told
}

// NewTxn implements cdc.Index: a session asks for one before it streams.
func (a *appliedIndex) NewTxn() *cache.Txn {
	a.mu.Lock()
	a.begun = time.Now()
	a.mu.Unlock()
	return a.Index.NewTxn()
}

type visible struct{ committed, at time.Time }

// Apply implements cdc.Index.
func (a *appliedIndex) Apply(t *cache.Txn, c cache.Commit) error {
	if err := a.Index.Apply(t, c); err != nil {
		return err
	}
	select {
	case a.applied <- visible{c.Time, time.Now()}:
	default: // nobody measures
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.left--; a.left == 0 {
		a.behind <- time.Since(a.begun)
	}
	return nil
}

func startFreshness(ctx context.Context, server *devstack.Postgres) (*freshnessRig, error) {
	if err := server.CreateDatabase(ctx, sourceDatabase); err != nil {
		return nil, err
	}
	f := &freshnessRig{server: server, done: make(chan error, 1)}
	var err error
	if f.conn, err = pgx.Connect(ctx, server.DSN(sourceDatabase)); err != nil {
		return nil, fmt.Errorf("connect to the source: %w", err)
	}
	subscriptions := devstack.Subscriptions{Rows: 100_000, Restaurants: 1000, Clients: 50_000}
	if _, err := subscriptions.Load(ctx, f.conn, pgx.Identifier{"public", "subscribers_restaurants"}); err != nil {
		return nil, err
	}
	cfg := cdc.Config{
		DSN: server.DSN(sourceDatabase), Table: "public.subscribers_restaurants", Publication: "tiffin", Slot: "tiffin",
		Log: slog.New(slog.DiscardHandler),
	}
	if f.source, err = cdc.NewSource(cfg); err != nil {
		return nil, err
	}
	if f.index, err = cache.New(cache.Config{Budget: 64 << 20}, f.source); err != nil {
		return nil, err
	}
	f.seen = &appliedIndex{Index: f.index, applied: make(chan visible, 1)}
	if f.reader, err = cdc.New(cfg, f.source, f.seen); err != nil {
		return nil, err
	}
	running, stop := context.WithCancel(ctx)
	f.stop = stop
	go func() { f.done <- f.reader.Run(running) }()
	return f, f.fenced(ctx)
}

func (f *freshnessRig) fenced(ctx context.Context) error {
	_, err := f.reader.Wait(ctx)
	return err
}

func (f *freshnessRig) close() error {
	f.stop()
	err := <-f.done
	f.index.Close()
	f.source.Close()
	return errors.Join(err, f.conn.Close(context.Background()))
}

func (f *freshnessRig) measure(ctx context.Context, times int) (r freshnessFigures, err error) {
	if r.wire, r.fence, err = f.fences(ctx, times); err != nil {
		return r, err
	}
	commits, behind := make([]time.Duration, times), make([]time.Duration, times)
	for i := range commits {
		if commits[i], behind[i], err = f.commit(ctx, i); err != nil {
			return r, err
		}
	}
	r.visible, r.behind = spreadOf(commits), spreadOf(behind)
	return r, nil
}

// commit inserts one row and waits for it in the index.
func (f *freshnessRig) commit(ctx context.Context, i int) (commit, behind time.Duration, err error) {
	if _, err := f.conn.Exec(ctx, "INSERT INTO subscribers_restaurants (restaurant_id, client_id) VALUES ('r', $1)", strconv.Itoa(i)); err != nil {
		return 0, 0, fmt.Errorf("insert: %w", err)
	}
	acknowledged := time.Now()
	select {
	case v := <-f.seen.applied:
		return v.at.Sub(v.committed), max(0, v.at.Sub(acknowledged)), nil
	case <-time.After(harness.Patience):
		return 0, 0, errors.New("a committed row did not become visible")
	case <-ctx.Done():
		return 0, 0, ctx.Err()
	}
}

// wireAlone waits, on a replication connection of its own, for the keepalive that reaches the
// flushed position: no decoding of ours, no index.
func (f *freshnessRig) wireAlone(ctx context.Context, times int) (s spread, err error) {
	repl, err := pgconn.Connect(ctx, f.server.DSN(sourceDatabase)+"&replication=database")
	if err != nil {
		return s, fmt.Errorf("connect for the wire's limit: %w", err)
	}
	defer func() { err = errors.Join(err, repl.Close(context.WithoutCancel(ctx))) }()
	if _, err := pglogrepl.CreateReplicationSlot(ctx, repl, "wire", "pgoutput", pglogrepl.CreateReplicationSlotOptions{Temporary: true}); err != nil {
		return s, err
	}
	options := pglogrepl.StartReplicationOptions{PluginArgs: []string{"proto_version '1'", "publication_names 'tiffin'"}}
	if err := pglogrepl.StartReplication(ctx, repl, "wire", 0, options); err != nil {
		return s, err
	}
	var reached pglogrepl.LSN
	durations := make([]time.Duration, times)
	for i := range durations {
		begun := time.Now()
		var text string
		if err := f.conn.QueryRow(ctx, "SELECT pg_current_wal_flush_lsn()::text").Scan(&text); err != nil {
			return s, err
		}
		flushed, err := pglogrepl.ParseLSN(text)
		if err != nil {
			return s, err
		}
		if reached, err = awaitKeepalive(ctx, repl, reached, flushed); err != nil {
			return s, err
		}
		durations[i] = time.Since(begun)
	}
	return spreadOf(durations), nil
}

func awaitKeepalive(ctx context.Context, repl *pgconn.PgConn, reached, flushed pglogrepl.LSN) (pglogrepl.LSN, error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	for reached < flushed {
		msg, err := repl.ReceiveMessage(ctx)
		if err != nil {
			return 0, fmt.Errorf("wait for a keepalive: %w", err)
		}
		data, ok := msg.(*pgproto3.CopyData)
		if !ok || len(data.Data) == 0 || data.Data[0] != pglogrepl.PrimaryKeepaliveMessageByteID {
			continue
		}
		k, err := pglogrepl.ParsePrimaryKeepaliveMessage(data.Data[1:])
		if err != nil {
			return 0, err
		}
		reached = max(reached, k.ServerWALEnd)
		err = pglogrepl.SendStandbyStatusUpdate(ctx, repl, pglogrepl.StandbyStatusUpdate{WALWritePosition: reached, WALFlushPosition: reached, WALApplyPosition: reached})
		if err != nil {
			return 0, err
		}
	}
	return reached, nil
}

const longest = 10 * time.Minute // that pgbench runs if nobody stops it

// pgbench keeps other tables of the same server busy until stop is called.
func (f *freshnessRig) pgbench(ctx context.Context) (stop func() error, err error) {
	program := filepath.Join(f.server.BinDir(), "pgbench")
	run := func(ctx context.Context, args ...string) error {
		out, err := exec.CommandContext(ctx, program, append(args, f.server.DSN(sourceDatabase))...).CombinedOutput()
		if err != nil {
			return fmt.Errorf("pgbench: %w: %s", err, out)
		}
		return nil
	}
	if err := run(ctx, "-i", "-q", "-s", "10"); err != nil {
		return nil, err
	}
	if err := f.fenced(ctx); err != nil { // what the initialisation wrote is no part of the measurement
		return nil, err
	}
	running, cancel := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- run(running, "-n", "-c", "2", "-T", strconv.Itoa(int(longest.Seconds()))) }()
	return func() error {
		defer cancel()
		select {
		case err := <-ended:
			return errors.Join(errors.New("pgbench ended before the measurement did"), err)
		default:
			cancel()
			if err := <-ended; err == nil { // it should have been killed
				return errors.New("pgbench ended before the measurement did")
			}
			return nil
		}
	}, nil
}
