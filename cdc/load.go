package cdc

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
	"golang.org/x/sync/errgroup"

	"example.com/tiffin/cache"
)

// loadRange is how many pages of a table one COPY reads: 64 MB at 8 kB a page, about a
// second's work, so that connections finish together.
const loadRange = 8192

// ringPart of the server's shared_buffers is how large a table may be for ranges of it to be read side by side.
// A larger one the server, reading all of it, takes through a small ring of buffers (initscan in heapam.c); a range of
// ctid it reads past that ring, and would empty the cache that others live of (measured: of 8,572 hot pages none
// was left). One connection reads as fast as psql does.
const ringPart = 4

// loaded is what a load leaves behind.
type loaded struct {
	snapshot cache.Snapshot
	table    *tableFacts
}

// load reads the table in one snapshot, over several connections, into the index; learn is told the table
// before the index answers. The snapshot is taken after the slot exists and awaitVisible: what it does not see,
// the slot sends.
func load(ctx context.Context, cfg *Config, conn *pgx.Conn, idx Index, learn func(*tableFacts)) (loaded, error) {
	name, err := parseTable(cfg.Table)
	if err != nil {
		return loaded{}, err
	}
	exported, snapshot, table, err := beginLoad(ctx, conn, name)
	if err != nil {
		return loaded{}, err
	}
	into := idx.BeginLoad(table.layout.keyed)
	learn(table) // before lookups that wait for the end of the load go on
	nulls, err := copyAll(ctx, cfg, conn, exported, table, into)
	if err == nil {
		err = endLoad(ctx, conn, name)
	}
	if err != nil {
		into.Abort()
		return loaded{}, err
	}
	if nulls > 0 {
		cfg.Log.Warn("rows with a NULL restaurant or client are no subscriptions", "table", name.String(), "rows", nulls)
	}
	if err := into.Finish(snapshot); err != nil {
		return loaded{}, loadError(name, err)
	}
	return loaded{snapshot: snapshot, table: table}, nil
}

// endLoad ends the transaction that the load read in, and has flushed what its snapshot shows: a transaction that
// did not ask for that, or was rolled back, is forgotten by a server that crashes, and another one gets its xid.
// A commit flushes all of the log before it, and a server that crashed meanwhile has ended the connection.
func endLoad(ctx context.Context, conn *pgx.Conn, name tableName) error {
	ctx, cancel := context.WithTimeout(ctx, prepareLimit)
	defer cancel()
	for _, sql := range []string{
		"COMMIT", "BEGIN", "SET LOCAL synchronous_commit = local", // whatever the role's default is; a standby need not wait
		"SELECT pg_logical_emit_message(true, 'tiffin.load', '')", "COMMIT",
	} {
		_, err := conn.Exec(ctx, sql)
		if sqlState(err) == codeInsufficientPrivilege {
			return noMessages(ctx, conn, err)
		}
		if err != nil {
			return loadError(name, err)
		}
	}
	return nil
}

// noMessages is the error of a role from which was taken what everybody may.
func noMessages(ctx context.Context, conn *pgx.Conn, refused error) error {
	e := &Error{Op: "flush the log behind a load:", On: "pg_logical_emit_message", Err: refused, Permanent: true}
	var functions, role string
	if _, err := conn.Exec(ctx, "ROLLBACK"); err != nil {
		return e
	}
	err := conn.QueryRow(ctx, "SELECT string_agg(oid::regprocedure::text, ', '), current_user FROM pg_proc WHERE proname = 'pg_logical_emit_message' AND pronamespace = 'pg_catalog'::regnamespace").
		Scan(&functions, &role)
	if err == nil {
		e.Fix = "as a superuser: GRANT EXECUTE ON FUNCTION " + functions + " TO " + quoted(role) + ";"
	}
	return e
}

// loadTries is how many snapshots a load takes before it leaves it to the next session.
const loadTries = 5

