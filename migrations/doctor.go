package migrations

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"example.com/tiffin/internal/checkup"
	"example.com/tiffin/internal/pooling"
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
	v.session(ctx)
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

func (v *visit) session(ctx context.Context) {
	v.sheet.Check(ctx, "session", []string{"login"}, func(ctx context.Context) checkup.Finding {
		err := pooling.Check(ctx, v.conn)
		switch {
		case errors.Is(err, pooling.ErrNoSession):
			return checkup.Bad(pooling.Text, pooling.Fix)
		case errors.Is(err, pooling.ErrNoRoom):
			return checkup.Bad(err.Error(), "give the pooler more sessions (pgbouncer: default_pool_size = 20), or name the server itself in feedback.dsn")
		case err != nil:
			return checkup.Bad(err.Error(), "try again: tiffin doctor")
		}
		return checkup.Good("kept from one transaction to the next")
	})
}

func (v *visit) server(ctx context.Context) {
	var version int
	var recovery, readOnly bool
	v.sheet.Check(ctx, "version", []string{"session"}, func(ctx context.Context) checkup.Finding {
		err := v.conn.QueryRow(ctx, "SELECT current_setting('server_version_num')::int, pg_is_in_recovery(), current_setting('transaction_read_only')::bool").Scan(&version, &recovery, &readOnly)
		switch {
		case err != nil:
			return checkup.Bad("ask for the version: "+err.Error(), "try again: tiffin doctor")
		case version < oldestVersion:
			return checkup.Bad(fmt.Sprintf("PostgreSQL %d", version/10000), "PostgreSQL 14 or newer")
		}
		return checkup.Good(fmt.Sprintf("PostgreSQL %d.%d", version/10000, version%10000))
	})
	v.sheet.Check(ctx, "primary", []string{"version"}, func(context.Context) checkup.Finding {
		if recovery {
			return checkup.Bad("it is a standby", checkup.NameThePrimary("feedback.dsn"))
		}
		if readOnly {
			role, database := pgx.Identifier{v.conn.Config().User}.Sanitize(), pgx.Identifier{v.conn.Config().Database}.Sanitize()
			return checkup.Bad("default_transaction_read_only is on: nothing can be written",
				"ALTER ROLE "+role+" RESET default_transaction_read_only; -- where it is the database's: ALTER DATABASE "+database+" RESET default_transaction_read_only;, or the server's: in its postgresql.conf")
		}
		return checkup.Good("not in recovery, not read-only")
	})
	v.sheet.Check(ctx, "encoding", []string{"session"}, func(ctx context.Context) checkup.Finding {
		encoding, fits, err := encodingOf(ctx, v.conn)
		switch {
		case err != nil:
			return checkup.Bad(err.Error(), "try again: tiffin doctor")
		case !fits:
			return checkup.Bad(encoding+" does not hold every text of a campaign", makeUTF8)
		}
		return checkup.Good(encoding)
	})
}

func (v *visit) schema(ctx context.Context) {
	v.sheet.Check(ctx, "schema", []string{"version"}, func(ctx context.Context) checkup.Finding {
		var err error
		if v.found, err = look(ctx, v.conn, v.opts); err != nil {
			if errors.Is(err, ErrNewerSchema) {
				return checkup.Bad(err.Error(), "run the program that migrated it, or a newer one")
			}
			return checkup.Bad(err.Error(), v.migrate())
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
		delivered, err := hasDelivered(ctx, v.conn, v.found, v.opts)
		switch {
		case err != nil:
			return checkup.Bad(err.Error(), v.migrate())
		case delivered:
			return checkup.Bad(missed(v.opts), "set feedback.table: SCHEMA.NAME, or rename that table back; where its rows are to stay there: tiffin migrate")
		}
		return v.toBeMade(ctx, "table "+name+" does not exist", "SELECT coalesce(has_schema_privilege(to_regnamespace($1), 'CREATE'), false)", v.opts.FeedbackTable[:1].Sanitize())
	})
}

// toBeMade judges something that is missing: the daemon makes it if it is to, and may.
func (v *visit) toBeMade(ctx context.Context, text, may string, args ...any) checkup.Finding {
	fix := v.migrate()
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

// migrate is the command that makes what is missing, and the same for a DBA, where the daemon's role may not.
func (v *visit) migrate() string {
	config := v.conn.Config()
	return fmt.Sprintf("tiffin migrate, or for a DBA: tiffin migrate --print --role %s | psql -X -v ON_ERROR_STOP=1 -h %s -p %d -d %s",
		checkup.Word(config.User), checkup.Word(config.Host), config.Port, checkup.Word(config.Database))
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
		if err != nil {
			return checkup.Bad(err.Error(), "try again: tiffin doctor")
		}
		return v.verdictOf(checkColumns(name, columns), "all that the contract names, of types that fit")
	}))
	v.sheet.Check(ctx, "rights", []string{"table"}, absent(func(ctx context.Context) checkup.Finding {
		lacking, err := checkRights(ctx, v.conn, v.opts.FeedbackTable)
		if err != nil {
			return checkup.Bad(err.Error(), "try again: tiffin doctor")
		}
		return v.verdictOf(lacking, "role "+v.conn.Config().User+" may do all that is needed")
	}))
	v.sheet.Check(ctx, "logged", []string{"rights"}, absent(func(ctx context.Context) checkup.Finding {
		unlogged, err := checkLogged(ctx, v.conn, v.opts.FeedbackTable)
		if err != nil {
			return checkup.Bad(err.Error(), "try again: tiffin doctor")
		}
		return v.verdictOf(unlogged, "its rows survive a crash of the server")
	}))
	v.sheet.Check(ctx, "indexes", []string{"rights"}, absent(func(ctx context.Context) checkup.Finding {
		return v.costly(ctx, "an index costs about a quarter of the insert rate", indexesSQL)
	}))
	v.sheet.Check(ctx, "triggers", []string{"rights"}, absent(func(ctx context.Context) checkup.Finding {
		return v.costly(ctx, "it runs for each delivery, a foreign key locks a row of the other table, and rows that are refused become dead letters or stop the stream", triggersSQL)
	}))
	v.sheet.Check(ctx, "row_security", []string{"rights"}, absent(v.rowSecurity))
}

