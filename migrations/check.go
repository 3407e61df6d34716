package migrations

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
)

// Check reports everything in the feedback database that keeps the daemon from working, each
// with its fix: a schema that is not current, a feedback table without the contract's
// columns, a right that the connection's role lacks. It only reads.
func Check(ctx context.Context, conn *pgx.Conn, opts Options) error {
	if err := opts.validate(); err != nil {
		return err
	}
	found, err := look(ctx, conn, opts)
	if err != nil {
		return err
	}
	if found.version < found.known {
		return unfit("schema tiffin of the feedback database has version %d, this program needs %d: run `tiffin migrate`",
			found.version, found.known)
	}
	if !found.feedbackTable {
		if err := mayBeMade(ctx, conn, found, opts); err != nil {
			return err
		}
		return unfit("feedback table %s does not exist: run `tiffin migrate`, or set feedback.table", opts.FeedbackTable.Sanitize())
	}
	encoding, fits, err := encodingOf(ctx, conn)
	if err != nil {
		return fmt.Errorf("ask for the encoding of the feedback database: %w", err)
	}
	if !fits {
		return unfit("the feedback database is encoded in %s, which does not hold every text of a campaign; fix: %s", encoding, makeUTF8)
	}
	columns, err := readColumns(ctx, conn, opts.FeedbackTable)
	if err != nil {
		return err
	}
	rights, err := checkRights(ctx, conn, opts.FeedbackTable)
	if err != nil {
		return err
	}
	var unlogged error
	if rights == nil { // it is asked by the table's name, which a schema one may not use hides
		if unlogged, err = checkLogged(ctx, conn, opts.FeedbackTable); err != nil {
			return err
		}
	}
	if faults := errors.Join(checkColumns(opts.FeedbackTable.Sanitize(), columns), unlogged, rights); faults != nil {
		return verdict{faults}
	}
	return nil
}

type column struct {
	name       string
	base       string // the type's name, a domain's base type
	shown      string // the type as Postgres shows it
	notNull    bool
	hasDefault bool   // a default, an identity or a generated value
	sequence   bool   // an identity, or a default that draws on a sequence
	downwards  string // that sequence, where it counts downwards
	generated  bool   // GENERATED ALWAYS AS (expression): cannot be written
}

func readColumns(ctx context.Context, conn *pgx.Conn, table pgx.Identifier) ([]column, error) {
	rows, err := conn.Query(ctx, `
		SELECT a.attname, coalesce(b.typname, t.typname), pg_catalog.format_type(a.atttypid, a.atttypmod),
		       a.attnotnull, a.atthasdef OR a.attidentity <> '', a.attgenerated <> '',
		       a.attidentity <> '' OR coalesce(pg_catalog.pg_get_expr(f.adbin, f.adrelid) LIKE '%nextval(%', false),
		       coalesce((SELECT q.seqrelid::pg_catalog.regclass::text FROM pg_catalog.pg_sequence q JOIN pg_catalog.pg_depend d ON q.seqincrement < 0
		         AND (d.classid = 'pg_catalog.pg_attrdef'::pg_catalog.regclass AND d.objid = f.oid AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.refobjid = q.seqrelid
		           OR a.attidentity <> '' AND d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objid = q.seqrelid AND d.refobjid = a.attrelid AND d.refobjsubid = a.attnum)
		         LIMIT 1), '')
		  FROM pg_catalog.pg_attribute a
		  JOIN pg_catalog.pg_class c ON c.oid = a.attrelid
		  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
		  JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
		  LEFT JOIN pg_catalog.pg_attrdef f ON f.adrelid = a.attrelid AND f.adnum = a.attnum
		  LEFT JOIN pg_catalog.pg_type b ON t.typtype = 'd' AND b.oid = t.typbasetype
		 WHERE n.nspname = $1 AND c.relname = $2 AND a.attnum > 0 AND NOT a.attisdropped
		 ORDER BY a.attnum`, table[0], table[1])
	if err != nil {
		return nil, fmt.Errorf("read the columns of feedback table %s: %w", table.Sanitize(), err)
	}
	columns, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (column, error) {
		var c column
		err := row.Scan(&c.name, &c.base, &c.shown, &c.notNull, &c.hasDefault, &c.generated, &c.sequence, &c.downwards)
		return c, err
	})
	if err != nil {
		return nil, fmt.Errorf("read the columns of feedback table %s: %w", table.Sanitize(), err)
	}
	return columns, nil
}

