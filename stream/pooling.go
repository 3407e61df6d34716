package stream

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// keepASession is what to do about a pooler that does not.
const keepASession = "name the server itself in feedback.dsn, or a pooler that keeps a session (pgbouncer: pool_mode = session)"

// errPooled says what is wrong with a pooler that gives a session away between two transactions: whatever a session
// was told does not hold where it writes (synchronous_commit, row_security, the time-outs), its locks
// stay with somebody else, and who ends the sessions of a dead process ends others'.
var errPooled = errors.New("feedback.dsn leads to a pooler that gives each transaction another session: " + keepASession)

// keepsSession returns errPooled where two transactions of a connection are two sessions. Only a pooler tells another
// process id than the server's (BackendKeyData), so nobody else is asked: the connection's session gets a mark, another connection
// takes the session that was free last, and the mark is looked for. A pooler with much to do may give the same one
// all the same; it never looks like one that does not keep them.
func keepsSession(ctx context.Context, conn *pgx.Conn, cfg *pgx.ConnConfig) error {
	pid := uint32(0)
	if err := conn.QueryRow(ctx, "SELECT pg_backend_pid()", pgx.QueryExecModeSimpleProtocol).Scan(&pid); err != nil {
		return fmt.Errorf("feedback database: ask for its process: %w", err)
	}
	if pid == conn.PgConn().PID() {
		return nil
	}
	mark := rand.Text()
	if _, err := conn.Exec(ctx, "SELECT set_config('tiffin.session', '"+mark+"', false)"); err != nil {
		return fmt.Errorf("feedback database: mark a session: %w", err)
	}
	other, err := pgx.ConnectConfig(ctx, cfg)
	if err != nil {
		return err
	}
	defer func() { _ = other.Close(context.WithoutCancel(ctx)) }()
	if _, err := other.Exec(ctx, "BEGIN"); err != nil {
		return fmt.Errorf("feedback database: take a session: %w", err)
	}
	found := ""
	if err := conn.QueryRow(ctx, "SELECT coalesce(current_setting('tiffin.session', true), '')", pgx.QueryExecModeSimpleProtocol).Scan(&found); err != nil {
		return fmt.Errorf("feedback database: look for the mark of a session: %w", err)
	}
	if found != mark {
		return &SettingError{errPooled}
	}
	return nil
}
