package cdc

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"

	"github.com/jackc/pgx/v5"

	"example.com/tiffin/cache"
)

// footing asks for what an index stands on and the log does not tell: the server's timeline,
// which table the name means, its needed columns, its partitions, and the publication as it was
// last altered. A fence asks for it with the position, so that none passes between a DROP
// TABLE, an ALTER PUBLICATION or a failover and the warden's next look.
type footing struct {
	table, publication string
	// question is the expression that asks, for the server and the table as they were found.
	question atomic.Pointer[string]
	// system is the server's identifier as the reader knows it, trusted the ground that the
	// index was loaded on, or that the warden found as good; nil while there is no index.
	system  atomic.Pointer[string]
	trusted atomic.Pointer[ground]
}

// errFooting says that something moved under the index, or that nobody has looked yet.
var errFooting = errors.New("table, publication and timeline are yet to be compared with those of the index")

// learn fits the question to a server's version and to a table: what they cannot have costs a
// fence nothing.
func (f *footing) learn(version int, t *tableFacts) {
	sql := f.sql(version, t)
	f.question.Store(&sql)
}

// publishedSchemas is the first server_version_num whose publications may hold whole schemas.
const publishedSchemas = 150000

// sql is an expression of type text, the parts of a ground. The xmin of a catalog row changes
// when the row is altered, and never becomes what it was; pg_walfile_name begins with the
// timeline (XLogFileName in xlog_internal.h).
func (f *footing) sql(version int, t *tableFacts) string {
	oid := "to_regclass(" + literal(f.table) + ")"
	needed := []string{literal(columnRestaurant), literal(columnClient)}
	if t.layout.keyed {
		needed = append(needed, literal(t.layout.idName))
	}
	columns := "(SELECT string_agg(attnum || ':' || xmin, ' ' ORDER BY attname) FROM pg_attribute WHERE attrelid = " + oid +
		" AND attname IN (" + strings.Join(needed, ", ") + ") AND NOT attisdropped)"
	// Only a table that is published by name is kept from becoming unlogged for a while. A rewrite
	// gives it another TOAST table, as a TRUNCATE does not (finish_heap_swap in cluster.c); one that has none
	// is told by its file.
	rewritten := "(SELECT CASE reltoastrelid WHEN 0 THEN relfilenode ELSE reltoastrelid END FROM pg_class WHERE oid = " + oid +
		" AND NOT EXISTS (SELECT FROM pg_publication_rel JOIN pg_publication p ON p.oid = prpubid WHERE prrelid = pg_class.oid AND pubname = " + literal(f.publication) + "))"
	// The log tells of the table's own replica identity, not of a partition's, by which its rows are written
	// (get_rel_sync_entry in pgoutput.c, ExtractReplicaIdentity in heapam.c).
	partitions := "(SELECT string_agg(inhrelid::text, ' ' ORDER BY inhrelid) FROM pg_inherits WHERE inhparent = " + oid + ")" // which heirError refuses
	if t.kind == 'p' {
		partitions = "(SELECT string_agg(concat_ws(':', c.oid, CASE c.relkind WHEN 'r' THEN c.xmin END, i.xmin," +
			" (SELECT string_agg(x.indexrelid || '/' || x.xmin, '+' ORDER BY x.indexrelid) FROM pg_index x" +
			" WHERE x.indrelid = c.oid AND c.relkind = 'r' AND (x.indisprimary OR x.indisreplident))), ' ' ORDER BY c.oid) FROM " + partitionsOf(oid) +
			" t JOIN pg_class c ON c.oid = t.oid LEFT JOIN pg_inherits i ON i.inhrelid = c.oid)"
	}
	return "concat(left(pg_walfile_name(pg_current_wal_flush_lsn()), 8), '|', " + oid + "::oid, ':', " + rewritten + ", '|', " + columns +
		", '|', (SELECT string_agg(oid || ':' || xmin, ' ' ORDER BY oid) FROM " + f.published(version) + "), " + f.moved(version) + ", '|', " + partitions + ")"
}

// moved tells whether tables left a published schema for a while: their row types go with them
// (AlterTableNamespaceInternal in tablecmds.c).
func (f *footing) moved(version int) string {
	if version < publishedSchemas {
		return "NULL"
	}
	oid := "to_regclass(" + literal(f.table) + ")"
	return "(SELECT string_agg(' ' || t.oid || ':' || t.xmin, '' ORDER BY t.oid) FROM pg_class c JOIN pg_type t ON t.oid = c.reltype" +
		" WHERE c.oid IN (SELECT " + oid + "::oid UNION SELECT relid FROM pg_partition_ancestors(" + oid + "))" +
		" AND EXISTS (SELECT FROM pg_publication_namespace JOIN pg_publication p ON p.oid = pnpubid WHERE pubname = " + literal(f.publication) + "))"
}

// published gives the catalog's rows that publish the table: as itself, as a partition of
// another, or with a schema.
func (f *footing) published(version int) string {
	oid := "to_regclass(" + literal(f.table) + ")"
	ours := "SELECT " + oid + "::oid UNION SELECT relid FROM pg_partition_ancestors(" + oid + ")"
	publication := "(SELECT oid FROM pg_publication WHERE pubname = " + literal(f.publication) + ")"
	schemas := ""
	if version >= publishedSchemas {
		schemas = " UNION ALL SELECT oid, xmin FROM pg_publication_namespace WHERE pnpubid = " + publication +
			" AND pnnspid IN (SELECT relnamespace FROM pg_class WHERE oid IN (" + ours + "))"
	}
	return "(SELECT oid, xmin FROM pg_publication WHERE oid = " + publication +
		" UNION ALL SELECT oid, xmin FROM pg_publication_rel WHERE prpubid = " + publication + " AND prrelid IN (" + ours + ")" + schemas + ") published"
}

