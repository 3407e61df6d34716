package cdc

import (
	"cmp"
	"context"
	"net"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"example.com/tiffin/internal/dsn"
)

// askLimit bounds one question to the server: a catalog or position query takes milliseconds,
// so an answer that takes longer means a source that is not there.
const askLimit = 5 * time.Second

// prepareLimit bounds the questions before a load or a stream, which may wait for a lock.
const prepareLimit = 6 * askLimit

// dsnKey is the setting that an operator would correct.
func (c *Config) dsnKey() string { return cmp.Or(c.DSNKey, "source.dsn") }

// application is how the server's views name the reader's connections.
func (c *Config) application() string { return "tiffin/" + c.Slot }

// conn is the settings of a connection to the source.
func (c *Config) conn() (*pgx.ConnConfig, error) {
	conf, err := dsn.Parse(c.DSN)
	if err != nil {
		return nil, &Error{Op: "read setting", On: c.dsnKey(), Err: err, Permanent: true}
	}
	conf.RuntimeParams["application_name"] = c.application()
	conf.RuntimeParams["statement_timeout"] = "0" // a role's timeout would end a long load
	conf.RuntimeParams["idle_in_transaction_session_timeout"] = "0"
	conf.RuntimeParams["standard_conforming_strings"] = "on" // as literal quotes
	// A statement's snapshot is taken behind its lock of the table: a transaction's, taken before, shows
	// nothing of a table that was rewritten meanwhile.
	conf.RuntimeParams["default_transaction_isolation"] = "read committed"
	if conf.ConnectTimeout == 0 {
		conf.ConnectTimeout = 2 * askLimit
	}
	dialer := &net.Dialer{
		Timeout: conf.ConnectTimeout,
		// A silent peer is given up after 10 s + 3 × 5 s, less than half of the server's
		// default wal_sender_timeout.
		KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 10 * time.Second, Interval: 5 * time.Second, Count: 3},
		Control:         boundUnacknowledged,
	}
	conf.DialFunc = dialer.DialContext
	conf.AfterConnect = unbounded
	return conf, nil
}

// unbounded lifts what a role or a database may bound and a server need not know yet, which at the connection's start would
// refuse it: transaction_timeout (17) ends a long load, and a walsender that decodes a large transaction; idle_session_timeout
// (14) a session between two questions.
func unbounded(ctx context.Context, conn *pgconn.PgConn) error {
	_, err := conn.Exec(ctx, `SELECT set_config(name, '0', false) FROM pg_settings WHERE name IN ('transaction_timeout', 'idle_session_timeout')`).ReadAll()
	return err
}

// connect opens a connection for SQL.
func (c *Config) connect(ctx context.Context) (*pgx.Conn, error) {
	conf, err := c.conn()
	if err != nil {
		return nil, err
	}
	var stream copyStream
	conf.BuildFrontend = stream.build
	conn, err := pgx.ConnectConfig(ctx, conf)
	if err != nil {
		return nil, connectError(&conf.Config, c.dsnKey(), err)
	}
	conn.PgConn().CustomData()[streamKey] = &stream
	return conn, nil
}

// connectReplication opens a connection that speaks the replication protocol.
func (c *Config) connectReplication(ctx context.Context) (*pgconn.PgConn, error) {
	conf, err := c.conn()
	if err != nil {
		return nil, err
	}
	conf.RuntimeParams["replication"] = "database"
	var stream copyStream
	conf.BuildFrontend = stream.build
	conn, err := pgconn.ConnectConfig(ctx, &conf.Config)
	if err != nil {
		return nil, connectError(&conf.Config, c.dsnKey(), err)
	}
	conn.CustomData()[streamKey] = &stream
	return conn, nil
}

// hangUp closes a connection whose peer may be gone, within a second.
func hangUp(ctx context.Context, conn *pgconn.PgConn) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	_ = conn.Close(ctx) // the connection is of no use any more, whatever it says
	select {
	case <-conn.CleanupDone():
	case <-ctx.Done():
	}
}
