package main

import (
	"context"
	"errors"
	"fmt"
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

// applyForm is a stretch of transactions that all change the table in one way.
type applyForm struct {
	name         string
	transactions int
	changes      int // of each: 1,000, or one
	sql          string
}

const (
	applied   = "applied"
	applyGoal = 2e6       // changes/s, of each form but that of single rows
	applyRows = 1_000_000 // of the table at first, of 10,000 restaurants and 99,991 clients: a prime, so that no pair comes twice
)

// applyForms say what transaction t does. No two transactions of a form change the same row.
func applyForms(quick bool) []applyForm {
	n := 900 // the first few run through cold caches and a heap that grows
	if quick {
		n = 10
	}
	const insert = "INSERT INTO subscribers_restaurants (restaurant_id, client_id) SELECT restaurant(i), client(i * 3 + 1) FROM generate_series(%d + t * %[2]d, %[1]d + t * %d - 1 + %[2]d) i;"
	const update = "UPDATE subscribers_restaurants SET client_id = client(id::int8 * 5 + 2) WHERE id BETWEEN %d + t * %[2]d AND %[1]d + t * %d - 1 + %[2]d;"
	const remove = "DELETE FROM subscribers_restaurants WHERE id BETWEEN %d + t * %[2]d AND %[1]d + t * %d - 1 + %[2]d;"
	of := fmt.Sprintf
	return []applyForm{
		{"insert", n, 1000, of(insert, 2_000_000, 1000, 1000)},
		{"update", n, 1000, of(update, 1, 1000, 1000)},
		{"delete", n, 1000, of(remove, 1_000_001, 1000, 1000)}, // what the first form inserted
		{"mixed", n, 1000, of(insert, 3_000_000, 400, 400) + of(update, 1, 300, 300) + of(remove, 600_001, 300, 300)},
		{"single rows", 100 * n, 1, of(insert, 4_000_000, 1, 1)},
	}
}

// apply measures how fast captured messages are decoded, assembled and applied, without a server.
func apply() harness.Scenario {
	s := harness.Scenario{
		Name:       "apply",
		Summary:    "changes/s from captured replication messages to the index, no server: insert, update, delete, mixed",
		OwnServers: true, Run: runApply,
	}
	for _, f := range applyForms(false) {
		if f.changes > 1 {
			s.Goals = append(s.Goals, harness.AtLeast(f.name, applied, applyGoal).In(harness.PerSecond))
		}
	}
	return s
}

func runApply(ctx context.Context, e *harness.Env) (r *harness.Result, err error) {
	server, err := devstack.StartPostgres(ctx, devstack.PostgresOptions{
		Dir: e.Dir, Settings: map[string]string{"wal_sender_timeout": "0", "max_wal_size": maxWAL, "logical_decoding_work_mem": "256MB"},
	})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, server.Close()) }()
	rig, err := newApplyRig(ctx, server)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rig.close(ctx)) }()
	e.Say("%d rows are indexed", applyRows)
	r = &harness.Result{}
	for _, f := range applyForms(e.Quick) {
		messages, err := rig.capture(ctx, f)
		if err != nil {
			return nil, err
		}
		e.Say("%s: %d messages captured", f.name, len(messages))
		begun := time.Now()
		for _, msg := range messages {
			if err := rig.replay.Message(msg); err != nil {
				return nil, err
			}
		}
		took := time.Since(begun).Seconds()
		r.Add(harness.Figure{Case: f.name, Name: applied, Unit: harness.PerSecond, Value: float64(f.transactions*f.changes) / took})
		if err := compareIndex(ctx, rig.conn, rig.index, "restaurant_id IN (SELECT restaurant(i * 100) FROM generate_series(0::int8, 99) i)"); err != nil {
			return nil, err
		}
	}
	r.Note("Messages of a real walsender; transactions of 1,000 changes, or one. %d rows of 10,000 restaurants and 99,991 clients at first, "+
		"replica identity DEFAULT. After each form the index is compared with the table.", applyRows)
	return r, nil
}