// settled refuses a publication that was altered while a transaction ran that still runs. What
// it wrote before may be missing from the log, and a snapshot does not show it either: the load
// must come after it.
func (f *footing) settled(ctx context.Context, q querier, version int) error {
	var running int
	err := q.QueryRow(ctx, "SELECT count(*) FROM "+f.published(version)+
		" WHERE age(xmin) BETWEEN 0 AND age(pg_snapshot_xmin(pg_current_snapshot())::text::xid)").Scan(&running)
	if err == nil && running > 0 {
		err = errors.New("it was altered while transactions were open that are open still: the index is loaded when they have ended")
	}
	if err != nil {
		return &Error{Op: "use publication", On: f.publication, Err: err, Fix: "end them: SELECT pid, xact_start, query FROM pg_stat_activity WHERE backend_xid IS NOT NULL ORDER BY xact_start"}
	}
	return nil
}

// ground is an answer of footing.
type ground string

// The parts of a ground.
const (
	groundTimeline = iota
	groundTable
	groundColumns // their numbers, and which transactions altered them last
	groundPublication
	groundPartitions
	groundParts
)

// What the owner of a table may do as often as he likes, so that rebuilds for it are not counted: he alters or empties
// partitions, or empties a table without long values that is published with others.
const (
	reasonPartitions = "partitions"
	reasonRewritten  = "rewritten"
)

// carries says why an index that was loaded on g cannot be carried on upon h: the label of a
// rebuild and what is to be said of it, "" when it can. That h looks right is no reason: what
// was altered and altered back may have kept changes out of the log meanwhile.
func (g ground) carries(h ground) (reason, why string) {
	was, is := strings.Split(string(g), "|"), strings.Split(string(h), "|")
	if len(was) != groundParts || len(is) != groundParts {
		return "footing", fmt.Sprintf("the catalog answers %q, and answered %q", h, g)
	}
	differs := func(part int) bool { return was[part] != is[part] }
	oid := func(g []string) string { before, _, _ := strings.Cut(g[groundTable], ":"); return before }
	switch {
	case differs(groundTimeline):
		return "timeline", "the server is on another timeline"
	case oid(was) != oid(is):
		return "table", "the table was replaced by another of the same name"
	case differs(groundPublication):
		return "publication", "the publication was altered: changes may be missing from the log"
	case differs(groundTable): // asked for where it is not published by name: a dropped publication tells it, too
		return reasonRewritten, "the table was rewritten while it may have been unlogged"
	case differs(groundPartitions):
		return reasonPartitions, "partitions of the table came, went or were altered"
	case differs(groundColumns):
		// Rows may have been rewritten, or another column had the name for a while: both are what the
		// log does not tell. Most changes of a column's own settings would do no harm; they are rare.
		return "columns", "needed columns of the table were altered"
	}
	return "", ""
}

// holds reports whether an answer is what the index stands on.
func (f *footing) holds(answer ground) bool {
	trusted := f.trusted.Load()
	return trusted != nil && *trusted == answer
}

// ask asks for the ground.
func (f *footing) ask(ctx context.Context, q querier) (ground, error) {
	var g ground
	if err := q.QueryRow(ctx, "SELECT "+*f.question.Load()).Scan(&g); err != nil {
		return "", &Error{Op: "read catalog for table", On: f.table, Err: err}
	}
	return g, nil
}

// greet refuses a connection to another server than the followed one, or to a standby, which
// may be behind. Where the right to ask was taken from everybody, systems are not compared.
func (f *footing) greet(ctx context.Context, conn *pgx.Conn) error {
	known := f.system.Load()
	if known == nil {
		return errFooting
	}
	var standby bool
	if err := conn.QueryRow(ctx, "SELECT pg_is_in_recovery()").Scan(&standby); err != nil || standby {
		return errors.Join(err, errStandby)
	}
	var system string
	err := conn.QueryRow(ctx, "SELECT system_identifier::text FROM pg_control_system()").Scan(&system)
	switch {
	case sqlState(err) == codeInsufficientPrivilege:
		return nil
	case err != nil:
		return err
	case system != *known:
		return fmt.Errorf("%w: system identifier %s, was %s", errFooting, system, *known)
	}
	return nil
}

var errStandby = errors.New("the server is a standby: its rows may be older than the index (target_session_attrs=primary in source.dsn avoids it)")

// position asks for a position, and with it whether the index still stands.
func (s *Source) position(ctx context.Context, expression string) (cache.LSN, error) {
	if s.footing.trusted.Load() == nil {
		return 0, errFooting
	}
	var at string
	var footing ground
	if err := s.fence.ask(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		return conn.QueryRow(ctx, "SELECT "+expression+"::text, "+*s.footing.question.Load()).Scan(&at, &footing)
	}); err != nil {
		return 0, fmt.Errorf("ask source database for its position: %w", err)
	}
	if !s.footing.holds(footing) {
		return 0, errFooting
	}
	return cache.ParseLSN(at)
}
