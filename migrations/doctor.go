package migrations

import (
	"context"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"

	"example.com/tiffin/internal/checkup"
)

// Examine checks everything that the daemon will need of the feedback database, one line each, and
// changes nothing. config leads to it as the daemon does; migrates says that the daemon is to make what
// is missing (feedback.migrate).
func Examine(ctx context.Context, config *pgx.ConnConfig, opts Options, migrates bool, sheet *checkup.Sheet) error {
	if err := opts.validate(); err != nil {
		return err
	}
	sheet.Area("feedback")
	v := &visit{opts: opts, migrates: migrates, sheet: sheet}
	if v.conn = checkup.Postgres(ctx, sheet, config, "feedback.dsn"); v.conn != nil {
		defer func() { _ = v.conn.Close(context.WithoutCancel(ctx)) }() // nothing of ours is open on it
	}
	v.server(ctx)
	v.schema(ctx)
	v.table(ctx)
	return nil
}

// visit is the doctor's to the feedback database.
type visit struct {
	opts     Options
	migrates bool
	sheet    *checkup.Sheet
	conn     *pgx.Conn
	found    state
}

// oldestVersion is the first server_version_num with int8multirange, which the manifest needs.
const oldestVersion = 140000

func (v *visit) server(ctx context.Context) {
	var version int
	var recovery bool
	v.sheet.Check(ctx, "version", []string{"login"}, func(ctx context.Context) checkup.Finding {
		err := v.conn.QueryRow(ctx, "SELECT current_setting('server_version_num')::int, pg_is_in_recovery()").Scan(&version, &recovery)
		switch {
		case err != nil:
			return checkup.Bad("ask for the version: "+err.Error(), "try again")
		case version < oldestVersion:
			return checkup.Bad(fmt.Sprintf("PostgreSQL %d", version/10000), "PostgreSQL 14 or newer")
		}
		return checkup.Good(fmt.Sprintf("PostgreSQL %d.%d", version/10000, version%10000))
	})
	v.sheet.Check(ctx, "primary", []string{"version"}, func(context.Context) checkup.Finding {
		if recovery {
			return checkup.Bad("it is a standby", "name the primary in feedback.dsn (or several hosts and target_session_attrs=primary)")
		}
		return checkup.Good("not in recovery")
	})
}

func (v *visit) schema(ctx context.Context) {
	v.sheet.Check(ctx, "schema", []string{"version"}, func(ctx context.Context) checkup.Finding {
		var err error
		if v.found, err = look(ctx, v.conn, v.opts); err != nil {
			return checkup.Bad(err.Error(), "tiffin migrate --print --role ROLE, for a DBA")
		}
		if v.found.version == v.found.known {
			return checkup.Good(fmt.Sprintf("tiffin, version %d", v.found.version))
		}
		return v.toBeMade(ctx, fmt.Sprintf("schema tiffin has version %d, %d is needed", v.found.version, v.found.known),
			"SELECT CASE WHEN $1 THEN pg_has_role((SELECT nspowner FROM pg_namespace WHERE nspname = 'tiffin'), 'USAGE') ELSE has_database_privilege(current_database(), 'CREATE') END",
			v.found.schema)
	})
	v.sheet.Check(ctx, "table", []string{"schema"}, func(ctx context.Context) checkup.Finding {
		name := v.opts.FeedbackTable.Sanitize()
		if v.found.feedbackTable {
			return checkup.Good(name)
		}
		return v.toBeMade(ctx, "table "+name+" does not exist", "SELECT coalesce(has_schema_privilege(to_regnamespace($1), 'CREATE'), false)", v.opts.FeedbackTable[:1].Sanitize())
	})
}

// toBeMade judges something that is missing: the daemon makes it if it is to, and may.
func (v *visit) toBeMade(ctx context.Context, text, may string, args ...any) checkup.Finding {
	const fix = "tiffin migrate, or for a DBA: tiffin migrate --print --role ROLE | psql -X -v ON_ERROR_STOP=1 DATABASE"
	if !v.migrates {
		return checkup.Bad(text+", and feedback.migrate is false", fix)
	}
	var permitted bool
	if err := v.conn.QueryRow(ctx, may, args...).Scan(&permitted); err != nil {
		return checkup.Bad(text+": "+err.Error(), fix)
	}
	if !permitted {
		return checkup.Bad(text+", and role "+v.conn.Config().User+" may not make it", fix)
	}
	return checkup.Odd(text+"; the daemon makes it", fix)
}