// beginLoad begins the transaction that the load reads in, with a snapshot that shows the table. It takes
// another one if somebody rewrote or emptied the table before it was locked: whatever the log tells of that,
// it sends no rows for those that were rewritten, and none of them is seen by an older snapshot.
func beginLoad(ctx context.Context, conn *pgx.Conn, name tableName) (exported string, snapshot cache.Snapshot, table *tableFacts, err error) {
	for range loadTries {
		exported, snapshot, err = openSnapshot(ctx, conn)
		if err != nil {
			return "", snapshot, nil, loadError(name, err)
		}
		var whole bool
		if table, whole, err = lockTable(ctx, conn, name); err != nil || whole {
			return exported, snapshot, table, err
		}
		if _, err := conn.Exec(ctx, "ROLLBACK"); err != nil {
			return "", snapshot, nil, loadError(name, err)
		}
	}
	return "", snapshot, nil, loadError(name, errors.New("it is rewritten again and again"))
}

// openSnapshot begins the transaction that the load reads in, and exports what it sees. pgx's
// own Tx would hide the connection that COPY needs.
func openSnapshot(ctx context.Context, conn *pgx.Conn) (exported string, snapshot cache.Snapshot, err error) {
	ctx, cancel := context.WithTimeout(ctx, prepareLimit)
	defer cancel()
	if _, err := conn.Exec(ctx, "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"); err != nil {
		return "", snapshot, err
	}
	var text string
	if err := conn.QueryRow(ctx, "SELECT pg_export_snapshot(), pg_current_snapshot()::text").Scan(&exported, &text); err != nil {
		return "", snapshot, err
	}
	snapshot, err = cache.ParseSnapshot(text)
	return exported, snapshot, err
}

// lockTable reads the catalog, keeps others from rewriting the table until the transaction ends, and
// reports whether its snapshot shows the table whole.
func lockTable(ctx context.Context, conn *pgx.Conn, name tableName) (table *tableFacts, whole bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, prepareLimit)
	defer cancel()
	if table, err = inspectTable(ctx, conn, name); err != nil { // which names what is missing
		return nil, false, err
	}
	if whole, err = locked(ctx, conn, name); err != nil {
		return nil, false, &Error{Op: "lock table", On: name.String(), Err: err}
	}
	return table, whole, table.measure(ctx, conn)
}

// locked has the transaction hold the table and its partitions, and reports whether its snapshot still shows
// them: a TRUNCATE that came between empties what the snapshot sees, too, because the rows are in files
// that are gone. The catalog's row is the snapshot's, pg_relation_filenode answers as of now. LOCK TABLE, which
// needs no snapshot, wants a right to the whole table (LockTableAclCheck in lockcmds.c), not to its columns.
func locked(ctx context.Context, conn *pgx.Conn, name tableName) (whole bool, err error) {
	if _, err := conn.Exec(ctx, "SELECT "+columnRestaurant+" FROM "+name.sql()+" LIMIT 0"); err != nil {
		return false, err
	}
	err = conn.QueryRow(ctx, "SELECT count(*) = 0 FROM "+partitionsOf("to_regclass("+literal(name.sql())+")")+
		" t JOIN pg_class c ON c.oid = t.oid WHERE c.relfilenode <> pg_relation_filenode(c.oid)").Scan(&whole)
	return whole, err
}

func loadError(name tableName, err error) error {
	return &Error{Op: "load table", On: name.String(), Err: err}
}

// copyAll shares the table's ranges among connections, and their rows among all processors. It returns how many
// rows had a NULL.
func copyAll(ctx context.Context, cfg *Config, first *pgx.Conn, snapshot string, table *tableFacts, into *cache.Load) (int64, error) {
	statements := copyStatements(table, cfg.rangePages)
	work := make(chan string, len(statements))
	for _, s := range statements {
		work <- s
	}
	close(work)
	processors := runtime.GOMAXPROCS(0)
	builders := newRowBuilders(processors, cfg.pulse)
	told := func(err error) error {
		if err != nil {
			return loadError(table.relation.name, err)
		}
		return nil
	}
	group, ctx := errgroup.WithContext(ctx)
	for range processors {
		group.Go(func() error { return told(builders.buildInto(into.Batch())) })
	}
	readers, ctx := errgroup.WithContext(ctx)
	reader := func(conn *pgx.Conn) error { return told(copyRanges(ctx, conn, work, builders, into.Batch())) }
	readers.Go(func() error { return reader(first) })
	for range min(cfg.LoadConns, len(statements)) - 1 {
		readers.Go(func() error {
			conn, err := joinSnapshot(ctx, cfg, snapshot)
			if err != nil {
				return err
			}
			defer hangUp(ctx, conn.PgConn())
			return reader(conn)
		})
	}
	group.Go(func() error {
		defer close(builders.blocks)
		return readers.Wait()
	})
	err := group.Wait()
	return builders.nulls.Load(), err
}