// wanted are the columns of the contract, with the types that take what is written to them.
func wanted() []struct{ name, want string } {
	return []struct{ name, want string }{
		{"id", "id"},
		{"restaurant_id", "text"},
		{"adv_campaign_id", "text"},
		{"adv_campaign_content", "text"},
		{"adv_campaign_owner", "text"},
		{"adv_campaign_owner_contact", "text"},
		{"adv_campaign_datetime_start", "bigint"},
		{"adv_campaign_datetime_end", "bigint"},
		{"datetime_created", "bigint"},
		{"client_id", "text"},
		{"trigger_datetime_created", "bigint"},
		{"feedback", "text"},
	}
}

// checkColumns is pure: it holds the columns that were found against those of the contract.
func checkColumns(table string, columns []column) error {
	var faults []error
	known := make(map[string]bool, len(columns))
	for _, w := range wanted() {
		known[w.name] = true
		i := slices.IndexFunc(columns, func(c column) bool { return c.name == w.name })
		if i < 0 {
			faults = append(faults, missingColumn(table, w.name, w.want))
			continue
		}
		faults = append(faults, checkColumn(table, columns[i], w.want))
	}
	for _, c := range columns {
		if !known[c.name] && c.notNull && !c.hasDefault {
			faults = append(faults, fmt.Errorf(
				"feedback table %s: column %s is NOT NULL without a default, so that no row can be inserted: ALTER TABLE %s ALTER COLUMN %s SET DEFAULT …",
				table, c.name, table, pgx.Identifier{c.name}.Sanitize()))
		}
	}
	return errors.Join(faults...)
}

func missingColumn(table, name, want string) error {
	kind := want
	switch name {
	case "id":
		kind = "bigint GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY"
	case "feedback":
		kind = "varchar"
	}
	return fmt.Errorf("feedback table %s: column %s is missing: ALTER TABLE %s ADD COLUMN %s %s, or set feedback.table",
		table, name, table, name, kind)
}

func checkColumn(table string, c column, want string) error {
	switch {
	case want == "id" && c.base != "int8" && c.base != "int4":
		return fmt.Errorf("feedback table %s: column id is %s, want bigint or integer: ids name the rows of a campaign message", table, c.shown)
	case want == "id" && !c.hasDefault:
		return fmt.Errorf("feedback table %s: column id has no identity and no default: ALTER TABLE %s %s", table, table, makeIdentity(table, c))
	case want == "id" && !c.sequence:
		return fmt.Errorf("feedback table %s: column id is fed by no sequence: ALTER TABLE %s ALTER COLUMN id DROP DEFAULT, %s", table, table, makeIdentity(table, c))
	case want == "id" && c.downwards != "":
		return fmt.Errorf("feedback table %s: the sequence of column id counts downwards, and rows are found by rising ids: ALTER SEQUENCE %s INCREMENT BY 1", table, c.downwards)
	case want == "bigint" && c.base != "int8":
		return fmt.Errorf("feedback table %s: column %s is %s, want bigint: ALTER TABLE %s ALTER COLUMN %s TYPE bigint",
			table, c.name, c.shown, table, c.name)
	case want == "text" && c.base != "text" && c.base != "varchar":
		return fmt.Errorf("feedback table %s: column %s is %s, want text or varchar: ALTER TABLE %s ALTER COLUMN %s TYPE text",
			table, c.name, c.shown, table, c.name)
	case c.generated:
		return fmt.Errorf("feedback table %s: column %s is generated from other columns and cannot be written: ALTER TABLE %s ALTER COLUMN %s DROP EXPRESSION",
			table, c.name, table, c.name)
	}
	return nil
}

// makeIdentity is what gives the column id a sequence, behind the rows that are there: a new one begins at 1.
func makeIdentity(table string, id column) string {
	notNull := ""
	if !id.notNull { // as an identity must be
		notNull = "ALTER COLUMN id SET NOT NULL, "
	}
	return fmt.Sprintf("%sALTER COLUMN id ADD GENERATED BY DEFAULT AS IDENTITY; SELECT setval(pg_get_serial_sequence('%s', 'id'), (SELECT max(id) FROM %s))",
		notNull, strings.ReplaceAll(table, "'", "''"), table)
}

// checkLogged names in unlogged what of the table a crash of the server would empty.
func checkLogged(ctx context.Context, conn *pgx.Conn, table pgx.Identifier) (unlogged, err error) {
	rows, err := conn.Query(ctx, treeSQL+`SELECT tree.rel::regclass::text FROM tree JOIN pg_catalog.pg_class c ON c.oid = tree.rel
		WHERE c.relpersistence <> 'p' AND c.relkind = 'r' ORDER BY 1`, table.Sanitize())
	if err != nil {
		return nil, fmt.Errorf("ask whether feedback table %s is logged: %w", table.Sanitize(), err)
	}
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, fmt.Errorf("ask whether feedback table %s is logged: %w", table.Sanitize(), err)
	}
	var faults []error
	for _, name := range names {
		faults = append(faults, fmt.Errorf("feedback table %s: a crash of the server empties %s, which is unlogged: ALTER TABLE %s SET LOGGED", table.Sanitize(), name, name))
	}
	return errors.Join(faults...), nil
}

