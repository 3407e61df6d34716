package cdc

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"example.com/tiffin/cache"
)

// querier is a connection or a transaction.
type querier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

// serverFacts is what the reader needs to know of the server.
type serverFacts struct {
	version    int // server_version_num
	recovery   bool
	walLevel   string
	database   string
	user       string
	standbys   string // synchronous_standby_names
	senderWait int64  // wal_sender_timeout in milliseconds, 0: none
}

func inspectServer(ctx context.Context, q querier) (serverFacts, error) {
	var f serverFacts
	err := q.QueryRow(ctx, `
		SELECT current_setting('server_version_num')::int, pg_is_in_recovery(), current_setting('wal_level'),
		       current_database(), current_user, current_setting('synchronous_standby_names'),
		       (SELECT setting::bigint FROM pg_settings WHERE name = 'wal_sender_timeout')`).
		Scan(&f.version, &f.recovery, &f.walLevel, &f.database, &f.user, &f.standbys, &f.senderWait)
	if err != nil {
		return f, &Error{Op: "read settings of source database", Err: err}
	}
	return f, nil
}

// failoverSlots is the first server_version_num whose slots standbys can synchronise.
const failoverSlots = 170000

// verify says what of the server stands in the way.
func (f *serverFacts) verify(cfg *Config) error {
	application := cfg.application()
	e := &Error{Op: "follow source database", On: f.database, Permanent: true}
	switch {
	case f.version < 140000:
		e.Err, e.Fix = fmt.Errorf("server version %d", f.version), "PostgreSQL 14 or newer"
	case f.recovery:
		e.Err, e.Fix, e.Permanent = errors.New("it is a standby"), "name the primary in source.dsn (or several hosts and target_session_attrs=primary)", false
	case cfg.Failover && f.version < failoverSlots:
		e.Err = fmt.Errorf("server version %d has no slots that standbys synchronise, and source.failover is true", f.version)
		e.Fix = "PostgreSQL 17 or newer, or source.failover: false (after a failover the slot is then made again)"
	case f.walLevel != "logical":
		e.Err, e.Fix = fmt.Errorf("wal_level is %s", f.walLevel), "ALTER SYSTEM SET wal_level = logical; and restart the server"
	case chosenAsStandby(f.standbys, application):
		e.Err = fmt.Errorf("synchronous_standby_names %q makes its commits wait for this reader", f.standbys)
		e.Fix = "name the standbys in synchronous_standby_names, without * and without " + application
	default:
		return nil
	}
	return e
}

// chosenAsStandby reports whether a walsender of this application name may become a
// synchronous standby (SyncRepGetStandbyPriority in syncrep.c).
func chosenAsStandby(names, application string) bool {
	fields := strings.FieldsFunc(names, func(r rune) bool { return strings.ContainsRune(" ,()", r) })
	return slices.ContainsFunc(fields, func(name string) bool {
		name = strings.Trim(name, `"`)
		return name == "*" || strings.EqualFold(name, application)
	})
}

// tableFacts is the followed table as the catalog has it.
type tableFacts struct {
	relation relation
	layout   layout
	kind     byte // r: table, p: partitioned
	nullable bool
	cast     string // type of restaurant_id, for a parameter's cast
	leaves   []leaf // the table, or its partitions
}

// from is the table as a statement reads it: without heirs, which are not published under its
// name, but with partitions, which are.
func (t *tableFacts) from() string {
	if t.kind == 'p' {
		return t.relation.name.sql()
	}
	return "ONLY " + t.relation.name.sql()
}

// leaf is a table with rows.
type leaf struct {
	name  tableName
	pages int64
}

// inspectTable reads what the catalog says of the table. With an identityFault the facts come
// all the same, but for the layout.
func inspectTable(ctx context.Context, q querier, name tableName) (*tableFacts, error) {
	t := &tableFacts{}
	var kind, identity string
	var readable, filtered bool
	err := q.QueryRow(ctx, `
		SELECT c.oid, c.relkind::text, c.relreplident::text,
		       has_schema_privilege(n.oid, 'USAGE') AND has_table_privilege(c.oid, 'SELECT'), row_security_active(c.oid)
		FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
		WHERE n.nspname = $1 AND c.relname = $2`, name.schema, name.name).
		Scan(&t.relation.oid, &kind, &identity, &readable, &filtered)
	e := &Error{Op: "read table", On: name.String(), Permanent: true}
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		e.Err, e.Fix = errors.New("no such table"), "create it, or name the right one in source.table (and the right database in source.dsn)"
		return nil, e
	case err != nil:
		return nil, &Error{Op: "read catalog for table", On: name.String(), Err: err}
	case kind != "r" && kind != "p":
		e.Err, e.Fix = errors.New("not a table that can be published"), "name a table or a partitioned table in source.table"
		return nil, e
	case !readable:
		e.Err = errors.New("no right to read it")
		e.Fix = "GRANT USAGE ON SCHEMA " + quoted(name.schema) + " TO " + currentUser(ctx, q) + "; GRANT SELECT ON " + name.sql() + " TO " + currentUser(ctx, q) + ";"
		return nil, e
	case filtered:
		e.Err = errors.New("row-level security hides rows from this role, and the log does not")
		e.Fix = "ALTER ROLE " + currentUser(ctx, q) + " BYPASSRLS;"
		return nil, e
	}
	t.kind, t.relation.identity, t.relation.name = kind[0], identity[0], name
	unfit := t.inspectColumns(ctx, q)
	var untold *identityFault
	if unfit != nil && !errors.As(unfit, &untold) {
		return nil, unfit
	}
	leaves := t.inspectLeaves(ctx, q)
	if unfit != nil {
		return t, unfit
	}
	return t, leaves
}