// joinSnapshot opens a connection that sees what the exporting one sees.
func joinSnapshot(ctx context.Context, cfg *Config, snapshot string) (*pgx.Conn, error) {
	conn, err := cfg.connect(ctx)
	if err != nil {
		return nil, err
	}
	for _, sql := range []string{"BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY", "SET TRANSACTION SNAPSHOT " + literal(snapshot)} {
		if _, err := conn.Exec(ctx, sql); err != nil {
			hangUp(ctx, conn.PgConn())
			return nil, fmt.Errorf("join the load's snapshot: %w", err)
		}
	}
	return conn, nil
}

// copyStatements cuts a table of up to a ringPart of the cache into ranges of so many pages; of a partitioned one, every partition
// at once, read through the table on which the right to read was granted. The last has no
// upper end: nothing that the snapshot sees lies beyond what was measured, but that need not
// be relied on.
func copyStatements(t *tableFacts, share int64) []string {
	var pages int64
	for _, l := range t.leaves {
		pages = max(pages, l.pages)
	}
	var statements []string
	if !t.placed || pages > t.cachePages/ringPart {
		pages = 0 // one range, without ends
	}
	for from := int64(0); from == 0 || from < pages; from += share {
		var where []string
		if from > 0 {
			where = append(where, fmt.Sprintf("ctid >= '(%d,0)'", from))
		}
		if from+share < pages {
			where = append(where, fmt.Sprintf("ctid < '(%d,0)'", from+share))
		}
		statements = append(statements, "COPY "+t.source(where)+" TO STDOUT (FORMAT binary)")
	}
	return statements
}

// source is what a COPY reads: the table itself where it holds what the index wants as it is, which costs the
// server a twentieth less than a query.
func (t *tableFacts) source(where []string) string {
	if len(where) == 0 && t.kind == 'r' && t.holdsPlainly() {
		names := []string{columnRestaurant, columnClient}
		if t.layout.keyed {
			names = append([]string{t.layout.idName}, names...)
		}
		return t.relation.name.sql() + " (" + quotedList(names) + ")"
	}
	sql := "SELECT " + t.columns() + " FROM " + t.from()
	if len(where) > 0 {
		sql += " WHERE " + strings.Join(where, " AND ")
	}
	return "(" + sql + ")"
}

// holdsPlainly reports whether the needed columns are of the types that the statements cast to, or send the
// same bytes.
func (t *tableFacts) holdsPlainly() bool {
	for _, c := range t.relation.columns {
		switch c.name {
		case columnRestaurant, columnClient:
			if c.typ != pgtype.TextOID && c.typ != pgtype.VarcharOID {
				return false
			}
		case t.layout.idName:
			if t.layout.keyed && c.typ != pgtype.Int8OID {
				return false
			}
		}
	}
	return true
}

// copyRanges reads one range after the other until there are no more.
func copyRanges(ctx context.Context, conn *pgx.Conn, work <-chan string, builders *rowBuilders, odd *cache.Batch) error {
	for statement := range work {
		if err := copyRange(ctx, conn, statement, builders, builders.into(odd)); err != nil {
			return err
		}
	}
	return odd.Flush()
}

// copyRange reads one range.
func copyRange(ctx context.Context, conn *pgx.Conn, statement string, builders *rowBuilders, add addRow) error {
	to := &rangeTaker{ctx: ctx, to: builders, add: add}
	if err := copyOut(ctx, conn.PgConn(), statement, to, builders.alive); err != nil {
		return err
	}
	return to.rows.finish()
}