// checkRights names in lacking every right that the daemon needs and the connection's role lacks.
func checkRights(ctx context.Context, conn *pgx.Conn, table pgx.Identifier) (lacking, err error) {
	// The daemon asks the sequence where it is, before and behind the rows: also that of an identity column, of
	// which an INSERT alone needs no right. A schema one may not use hides what is in it: the second half
	// of each condition is asked only where the first holds.
	rows, err := conn.Query(ctx, `
		WITH ids AS (
			SELECT pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(s.relname) AS name, pg_catalog.has_sequence_privilege(s.oid, 'USAGE') AS held
			FROM pg_catalog.pg_class s
			JOIN pg_catalog.pg_namespace n ON n.oid = s.relnamespace
			JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_class'::regclass AND d.objid = s.oid AND d.deptype IN ('a', 'i')
			JOIN pg_catalog.pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid AND a.attname = 'id'
			JOIN pg_catalog.pg_class c ON c.oid = a.attrelid
			WHERE s.relkind = 'S' AND c.relname = $2 AND c.relnamespace = (SELECT oid FROM pg_catalog.pg_namespace WHERE nspname = $1))
		SELECT what FROM (VALUES
			(1, 'USAGE ON SCHEMA tiffin', pg_catalog.has_schema_privilege('tiffin', 'USAGE')),
			(2, 'USAGE ON SCHEMA ' || pg_catalog.quote_ident($1), pg_catalog.has_schema_privilege($1, 'USAGE')),
			(3, 'SELECT, INSERT, UPDATE ON tiffin.progress', (SELECT bool_and(pg_catalog.has_table_privilege(c.oid, p))
				FROM pg_catalog.pg_class c, unnest(ARRAY['SELECT', 'INSERT', 'UPDATE']) p
				WHERE c.relnamespace = (SELECT oid FROM pg_catalog.pg_namespace WHERE nspname = 'tiffin') AND c.relname = 'progress')),
			(4, 'SELECT, INSERT ON tiffin.trigger', (SELECT bool_and(pg_catalog.has_table_privilege(c.oid, p))
				FROM pg_catalog.pg_class c, unnest(ARRAY['SELECT', 'INSERT']) p
				WHERE c.relnamespace = (SELECT oid FROM pg_catalog.pg_namespace WHERE nspname = 'tiffin') AND c.relname = 'trigger')),
			(5, 'SELECT, INSERT ON ' || $3, (SELECT bool_and(pg_catalog.has_table_privilege(c.oid, p))
				FROM pg_catalog.pg_class c, unnest(ARRAY['SELECT', 'INSERT']) p
				WHERE c.relnamespace = (SELECT oid FROM pg_catalog.pg_namespace WHERE nspname = $1) AND c.relname = $2)),
			(6, 'USAGE ON SEQUENCE ' || (SELECT pg_catalog.string_agg(name, ', ') FROM ids), (SELECT bool_and(held) FROM ids))
		) AS needed (n, what, held) WHERE NOT coalesce(held, true) ORDER BY n`,
		table[0], table[1], table.Sanitize())
	if err != nil {
		return nil, fmt.Errorf("ask for the rights in the feedback database: %w", err)
	}
	missing, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, fmt.Errorf("ask for the rights in the feedback database: %w", err)
	}
	var faults []error
	for _, what := range missing {
		faults = append(faults, fmt.Errorf("the role %s of feedback.dsn lacks a right: GRANT %s TO %s",
			conn.Config().User, what, pgx.Identifier{conn.Config().User}.Sanitize()))
	}
	return errors.Join(faults...), nil
}

const makeUTF8 = "CREATE DATABASE tiffin_feedback ENCODING 'UTF8' TEMPLATE template0; -- or another name, in feedback.dsn"

// encodingOf is the database's encoding, and whether it holds every text of JSON.
func encodingOf(ctx context.Context, conn *pgx.Conn) (encoding string, fits bool, err error) {
	err = conn.QueryRow(ctx, "SHOW server_encoding").Scan(&encoding)
	return encoding, encoding == "UTF8" || encoding == "SQL_ASCII", err // which takes bytes as they are
}
