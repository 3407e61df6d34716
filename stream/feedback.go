package stream

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"example.com/tiffin/internal/dsn"
	"example.com/tiffin/internal/pooling"
)

// store is the feedback database as a session sees it. feedback is the one that ships. Safe for
// concurrent use.
type store interface {
	ledgerStore
	manifestStore
	// connect makes a deliverer, which the caller closes.
	connect(ctx context.Context) (deliverer, error)
	ping(ctx context.Context) error
	// stands returns an error when the feedback table does something else to rows than when the store was opened.
	// A question without an answer is none.
	stands(ctx context.Context) error
	close(ctx context.Context)
}

// deliverer writes batches, one at a time, on a connection of its own.
type deliverer interface {
	// deliver commits a batch in one transaction, or nothing of it: the ledger's new
	// positions under their epochs, the rows, the manifest. The triggers learn their ids.
	// After an error the outcome may be unknown; a FencedError says that nothing was written.
	deliver(ctx context.Context, b *batch, g gates) error
	close(ctx context.Context)
}

// gates are what a batch waits for on its way into Postgres.
type gates struct {
	// ledger is closed when the batches are committed from whose positions this one goes on.
	ledger <-chan struct{}
	// commit is closed when the batch may be committed.
	commit <-chan struct{}
}

// ledgerStore is tiffin.progress.
type ledgerStore interface {
	claim(ctx context.Context, partition int32, topicID [16]byte) (e entry, known bool, err error)
	begin(ctx context.Context, starts map[int32]int64, topicID [16]byte) error
	setAside(ctx context.Context, partition int32, epoch, first, next int64, topicID [16]byte) (int64, error)
	otherGroups(ctx context.Context) ([]string, error)
	moveTo(ctx context.Context, partition int32, epoch, next int64) error
	giveUp(ctx context.Context, c *claim, level int64) error
	// owners are the processes that took the partitions and did not give them up.
	owners(ctx context.Context, partitions []int32) ([]string, error)
	// endSessions ends the writing sessions of another process, and says how many there were.
	endSessions(ctx context.Context, process string) (int, error)
	positions(ctx context.Context) (map[int32]int64, error)
}

// manifestStore is tiffin.trigger and the rows that it leads to.
type manifestStore interface {
	// manifest returns the first messages (a page of them) of a partition handled in
	// [from, to), in offset order; none when there are no more.
	manifest(ctx context.Context, partition int32, from, to int64) ([]record, error)
	// rows calls each for the feedback rows of a run of ids, ascending.
	rows(ctx context.Context, run idRange, each func(row) error) error
}

// row is a feedback row. The texts are valid until each returns.
type row struct {
	id     int64
	shared [sharedColumns][]byte // what all rows of a trigger have alike, in binary form
	client []byte
}

// sharedColumns are the eight fields of the campaign and the time of the join.
const sharedColumns = 9

func (r *row) campaign() (c Campaign, now int64) {
	s := &r.shared
	number := func(i int) int64 { return int64(binary.BigEndian.Uint64(s[i])) }
	return Campaign{
		RestaurantID: string(s[0]), ID: string(s[1]), Content: string(s[2]), Owner: string(s[3]), OwnerContact: string(s[4]),
		Start: number(5), End: number(6), Created: number(7),
	}, number(8)
}

// feedback is the real store: a pool for the ledger and recovery, and the writers' connections.
type feedback struct {
	ledger
	cfg  *Config
	conn *pgx.ConnConfig
	// renew, if any, reads the secrets of conn anew.
	renew func(context.Context, *pgx.ConnConfig) error
	// table is the feedback table, quoted, and kept what it did to rows at the start.
	table string
	kept  kept
	// numbering is shared by the writers.
	numbering *numbering
}

// openFeedback connects, readies the database and prepares the statements.
func openFeedback(ctx context.Context, c *Config) (store, error) {
	cfg, err := dsn.ParsePool(c.FeedbackDSN)
	if err != nil {
		return nil, &SettingError{err}
	}
	return openPool(ctx, c, cfg)
}

