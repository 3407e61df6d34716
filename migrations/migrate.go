package migrations

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/tern/v2/migrate"

	"example.com/tiffin/internal/pooling"
)

// versionTable is where tern keeps the number of the last migration applied.
const versionTable = "tiffin.schema_version"

// lockKey is the advisory lock that processes migrating the same database take in turn.
// Advisory locks have no names: the number only has to be one that nobody else uses.
const lockKey int64 = 0x74696666696e // "tiffin"

//go:embed sql/*.sql
var files embed.FS

// Options says what the feedback database is to hold.
type Options struct {
	// FeedbackTable is the feedback table, as schema and name.
	FeedbackTable pgx.Identifier
	// Role is the database role that SQL grants the daemon's rights to; empty for none.
	// Migrate grants nothing: whoever creates the tables there owns them.
	Role string
	// Group is that whose deliveries forbid to make the feedback table anew: their rows are somewhere else. Empty: it is
	// made in any case.
	Group string
}

// Report says what Migrate found and did.
type Report struct {
	// From and To are the schema's versions before and after; 0 is an empty database.
	From, To int32
	// Applied are the names of the migrations that were run, in order.
	Applied []string
	// CreatedFeedbackTable says that the feedback table was missing.
	CreatedFeedbackTable bool
}

// Changed reports whether the database was written to.
func (r Report) Changed() bool { return r.From != r.To || r.CreatedFeedbackTable }

// ErrUnfit is wrapped when the database was looked at and does not do: waiting does not help.
var ErrUnfit = errors.New("the feedback database does not fit")

// ErrNewerSchema is wrapped, besides ErrUnfit, when the database was migrated by a newer
// tiffin than this one.
var ErrNewerSchema = errors.New("the schema is newer than this program")

// verdict is an error that is ErrUnfit and says so in its own words only.
type verdict struct{ error }

func (v verdict) Is(target error) bool { return target == ErrUnfit }
func (v verdict) Unwrap() error        { return v.error }

func unfit(format string, args ...any) error { return verdict{fmt.Errorf(format, args...)} }

// Migrate brings the feedback database to the version that this program knows and creates
// the feedback table if it is missing, unless Options.Group has delivered already. Where nothing is to do it only reads, and needs no
// right to create. Processes that migrate at once take turns by a lock of conn's session: a pooler that
// keeps none is refused (pooling.ErrNoSession).
func Migrate(ctx context.Context, conn *pgx.Conn, opts Options) (Report, error) {
	if err := opts.validate(); err != nil {
		return Report{}, err
	}
	if err := pooling.Check(ctx, conn); errors.Is(err, pooling.ErrNoSession) {
		return Report{}, verdict{err} // the lock would stay with whoever has the session next
	} else if err != nil {
		return Report{}, err
	}
	found, err := look(ctx, conn, opts)
	if err != nil {
		return Report{}, err
	}
	if found.current() {
		return Report{From: found.version, To: found.version}, nil
	}
	return migrateLocked(ctx, conn, opts)
}

func (o Options) validate() error {
	if len(o.FeedbackTable) != 2 || o.FeedbackTable[0] == "" || o.FeedbackTable[1] == "" {
		return fmt.Errorf("feedback table %q: want a schema and a name", o.FeedbackTable.Sanitize())
	}
	return nil
}

func migrateLocked(ctx context.Context, conn *pgx.Conn, opts Options) (report Report, err error) {
	if _, err := conn.Exec(ctx, "SELECT pg_advisory_lock($1)", lockKey); err != nil {
		return Report{}, fmt.Errorf("lock the feedback database for migration: %w", err)
	}
	defer func() {
		// A closed session has released the lock by itself.
		if _, unlockErr := conn.Exec(ctx, "SELECT pg_advisory_unlock($1)", lockKey); err == nil && unlockErr != nil {
			err = fmt.Errorf("unlock the feedback database after migration: %w", unlockErr)
		}
	}()

	// Another process may have done it all while this one waited for the lock.
	found, err := look(ctx, conn, opts)
	if err != nil {
		return Report{}, err
	}
	report = Report{From: found.version, To: found.version}
	if err := upgrade(ctx, conn, found, &report); err != nil {
		return report, withFix(err)
	}
	if !found.feedbackTable {
		if err := mayBeMade(ctx, conn, found, opts); err != nil {
			return report, err
		}
		if _, err := conn.Exec(ctx, feedbackTableSQL(opts.FeedbackTable)); err != nil {
			return report, withFix(fmt.Errorf("create feedback table %s: %w", opts.FeedbackTable.Sanitize(), err))
		}
		report.CreatedFeedbackTable = true
	}
	return report, nil
}

// mayBeMade returns why the feedback table is not to be made anew. A table that somebody renamed, or a setting that was changed,
// would get an empty one, and records that are still owed would never be sent: their rows are in the other.
func mayBeMade(ctx context.Context, conn *pgx.Conn, found state, opts Options) error {
	delivered, err := hasDelivered(ctx, conn, found, opts)
	if err == nil && delivered {
		err = unfit("%s", missed(opts))
	}
	return err
}

func missed(opts Options) string {
	return fmt.Sprintf("feedback table %s does not exist, though group %s has delivered: its rows are in a table of another name. "+
		"Rename that back, or name it in feedback.table; where the rows are to stay there: tiffin migrate", opts.FeedbackTable.Sanitize(), opts.Group)
}

// hasDelivered reports whether the manifest has a message of the group that has rows.
func hasDelivered(ctx context.Context, conn *pgx.Conn, found state, opts Options) (delivered bool, err error) {
	if found.version == 0 || opts.Group == "" {
		return false, nil
	}
	err = conn.QueryRow(ctx, "SELECT EXISTS (SELECT FROM tiffin.trigger WHERE consumer_group = $1 AND recipients > 0)", opts.Group).Scan(&delivered)
	if err != nil {
		err = withFix(fmt.Errorf("look for what group %s has delivered: %w", opts.Group, err))
	}
	return delivered, err
}

func upgrade(ctx context.Context, conn *pgx.Conn, found state, report *Report) error {
	if found.version == found.known {
		return nil
	}
	if !found.schema {
		// Not IF NOT EXISTS: that asks for the right to create even where nothing is created.
		if _, err := conn.Exec(ctx, "CREATE SCHEMA tiffin"); err != nil {
			return fmt.Errorf("create schema tiffin: %w", err)
		}
	}
	migrator, err := migrate.NewMigrator(ctx, conn, versionTable)
	if err != nil {
		return fmt.Errorf("create table %s: %w", versionTable, err)
	}
	sqlFiles, err := fs.Sub(files, "sql")
	if err != nil {
		return fmt.Errorf("read the embedded migrations: %w", err)
	}
	if err := migrator.LoadMigrations(sqlFiles); err != nil {
		return fmt.Errorf("read the embedded migrations: %w", err)
	}
	migrator.OnStart = func(_ int32, name, _, _ string) { report.Applied = append(report.Applied, name) }
	if err := migrator.Migrate(ctx); err != nil {
		return fmt.Errorf("migrate schema tiffin from version %d to %d: %w", found.version, found.known, err)
	}
	report.To = found.known
	return nil
}
