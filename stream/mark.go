package stream

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// A process marks its writing sessions of the feedback database by a shared advisory lock, so
// that they can be found when it is dead or taken for dead. A process that was stopped, or a
// machine that vanished, may hold the ledger's row in an open transaction, and nobody else
// could claim the partition for as long as the server believes in the connection: for ever,
// or hours. Not application_name: that is the operator's.

// markOf is the key of the mark.
func markOf(group, process string) string { return "tiffin writer " + group + " " + process }

func markSession(ctx context.Context, conn *pgx.Conn, group, process string) error {
	if _, err := conn.Exec(ctx, `SELECT pg_advisory_lock_shared(hashtextextended($1, 0))`, markOf(group, process)); err != nil {
		return fmt.Errorf("mark the session: %w", err)
	}
	return nil
}

// endSessions ends every writing session of a process, which rolls its transaction back, and
// returns how many there were. The layout of an advisory lock in pg_locks is the manual's.
func endSessions(ctx context.Context, on querier, group, process string) (int, error) {
	rows, err := on.Query(ctx, `SELECT pg_terminate_backend(l.pid) FROM pg_locks l JOIN pg_database d ON d.oid = l.database AND d.datname = current_database()
		WHERE l.locktype = 'advisory' AND l.objsubid = 1 AND l.pid <> pg_backend_pid()
		AND l.classid::bigint << 32 | l.objid::bigint = hashtextextended($1, 0)`, markOf(group, process))
	if err != nil {
		return 0, fmt.Errorf("end the sessions of process %s: %w", process, err)
	}
	ended, err := pgx.CollectRows(rows, pgx.RowTo[bool])
	if err != nil {
		return 0, fmt.Errorf("end the sessions of process %s: %w", process, err)
	}
	return len(ended), nil
}