func openPool(ctx context.Context, c *Config, cfg *pgxpool.Config) (store, error) {
	cfg.MaxConns = 4 // claims, recovery, the probe
	tune(cfg.ConnConfig)
	// One of several servers (or addresses) may be a standby, and lag behind: rows that are not there yet would
	// be taken for deleted, and their records not be sent.
	if cfg.ConnConfig.ValidateConnect == nil {
		cfg.ConnConfig.ValidateConnect = pgconn.ValidateConnectTargetSessionAttrsPrimary
	}
	cfg.AfterConnect = settle
	conn, err := pgx.ConnectConfig(ctx, cfg.ConnConfig)
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	if err := pooling.Check(ctx, conn); errors.Is(err, pooling.ErrNoSession) {
		return nil, &SettingError{err}
	} else if err != nil {
		return nil, err
	}
	if c.Prepare != nil {
		if err := c.Prepare(ctx, conn); err != nil {
			return nil, err
		}
	}
	// Those of a predecessor of ours on a machine that vanished.
	if _, err := endSessions(ctx, conn, c.Kafka.Group, c.Kafka.Process); err != nil {
		return nil, err
	}
	f := &feedback{cfg: c, conn: cfg.ConnConfig.Copy(), renew: cfg.BeforeConnect, table: c.FeedbackTable.Sanitize(), numbering: &numbering{}}
	f.ledger = ledger{group: c.Kafka.Group, topic: c.Kafka.Input, owner: c.Kafka.Process}
	if f.kept, err = askKept(ctx, conn, f.table); err != nil {
		return nil, err
	}
	if f.pool, err = pgxpool.NewWithConfig(ctx, cfg); err != nil {
		return nil, err
	}
	return f, nil
}

func (f *feedback) connect(ctx context.Context) (deliverer, error) {
	config := f.conn.Copy()
	if f.renew != nil {
		if err := f.renew(ctx, config); err != nil {
			return nil, &SettingError{err}
		}
	}
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return nil, err
	}
	w, err := newWriter(ctx, conn, f.cfg, f.numbering)
	if err != nil {
		_ = conn.Close(ctx)
		return nil, err
	}
	return w, nil
}

// settle gives a session what must hold in it.
//
// Its commits survive a crash of Postgres, also where its role or database has synchronous_commit off: rows would be
// lost whose records are out, and claims of which others have heard. Anything stronger than on is left as it is.
//
// Rows that row-level security hides would be taken for deleted: that is an error instead. It was asked for with the
// connection already (internal/dsn), but a pooler may be told to leave that away (pgbouncer's ignore_startup_parameters),
// and so what tune asks for.
func settle(ctx context.Context, conn *pgx.Conn) error {
	asked := conn.Config().RuntimeParams
	var names, values []string
	for name := range tuned() {
		names, values = append(names, name), append(values, asked[name])
	}
	_, err := conn.Exec(ctx, `SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') IN ('off', 'local')
		UNION ALL SELECT set_config('row_security', 'off', false)
		UNION ALL SELECT set_config(name, value, false) FROM unnest($1::text[], $2::text[]) AS asked (name, value) WHERE value <> ''`,
		pgx.QueryExecModeExec, names, values)
	if err != nil {
		return fmt.Errorf("feedback database: set synchronous_commit, row_security and the session's time-outs: %w", err)
	}
	return nil
}

// tuned are settings of every session, unless the DSN has others.
func tuned() map[string]string {
	return map[string]string{
		"application_name": "tiffin",
		// A lock that somebody holds on the table (an ALTER) becomes an error that names it, also
		// while a session is being opened: below openTimeout.
		"lock_timeout": "20s",
		// A process that is stopped in a transaction holds the ledger's row: the server ends it,
		// so that another can claim the partition. Ours are idle while the brokers are waited
		// for, and that ends before (produceTimeout).
		"idle_in_transaction_session_timeout": "60s",
		// The connection that waits for campaigns is not a forgotten one.
		"idle_session_timeout": "0",
	}
}

func tune(c *pgx.ConnConfig) {
	c.ConnectTimeout = 5 * time.Second
	for name, value := range tuned() {
		if c.RuntimeParams[name] == "" {
			c.RuntimeParams[name] = value
		}
	}
}

func (f *feedback) ping(ctx context.Context) error { return f.pool.Ping(ctx) }

func (f *feedback) stands(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	now, err := askKept(ctx, f.pool, f.table)
	if err != nil || now == f.kept {
		return nil // what keeps the database from answering is the probe's to say
	}
	return fmt.Errorf("feedback table %s was altered (a trigger, a rule, the default of its id, or a column's length): beginning anew with what it does to rows now; "+
		"whether it changed any meanwhile, tiffin verify tells", f.table)
}

func (f *feedback) close(context.Context) { f.pool.Close() }

func (f *feedback) rows(ctx context.Context, run idRange, each func(row) error) error {
	return eachRow(ctx, f.pool, f.table, run.first, run.last, each)
}