func currentUser(ctx context.Context, q querier) string {
	var user string
	if q.QueryRow(ctx, "SELECT current_user").Scan(&user) != nil {
		return "<role>"
	}
	return quoted(user)
}

// columnsSQL gives the published columns of relations, and which are the replica identity
// (RelationGetReplicaIndex and RelationGetIndexAttrBitmap in relcache.c).
const columnsSQL = `
	SELECT a.attrelid, a.attname, a.atttypid, c.relreplident::text, a.attnotnull, format_type(a.atttypid, NULL),
	       b.typcategory = 'S' OR b.oid IN ('uuid'::regtype, 'int2'::regtype, 'int4'::regtype, 'int8'::regtype),
	       c.relreplident = 'f' OR coalesce(a.attnum = ANY ((i.indkey::int2[])[0:i.indnkeyatts - 1]), false)
	FROM pg_attribute a
	JOIN pg_class c ON c.oid = a.attrelid
	JOIN pg_type t ON t.oid = a.atttypid
	JOIN pg_type b ON b.oid = CASE WHEN t.typtype = 'd' THEN t.typbasetype ELSE t.oid END
	LEFT JOIN pg_index i ON i.indrelid = a.attrelid AND i.indisvalid AND i.indimmediate
	     AND ((c.relreplident = 'd' AND i.indisprimary) OR (c.relreplident = 'i' AND i.indisreplident))
	WHERE a.attrelid = ANY ($1) AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
	ORDER BY a.attrelid, a.attnum`

func (t *tableFacts) inspectColumns(ctx context.Context, q querier) error {
	relations, err := readRelations(ctx, q, []uint32{t.relation.oid}, t)
	if err != nil {
		return err
	}
	if rel := relations[t.relation.oid]; rel != nil {
		t.relation.columns = rel.columns
	}
	t.layout, err = layoutOf(t.relation)
	return err
}

// readRelations reads the columns of relations; of t's own it notes what t needs.
func readRelations(ctx context.Context, q querier, oids []uint32, t *tableFacts) (map[uint32]*relation, error) {
	rows, err := q.Query(ctx, columnsSQL, oids)
	if err != nil {
		return nil, &Error{Op: "read columns of table", On: t.relation.name.String(), Err: err}
	}
	relations := map[uint32]*relation{}
	var unfit error
	var oid uint32
	var col column
	var identity, typ string
	var notNull, fits bool
	_, err = pgx.ForEachRow(rows, []any{&oid, &col.name, &col.typ, &identity, &notNull, &typ, &fits, &col.key}, func() error {
		rel := relations[oid]
		if rel == nil {
			rel = &relation{oid: oid, identity: identity[0], name: t.relation.name}
			relations[oid] = rel
		}
		rel.columns = append(rel.columns, col)
		if oid != t.relation.oid || (col.name != columnRestaurant && col.name != columnClient) {
			return nil
		}
		t.nullable = t.nullable || !notNull
		if col.name == columnRestaurant {
			t.cast = typ
		}
		if !fits {
			unfit = &Error{
				Op: "use column", On: t.relation.name.String() + "." + col.name, Permanent: true,
				Err: errors.New("type " + typ + " is no text, uuid or integer"),
				Fix: "ALTER TABLE " + t.relation.name.sql() + " ALTER COLUMN " + col.name + " TYPE text;",
			}
		}
		return nil
	})
	if err != nil {
		return nil, &Error{Op: "read columns of table", On: t.relation.name.String(), Err: err}
	}
	return relations, unfit
}

// inspectLeaves lists the tables that hold the rows.
func (t *tableFacts) inspectLeaves(ctx context.Context, q querier) error {
	rows, err := q.Query(ctx, `
		SELECT c.oid, n.nspname, c.relname,
		       pg_relation_size(c.oid) / current_setting('block_size')::bigint
		FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
		WHERE c.relkind = 'r' AND (c.oid = $1 OR c.oid IN (SELECT relid FROM pg_partition_tree($1)))
		ORDER BY c.oid`, t.relation.oid)
	if err != nil {
		return &Error{Op: "list partitions of table", On: t.relation.name.String(), Err: err}
	}
	var oids []uint32
	var oid uint32
	var l leaf
	_, err = pgx.ForEachRow(rows, []any{&oid, &l.name.schema, &l.name.name, &l.pages}, func() error {
		t.leaves, oids = append(t.leaves, l), append(oids, oid)
		return nil
	})
	if err != nil {
		return &Error{Op: "list partitions of table", On: t.relation.name.String(), Err: err}
	}
	if t.kind != 'p' {
		return nil
	}
	return t.compareLeaves(ctx, q, oids)
}

