// Package pooling tells a pooler that keeps a session from one that gives it away between two transactions.
package pooling

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
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
	pid := uint32(0)
	if err := conn.QueryRow(ctx, "SELECT pg_backend_pid()", pgx.QueryExecModeSimpleProtocol).Scan(&pid); err != nil {
		return fmt.Errorf("ask for its process: %w", err)
	}
	if pid == conn.PgConn().PID() {
		return nil
	}
	mark := rand.Text()
	if _, err := conn.Exec(ctx, "SELECT set_config('tiffin.session', '"+mark+"', false)"); err != nil {
		return fmt.Errorf("mark a session: %w", err)
	}
	other, err := takeSession(ctx, conn.Config())
	if err != nil {
		return err
	}
	defer func() { _ = other.Close(context.WithoutCancel(ctx)) }()
	found := ""
	if err := conn.QueryRow(ctx, "SELECT coalesce(current_setting('tiffin.session', true), '')", pgx.QueryExecModeSimpleProtocol).Scan(&found); err != nil {
		return fmt.Errorf("look for the mark of a session: %w", err)
	}
	if found != mark {
		return ErrNoSession
	}
	return nil
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
	if errors.Is(context.Cause(ctx), ErrNoRoom) {
		return nil, ErrNoRoom
	}
	return nil, fmt.Errorf("take a second session: %w", err)
}
