package migrations

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/tern/v2/migrate"
)

// SQLSTATE codes (Postgres: src/backend/utils/errcodes.txt).
const (
	readOnlyTransaction   = "25006"
	invalidSchemaName     = "3F000"
	insufficientPrivilege = "42501"
)

// state is what a feedback database holds of ours.
type state struct {
	schema        bool  // schema tiffin exists
	version       int32 // 0: nothing yet
	known         int32 // the version that this program brings it to
	feedbackTable bool  // a relation of that name exists
}

func (s state) current() bool { return s.version == s.known && s.feedbackTable }

// look reads the state of the database; it takes no lock and needs no right to create.
func look(ctx context.Context, conn *pgx.Conn, opts Options) (state, error) {
	found := state{}
	var err error
	if found.known, err = knownVersion(); err != nil {
		return state{}, err
	}
	var versions bool
	err = conn.QueryRow(ctx, `
		SELECT EXISTS (SELECT FROM pg_catalog.pg_namespace WHERE nspname = 'tiffin'),
		       EXISTS (SELECT FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
		                WHERE n.nspname = 'tiffin' AND c.relname = 'schema_version'),
		       EXISTS (SELECT FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
		                WHERE n.nspname = $1 AND c.relname = $2)`,
		opts.FeedbackTable[0], opts.FeedbackTable[1],
	).Scan(&found.schema, &versions, &found.feedbackTable)
	if err != nil {
		return state{}, fmt.Errorf("look for schema tiffin and the feedback table: %w", err)
	}
	if versions {
		err = conn.QueryRow(ctx, "SELECT version FROM "+versionTable).Scan(&found.version)
		// tern creates the table and fills it in one implicit transaction, so it has a row.
		if err != nil {
			return state{}, withFix(fmt.Errorf("read table %s: %w", versionTable, err))
		}
	}
	if found.version > found.known {
		return state{}, unfit(
			"schema tiffin of the feedback database has version %d, this program knows up to %d: %w: run the newer tiffin that migrated it",
			found.version, found.known, ErrNewerSchema)
	}
	return found, nil
}

func knownVersion() (int32, error) {
	sqlFiles, err := fs.Sub(files, "sql")
	if err != nil {
		return 0, fmt.Errorf("read the embedded migrations: %w", err)
	}
	names, err := migrate.FindMigrations(sqlFiles)
	if err != nil {
		return 0, fmt.Errorf("read the embedded migrations: %w", err)
	}
	return int32(len(names)), nil
}

// withFix adds what an operator can do, where the server's code tells.
func withFix(err error) error {
	if pgErr, ok := errors.AsType[*pgconn.PgError](err); ok {
		switch pgErr.Code {
		case insufficientPrivilege:
			return unfit("%w: have a DBA run what `tiffin migrate --print --role ROLE` shows", err)
		case invalidSchemaName:
			return unfit("%w: create that schema, or set feedback.table to one that exists", err)
		case readOnlyTransaction:
			return unfit("%w: feedback.dsn leads to a standby, and must lead to the primary; or default_transaction_read_only is on, for the role, the database or the server", err)
		}
	}
	return err
}