// compareLeaves: an old tuple is logged by the partition's identity and described by the
// table's, so they must agree.
func (t *tableFacts) compareLeaves(ctx context.Context, q querier, oids []uint32) error {
	relations, err := readRelations(ctx, q, oids, t)
	if err != nil {
		return err
	}
	for i, oid := range oids {
		rel := relations[oid]
		if rel == nil {
			continue // detached since
		}
		rel.name = t.leaves[i].name
		l, err := layoutOf(*rel)
		if err != nil {
			return err
		}
		if l.keyed != t.layout.keyed || l.idName != t.layout.idName {
			return &identityFault{&Error{
				Op: "follow table", On: t.relation.name.String(), Permanent: true,
				Err: fmt.Errorf("partition %s has another replica identity", rel.name),
				Fix: "ALTER TABLE " + rel.name.sql() + " REPLICA IDENTITY FULL; on every partition and the table itself",
			}}
		}
	}
	return nil
}

// publicationFacts is the publication as the catalog has it.
type publicationFacts struct {
	exists   bool
	complete bool // publishes insert, update, delete and truncate
	viaRoot  bool
	holds    bool // the table is in it
	filter   string
	columns  []string // published of the table; nil before PostgreSQL 15: all
}

func inspectPublication(ctx context.Context, q querier, name string, table tableName) (publicationFacts, error) {
	var p publicationFacts
	err := q.QueryRow(ctx, `
		SELECT p.pubinsert AND p.pubupdate AND p.pubdelete AND p.pubtruncate, p.pubviaroot,
		       t.tablename IS NOT NULL, coalesce(to_jsonb(t)->>'rowfilter', ''),
		       ARRAY(SELECT jsonb_array_elements_text(to_jsonb(t)->'attnames'))
		FROM pg_publication p
		LEFT JOIN pg_publication_tables t ON t.pubname = p.pubname AND t.schemaname = $2 AND t.tablename = $3
		WHERE p.pubname = $1`, name, table.schema, table.name).
		Scan(&p.complete, &p.viaRoot, &p.holds, &p.filter, &p.columns)
	if errors.Is(err, pgx.ErrNoRows) {
		return p, nil
	}
	if err != nil {
		return p, &Error{Op: "read publication", On: name, Err: err}
	}
	p.exists = true
	return p, nil
}

// slotFacts is the slot as pg_replication_slots has it.
type slotFacts struct {
	exists                 bool
	kind, plugin, database string
	lost                   bool // invalidated: it can serve no more
	failover               bool // standbys synchronise it
	activePID              int32
	confirmed              cache.LSN
	retained               int64 // bytes
}

func inspectSlot(ctx context.Context, q querier, name string) (slotFacts, error) {
	var s slotFacts
	var confirmed string
	err := q.QueryRow(ctx, `
		SELECT slot_type, coalesce(plugin, ''), coalesce(database, ''), coalesce(wal_status, '') = 'lost',
		       coalesce((to_jsonb(s)->>'failover')::bool, false),
		       coalesce(active_pid, 0), coalesce(confirmed_flush_lsn, '0/0')::text,
		       coalesce(pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn), 0)::bigint
		FROM pg_replication_slots s WHERE slot_name = $1`, name).
		Scan(&s.kind, &s.plugin, &s.database, &s.lost, &s.failover, &s.activePID, &confirmed, &s.retained)
	if errors.Is(err, pgx.ErrNoRows) {
		return s, nil
	}
	if err != nil {
		return s, &Error{Op: "read replication slot", On: name, Err: err}
	}
	s.exists = true
	s.confirmed, err = cache.ParseLSN(confirmed)
	return s, err
}

// verify says whether the slot is one that this reader can use.
func (s *slotFacts) verify(name, database string) error {
	if !s.exists || (s.kind == "logical" && s.plugin == "pgoutput" && s.database == database) {
		return nil
	}
	return &Error{
		Op: "use replication slot", On: name, Permanent: true,
		Err: fmt.Errorf("it is a %s slot of plugin %q in database %q; a logical slot of pgoutput in %q is needed", s.kind, s.plugin, s.database, database),
		Fix: "name another slot in source.slot",
	}
}

// holder describes who has the slot, as far as this role may see.
func holder(ctx context.Context, q querier, pid int32) string {
	var application, user, address string
	err := q.QueryRow(ctx, `
		SELECT coalesce(application_name, ''), coalesce(usename, ''), coalesce(host(client_addr), 'local socket')
		FROM pg_stat_activity WHERE pid = $1`, pid).Scan(&application, &user, &address)
	if err != nil {
		return fmt.Sprintf("pid %d", pid)
	}
	return fmt.Sprintf("pid %d, application %q, user %q, from %s", pid, application, user, address)
}
