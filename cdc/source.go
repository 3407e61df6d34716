package cdc

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"example.com/tiffin/cache"
	"example.com/tiffin/internal/dsn"
)

// readConns is how many restaurants may be read at once. Reading one takes 0.4 ms, and the
// source's connections are not ours to use up.
const readConns = 4

// Source asks the source database questions by SQL: one restaurant's clients, and the
// position for a fence. It is safe for concurrent use.
type Source struct {
	cfg     Config
	fence   link
	footing footing
	read    atomic.Pointer[reading] // how ReadRestaurant reads, for the table as loaded
	// lockPatience is the constant, but in tests.
	lockPatience time.Duration

	mu     sync.Mutex
	pool   *pgxpool.Pool
	closed bool
}

// NewSource validates cfg. It neither connects nor starts anything.
func NewSource(cfg Config) (*Source, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("cdc config: %w", err)
	}
	s := &Source{cfg: cfg.withDefaults(), lockPatience: lockPatience}
	table, err := parseTable(cfg.Table)
	if err != nil {
		return nil, fmt.Errorf("cdc config: source.table: %w", err)
	}
	s.footing.table, s.footing.publication = table.sql(), cfg.Publication
	s.footing.learn(0, &tableFacts{})
	s.fence.cfg, s.fence.greet = &s.cfg, s.footing.greet
	return s, nil
}

// Close ends the connections. Questions that are open end with an error.
func (s *Source) Close() {
	s.mu.Lock()
	pool := s.pool
	s.pool, s.closed = nil, true
	s.mu.Unlock()
	if pool != nil {
		pool.Close()
	}
	s.fence.close()
}

// ReadRestaurant reads the clients of every row of one restaurant on the primary and calls
// add for each, duplicates included, in any order; the bytes are valid during the call. It
// returns the snapshot that the rows were read in. It implements cache.Source.
func (s *Source) ReadRestaurant(ctx context.Context, restaurant string, add func(client []byte) error) (cache.Snapshot, error) {
	failed := func(err error) (cache.Snapshot, error) {
		return cache.Snapshot{}, fmt.Errorf("read clients of restaurant %q from table %s: %w", restaurant, s.cfg.Table, err)
	}
	reading := s.read.Load()
	if reading == nil {
		return failed(errors.New("the table was not loaded yet"))
	}
	pool, err := s.connections(ctx)
	if err != nil {
		return failed(err)
	}
	defer s.lookForLock(ctx)()
	rows, err := pool.Query(ctx, reading.statement, restaurant)
	if err != nil {
		return failed(err)
	}
	defer rows.Close()
	var snapshot cache.Snapshot
	for rows.Next() {
		values := rows.RawValues()
		switch {
		case values[0] != nil && string(values[1]) != reading.table:
			err = errFooting
		case values[0] != nil:
			snapshot, err = cache.ParseSnapshot(string(values[0]))
		default:
			err = add(values[1])
		}
		if err != nil {
			return failed(err)
		}
	}
	if err := rows.Err(); err != nil {
		return failed(err)
	}
	if snapshot.Xmax == 0 {
		return failed(errors.New("no snapshot in the answer"))
	}
	return snapshot, nil
}

// reading is how the restaurants of a table are read. Another table of its name may be none that the
// statement fits: its answer is refused.
type reading struct{ statement, table string }

// readStatement reads rows, the snapshot and which table it was in one statement, hence in one snapshot.
// The parameter is cast to the column's type so that an index can serve it; the text is compared
// again, byte by byte, because equal values may have different texts (citext, nondeterministic collations).
func readStatement(t *tableFacts) string {
	return "SELECT pg_current_snapshot()::text, to_regclass(" + literal(t.relation.name.sql()) + ")::oid::text UNION ALL SELECT NULL, " + t.clientText() + " FROM " + t.from() +
		" WHERE " + columnRestaurant + " = $1::text::" + t.cast + " AND " + t.restaurantText() + ` COLLATE pg_catalog."C" = $1::text AND ` + columnClient + " IS NOT NULL"
}

// learn fits the statement to the table as it is loaded.
func (s *Source) learn(t *tableFacts) {
	s.read.Store(&reading{readStatement(t), strconv.FormatUint(uint64(t.relation.oid), 10)})
}

// reconnect has the next questions asked on new connections: the old ones may lead to a server
// that is the primary no more.
func (s *Source) reconnect() {
	s.fence.close()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.pool != nil {
		s.pool.Reset()
	}
}

func (s *Source) connections(ctx context.Context) (*pgxpool.Pool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.pool != nil || s.closed {
		if s.closed {
			return nil, errors.New("the source was closed")
		}
		return s.pool, nil
	}
	conn, err := s.cfg.conn()
	if err != nil {
		return nil, err
	}
	conf, err := dsn.ParsePool(s.cfg.DSN)
	if err != nil {
		return nil, err
	}
	conf.ConnConfig, conf.MaxConns, conf.MinConns = conn, readConns, 0
	conf.MaxConnIdleTime = time.Minute
	conf.AfterConnect = s.footing.greet
	s.pool, err = pgxpool.NewWithConfig(context.WithoutCancel(ctx), conf)
	return s.pool, err
}

// flushed returns the source's flushed position.
func (s *Source) flushed(ctx context.Context) (cache.LSN, error) {
	return s.position(ctx, "pg_current_wal_flush_lsn()")
}

// emitted writes a message into the log, which its commit flushes, and returns where it ends.
// What was committed before, however asynchronously, lies below.
func (s *Source) emitted(ctx context.Context) (cache.LSN, error) {
	return s.position(ctx, "pg_logical_emit_message(true, 'tiffin.fence', '')")
}

// link is one connection that is opened when needed and opened again after an error.
type link struct {
	cfg   *Config
	greet func(context.Context, *pgx.Conn) error // what a new connection must pass

	mu   sync.Mutex
	conn *pgx.Conn
}

// ask runs one question, bounded by askLimit. A connection that failed is closed.
func (l *link) ask(ctx context.Context, question func(context.Context, *pgx.Conn) error) error {
	ctx, cancel := context.WithTimeout(ctx, askLimit)
	defer cancel()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.conn == nil {
		conn, err := l.cfg.connect(ctx)
		if err != nil {
			return err
		}
		if err := l.greet(ctx, conn); err != nil {
			hangUp(ctx, conn.PgConn())
			return err
		}
		l.conn = conn
	}
	err := question(ctx, l.conn)
	if err != nil {
		hangUp(ctx, l.conn.PgConn())
		l.conn = nil
	}
	return err
}

// close ends the connection; the next question opens another.
func (l *link) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.conn != nil {
		hangUp(context.Background(), l.conn.PgConn())
		l.conn = nil
	}
}