func (v *visit) table(ctx context.Context) {
	name := v.opts.FeedbackTable.Sanitize()
	absent := func(check func(context.Context) checkup.Finding) func(context.Context) checkup.Finding {
		return func(ctx context.Context) checkup.Finding {
			if !v.found.current() {
				return checkup.Good("will be as the daemon makes it")
			}
			return check(ctx)
		}
	}
	v.sheet.Check(ctx, "columns", []string{"table"}, absent(func(ctx context.Context) checkup.Finding {
		columns, err := readColumns(ctx, v.conn, v.opts.FeedbackTable)
		if err == nil {
			err = checkColumns(name, columns)
		}
		return verdictOf(err, "all that the contract names, of types that fit")
	}))
	v.sheet.Check(ctx, "rights", []string{"table"}, absent(func(ctx context.Context) checkup.Finding {
		lacking, err := checkRights(ctx, v.conn, v.opts.FeedbackTable)
		if err == nil {
			err = lacking
		}
		return verdictOf(err, "role "+v.conn.Config().User+" may do all that is needed")
	}))
	v.sheet.Check(ctx, "indexes", []string{"table"}, absent(func(ctx context.Context) checkup.Finding {
		return v.costly(ctx, "an index costs about a quarter of the insert rate", "DROP INDEX, unless it is needed",
			"SELECT i.indexrelid::regclass::text FROM pg_index i WHERE i.indrelid = $1::regclass AND NOT i.indisprimary ORDER BY 1")
	}))
	v.sheet.Check(ctx, "triggers", []string{"table"}, absent(func(ctx context.Context) checkup.Finding {
		return v.costly(ctx, "a trigger runs for each delivery, and a row that it refuses stops the stream", "DROP TRIGGER, unless it is needed",
			"SELECT t.tgname::text FROM pg_trigger t WHERE t.tgrelid = $1::regclass AND NOT t.tgisinternal ORDER BY 1")
	}))
	v.sheet.Check(ctx, "row_security", []string{"table"}, absent(func(ctx context.Context) checkup.Finding {
		var active bool
		if err := v.conn.QueryRow(ctx, "SELECT row_security_active($1::regclass)", name).Scan(&active); err != nil {
			return checkup.Bad(err.Error(), "try again")
		}
		if active {
			role := pgx.Identifier{v.conn.Config().User}.Sanitize()
			return checkup.Bad("row-level security holds for role "+v.conn.Config().User+": rows may be refused, or hidden when records are rebuilt", "ALTER ROLE "+role+" BYPASSRLS;")
		}
		return checkup.Good("none for this role")
	}))
}

// verdictOf splits an error of several lines, each of which ends with its fix, at the last colon that
// begins a statement or a command.
func verdictOf(err error, good string) checkup.Finding {
	if err == nil {
		return checkup.Good(good)
	}
	var texts, fixes []string
	for line := range strings.SplitSeq(err.Error(), "\n") {
		text, fix := line, ""
		for _, begins := range []string{": ALTER ", ": GRANT "} {
			if i := strings.LastIndex(line, begins); i >= 0 {
				text, fix = line[:i], line[i+2:]
			}
		}
		texts = append(texts, text)
		if fix != "" {
			fixes = append(fixes, fix+";")
		}
	}
	return checkup.Bad(strings.Join(texts, "; "), strings.Join(fixes, " "))
}

// costly warns of things on the table that make each delivery dearer.
func (v *visit) costly(ctx context.Context, why, fix, query string) checkup.Finding {
	rows, err := v.conn.Query(ctx, query, v.opts.FeedbackTable.Sanitize())
	if err != nil {
		return checkup.Bad(err.Error(), "try again")
	}
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	switch {
	case err != nil:
		return checkup.Bad(err.Error(), "try again")
	case len(names) > 0:
		return checkup.Odd(strings.Join(names, ", ")+": "+why, fix)
	}
	return checkup.Good("none that cost")
}