func (v *visit) rowSecurity(ctx context.Context) checkup.Finding {
	var active bool
	if err := v.conn.QueryRow(ctx, "SELECT row_security_active($1::regclass)", v.opts.FeedbackTable.Sanitize()).Scan(&active); err != nil {
		return checkup.Bad(err.Error(), "try again: tiffin doctor")
	}
	if active {
		role := pgx.Identifier{v.conn.Config().User}.Sanitize()
		return checkup.Bad("row-level security holds for role "+v.conn.Config().User+": rows may be refused, or hidden when records are rebuilt", "ALTER ROLE "+role+" BYPASSRLS;")
	}
	return checkup.Good("none for this role")
}

// verdictOf splits an error of several lines, each of which ends with its fix, at the last colon that
// begins a statement.
func (v *visit) verdictOf(err error, good string) checkup.Finding {
	if err == nil {
		return checkup.Good(good)
	}
	var texts, statements, others []string
	for line := range strings.SplitSeq(err.Error(), "\n") {
		text, fix := line, ""
		for _, begins := range []string{": ALTER ", ": GRANT "} {
			if i := strings.LastIndex(line, begins); i >= 0 {
				text, fix = line[:i], line[i+2:]
			}
		}
		texts = append(texts, text)
		statement, other, _ := strings.Cut(fix, ", or ")
		if statement != "" {
			statements = append(statements, statement+";")
		}
		if other != "" && !slices.Contains(others, other) {
			others = append(others, other)
		}
	}
	fix := strings.Join(statements, " ")
	switch {
	case fix == "":
		fix = "name another table in feedback.table; the one that is wanted: tiffin migrate --print --role " + checkup.Word(v.conn.Config().User)
	case len(others) > 0:
		fix += " -- or " + strings.Join(others, ", or ")
	}
	return checkup.Bad(strings.Join(texts, "; "), fix)
}

// treeSQL is the table and what is below it: rows are inserted into the partitions. What a partition has
// because the table has it can be dropped there only, and is passed over by the queries.
const treeSQL = "WITH tree AS (SELECT $1::regclass AS rel UNION SELECT relid FROM pg_partition_tree($1::regclass)) "

const indexesSQL = treeSQL + `
	SELECT i.indexrelid::regclass::text,
		CASE WHEN c.conname IS NULL THEN format('DROP INDEX %s;', i.indexrelid::regclass) ELSE format('ALTER TABLE %s DROP CONSTRAINT %I;', i.indrelid::regclass, c.conname) END
	FROM pg_index i JOIN tree ON tree.rel = i.indrelid JOIN pg_class x ON x.oid = i.indexrelid
		LEFT JOIN pg_constraint c ON c.conindid = i.indexrelid AND c.conrelid = i.indrelid AND c.contype IN ('u', 'x')
	WHERE NOT i.indisprimary AND NOT x.relispartition ORDER BY 1`

// triggersSQL leaves out a partition's triggers for each statement: a statement names the table. The
// triggers of a foreign key are internal ones (bit 0 of tgtype: for each row).
const triggersSQL = treeSQL + `
	SELECT format('trigger %s on %s', t.tgname, t.tgrelid::regclass), format('DROP TRIGGER %I ON %s;', t.tgname, t.tgrelid::regclass)
	FROM pg_trigger t JOIN tree ON tree.rel = t.tgrelid
	WHERE NOT t.tgisinternal AND t.tgparentid = 0 AND (t.tgtype & 1 = 1 OR t.tgrelid = $1::regclass)
	UNION ALL
	SELECT format('foreign key %s on %s', c.conname, c.conrelid::regclass), format('ALTER TABLE %s DROP CONSTRAINT %I;', c.conrelid::regclass, c.conname)
	FROM pg_constraint c JOIN tree ON tree.rel = c.conrelid
	WHERE c.contype = 'f' AND c.conparentid = 0 ORDER BY 1`

// costly warns of things on the table that make each delivery dearer. The query gives their names, and
// the statements that remove them.
func (v *visit) costly(ctx context.Context, why, query string) checkup.Finding {
	rows, err := v.conn.Query(ctx, query, v.opts.FeedbackTable.Sanitize())
	if err != nil {
		return checkup.Bad(err.Error(), "try again: tiffin doctor")
	}
	var names, statements []string
	var name, statement string
	_, err = pgx.ForEachRow(rows, []any{&name, &statement}, func() error {
		names, statements = append(names, name), append(statements, statement)
		return nil
	})
	switch {
	case err != nil:
		return checkup.Bad(err.Error(), "try again: tiffin doctor")
	case len(names) > 0:
		return checkup.Odd(strings.Join(names, ", ")+": "+why, strings.Join(statements, " ")+" -- unless needed")
	}
	return checkup.Good("none that cost")
}
