// Package pooling tells a pooler that keeps a session from one that gives it away between two transactions.
package pooling

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// Fix is what to do about a pooler that keeps no session.
const Fix = "name the server itself in feedback.dsn, or a pooler that keeps a session (pgbouncer: pool_mode = session)"

// Text says what is wrong with one: whatever a session was told does not hold where it writes (synchronous_commit,
// row_security, the time-outs), its locks stay with somebody else, and who ends the sessions of a dead process ends
// others'.
const Text = "feedback.dsn leads to a pooler that gives each transaction another session"

// ErrNoSession is returned where two transactions of a connection are two sessions.
var ErrNoSession = errors.New(Text + ": " + Fix)

// ErrNoRoom is returned where a pooler has no second session to give within patience.
var ErrNoRoom = errors.New("the pooler of feedback.dsn has no second session to give: each process needs a dozen (pgbouncer: default_pool_size, max_db_connections)")

// patience is how long a second session is waited for.
const patience = 5 * time.Second

// Check returns ErrNoSession where two transactions of a connection are two sessions. Only a pooler tells another
// process id than the server's (BackendKeyData), so nobody else is asked: the connection's session gets a mark, another connection
// takes the session that was free last, and the mark is looked for. A pooler with much to do may give the same one
// all the same; it never looks like one that does not keep them. conn must be idle.
func Check(ctx context.Context, conn *pgx.Conn) error {
	pid, err := ask(ctx, conn, "SELECT pg_backend_pid()")
	if err != nil {
		return fmt.Errorf("ask for the process of a session of the feedback database: %w", err)
	}
	if pid == strconv.FormatUint(uint64(conn.PgConn().PID()), 10) {
		return nil
	}
	mark := rand.Text()
	if _, err := ask(ctx, conn, "SELECT set_config('tiffin.session', '"+mark+"', false)"); err != nil {
		return fmt.Errorf("mark a session of the feedback database: %w", err)
	}
	other, err := takeSession(ctx, conn.Config())
	if err != nil {
		return err
	}
	defer func() { _ = other.Close(context.WithoutCancel(ctx)) }()
	found, err := ask(ctx, conn, "SELECT current_setting('tiffin.session', true)")
	if err != nil {
		return fmt.Errorf("look for the mark of a session of the feedback database: %w", err)
	}
	if found != mark {
		return ErrNoSession
	}
	return nil
}

// ask returns the one value of a query, as text. A pooler that keeps no session is not to be asked by prepared statements.
func ask(ctx context.Context, conn *pgx.Conn, sql string) (string, error) {
	results, err := conn.PgConn().Exec(ctx, sql).ReadAll()
	if err != nil {
		return "", err
	}
	if len(results) != 1 || len(results[0].Rows) != 1 || len(results[0].Rows[0]) != 1 {
		return "", fmt.Errorf("%q has another answer than one value", sql)
	}
	return string(results[0].Rows[0][0]), nil
}

// takeSession returns a connection that has a session for as long as it is open, in a transaction.
func takeSession(ctx context.Context, config *pgx.ConnConfig) (*pgx.Conn, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, patience, ErrNoRoom)
	defer cancel()
	conn, err := pgx.ConnectConfig(ctx, config)
	if err == nil {
		if _, err = conn.Exec(ctx, "BEGIN"); err == nil {
			return conn, nil
		}
		_ = conn.Close(context.WithoutCancel(ctx)) // it gave nothing
	}
	pg, refused := errors.AsType[*pgconn.PgError](err)
	switch {
	case errors.Is(context.Cause(ctx), ErrNoRoom):
		return nil, ErrNoRoom
	case refused && strings.Contains(pg.Message, "transaction blocks not allowed"): // pgbouncer's pool_mode = statement
		return nil, ErrNoSession
	}
	return nil, fmt.Errorf("take a second session of the feedback database: %w", err)
}