// applyRig is a table, a walsender that is captured, and an index that gets what was captured.
type applyRig struct {
	conn   *pgx.Conn
	repl   *pgconn.PgConn
	source *cdc.Source
	index  *cache.Index
	replay *cdc.Replay
}

func newApplyRig(ctx context.Context, server *devstack.Postgres) (*applyRig, error) {
	if err := server.CreateDatabase(ctx, sourceDatabase); err != nil {
		return nil, err
	}
	dsn := server.DSN(sourceDatabase)
	g := &applyRig{}
	var err error
	if g.conn, err = pgx.Connect(ctx, dsn); err != nil {
		return nil, fmt.Errorf("connect to the source: %w", err)
	}
	if err := devstack.CreateSourceTable(ctx, g.conn, pgx.Identifier{"public", "subscribers_restaurants"}); err != nil {
		return nil, err
	}
	for _, sql := range []string{
		"CREATE FUNCTION restaurant(i int8) RETURNS text IMMUTABLE LANGUAGE sql RETURN md5('restaurant ' || i * 7919 % 10000)::uuid::text",
		"CREATE FUNCTION client(i int8) RETURNS text IMMUTABLE LANGUAGE sql RETURN md5('client ' || i * 104729 % 99991)::uuid::text",
		fmt.Sprintf("INSERT INTO subscribers_restaurants (restaurant_id, client_id) SELECT restaurant(i), client(i) FROM generate_series(1::int8, %d) i", applyRows),
		"VACUUM (ANALYZE) subscribers_restaurants",
		"CREATE PUBLICATION tiffin FOR TABLE subscribers_restaurants",
		"SELECT pg_create_logical_replication_slot('captured', 'pgoutput')",
	} {
		if _, err := g.conn.Exec(ctx, sql); err != nil {
			return nil, fmt.Errorf("prepare the table: %w", err)
		}
	}
	cfg := cdc.Config{DSN: dsn, Table: "public.subscribers_restaurants", Publication: "tiffin", Slot: "captured"}
	if g.source, err = cdc.NewSource(cfg); err != nil {
		return nil, err
	}
	if g.index, err = cache.New(cache.Config{Budget: 1 << 30}, g.source); err != nil {
		return nil, err
	}
	if g.replay, err = cdc.NewReplay(ctx, cfg, g.source, g.index); err != nil {
		return nil, err
	}
	if g.repl, err = pgconn.Connect(ctx, dsn+"&replication=database"); err != nil {
		return nil, fmt.Errorf("connect to the walsender: %w", err)
	}
	options := pglogrepl.StartReplicationOptions{PluginArgs: []string{"proto_version '1'", "publication_names 'tiffin'"}}
	return g, pglogrepl.StartReplication(ctx, g.repl, "captured", 0, options)
}

func (g *applyRig) close(ctx context.Context) error {
	ctx = context.WithoutCancel(ctx)
	g.index.Close()
	g.source.Close()
	return errors.Join(g.repl.Close(ctx), g.conn.Close(ctx))
}

// capture makes the changes of a form and returns the messages of their transactions.
func (g *applyRig) capture(ctx context.Context, f applyForm) ([][]byte, error) {
	do := fmt.Sprintf("DO $$ BEGIN FOR t IN 0..%d LOOP %s COMMIT; END LOOP; END $$", f.transactions-1, f.sql)
	if _, err := g.conn.Exec(ctx, do); err != nil {
		return nil, fmt.Errorf("%s: %w", f.name, err)
	}
	var messages [][]byte
	for commits := 0; commits < f.transactions; {
		msg, err := g.repl.ReceiveMessage(ctx)
		if err != nil {
			return nil, fmt.Errorf("capture: %w", err)
		}
		data, ok := msg.(*pgproto3.CopyData)
		if !ok || len(data.Data) == 0 || data.Data[0] != pglogrepl.XLogDataByteID {
			continue
		}
		x, err := pglogrepl.ParseXLogData(data.Data[1:])
		if err != nil {
			return nil, fmt.Errorf("capture: %w", err)
		}
		if x.WALData[0] == 'C' {
			commits++
		}
		messages = append(messages, append([]byte(nil), x.WALData...))
	}
	return messages, nil
}
