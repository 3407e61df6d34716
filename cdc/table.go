package cdc

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
)

// tableFacts is the followed table as the catalog has it.
type tableFacts struct {
	relation relation
	layout   layout
	kind     byte      // r: table, p: partitioned
	cast     string    // type of restaurant_id, for a parameter's cast; a domain's is what it is over
	output   [2]string // functions that print restaurant and client as the log does, where a cast to text need not
	leaves   []leaf    // the table, or its partitions
	// cachePages is the server's shared_buffers, in pages, once measured.
	cachePages int64
	// placed: the role may read where a row lies, so a load can be shared among connections.
	placed bool
}

// columns are what a row of the index is made of, in copyRows' order: the id first where rows go by it.
func (t *tableFacts) columns() string {
	columns := t.restaurantText() + ", " + t.clientText()
	if t.layout.keyed {
		columns = quoted(t.layout.idName) + "::int8, " + columns
	}
	return columns
}

func (t *tableFacts) restaurantText() string { return textOf(columnRestaurant, t.output[0]) }
func (t *tableFacts) clientText() string     { return textOf(columnClient, t.output[1]) }

// textOf is a column's text as the log has it. A cast of a uuid or an integer to text may be the database's
// own (CREATE CAST).
func textOf(column, output string) string {
	if output == "" {
		return column + "::text"
	}
	return "pg_catalog.textin(pg_catalog." + output + "(" + column + "))"
}

// from is the table as a statement reads it: without heirs, of which it has none (heirError), but with
// partitions, which are published under its name.
func (t *tableFacts) from() string {
	if t.kind == 'p' {
		return t.relation.name.sql()
	}
	return "ONLY " + t.relation.name.sql()
}

// leaf is a table with rows.
type leaf struct {
	oid   uint32
	name  tableName
	pages int64 // once measured
}

// inspectTable reads what the catalog says of the table, and whether this role may read it. With
// an identityFault the facts come all the same, but for the layout. It waits for no lock of the
// table: who holds one may be waiting for the index.
func inspectTable(ctx context.Context, q querier, name tableName) (*tableFacts, error) {
	t, unfit := describeTable(ctx, q, name)
	if t == nil {
		return nil, unfit
	}
	rights, err := inspectRights(ctx, q, t)
	if err != nil {
		return nil, err
	}
	if err := rights.verify(t); err != nil {
		return nil, err
	}
	t.placed = rights.placed()
	return t, unfit
}

// describeTable is inspectTable without regard to rights.
func describeTable(ctx context.Context, q querier, name tableName) (*tableFacts, error) {
	t := &tableFacts{}
	var kind, identity string
	var heir tableName
	err := q.QueryRow(ctx, `
		SELECT c.oid, c.relkind::text, c.relreplident::text, coalesce(h.nspname, ''), coalesce(h.relname, '')
		FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
		LEFT JOIN LATERAL (SELECT hn.nspname, h.relname FROM pg_inherits JOIN pg_class h ON h.oid = inhrelid JOIN pg_namespace hn ON hn.oid = h.relnamespace
		                   WHERE inhparent = c.oid AND c.relkind = 'r' ORDER BY h.oid LIMIT 1) h ON true
		WHERE n.nspname = $1 AND c.relname = $2`, name.schema, name.name).
		Scan(&t.relation.oid, &kind, &identity, &heir.schema, &heir.name)
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
	case heir.name != "":
		return nil, heirError(name, heir)
	}
	t.kind, t.relation.identity, t.relation.name = kind[0], identity[0], name
	unfit := t.inspectColumns(ctx, q)
	var untold *identityFault
	if unfit != nil && !errors.As(unfit, &untold) {
		return nil, unfit
	}
	leaves := t.inspectLeaves(ctx, q)
	switch {
	case unfit != nil:
		return t, unfit
	case leaves != nil && !errors.As(leaves, &untold):
		return nil, leaves
	}
	return t, leaves
}

func unloggedError(name tableName) error {
	return &Error{
		Op: "follow table", On: name.String(), Permanent: true, Err: errors.New("it is unlogged or temporary: its changes are not in the log"),
		Fix: "ALTER TABLE " + name.sql() + " SET LOGGED;",
	}
}

// heirError: the rows of a table that inherits are shown by a SELECT from the table above it, and published
// under the heir's name.
func heirError(name, heir tableName) error {
	return &Error{
		Op: "follow table", On: name.String(), Permanent: true, Err: fmt.Errorf("table %s inherits from it: its rows are not in the log as those of %[2]s", heir, name),
		Fix: "make " + name.String() + " a partitioned table, or: ALTER TABLE " + heir.sql() + " NO INHERIT " + name.sql() + ";",
	}
}

func (t *tableFacts) foreignError(partition tableName) error {
	return &Error{
		Op: "follow table", On: t.relation.name.String(), Permanent: true, Err: fmt.Errorf("partition %s is a foreign table: its changes are not in the log", partition),
		Fix: "ALTER TABLE " + t.relation.name.sql() + " DETACH PARTITION " + partition.sql() + ";",
	}
}

// columnsSQL gives the published columns of relations, and which are the replica identity
// (RelationGetReplicaIndex and RelationGetIndexAttrBitmap in relcache.c). A type is named without a length, as -1 has
// it: by NULL a character(n) were "character", which means one of them (format_type.c).
// Of a domain it is the type below all: the domain may be renamed, and its rules need not hold for rows that
// were there before (NOT VALID). A domain, also one over a domain, has the output function of the type below it (DefineDomain in typecmds.c).
const columnsSQL = `
	SELECT a.attrelid, a.attname, a.atttypid, c.relreplident::text, format_type(b.oid, -1),
	       CASE WHEN t.typoutput IN ('uuid_out'::regproc, 'int2out'::regproc, 'int4out'::regproc, 'int8out'::regproc) THEN t.typoutput::text ELSE '' END,
	       t.typcategory = 'S' OR t.typoutput IN ('uuid_out'::regproc, 'int2out'::regproc, 'int4out'::regproc, 'int8out'::regproc),
	       t.typoutput = 'bpcharout'::regproc,
	       c.relreplident = 'f' OR coalesce(a.attnum = ANY ((i.indkey::int2[])[0:i.indnkeyatts - 1]), false)
	FROM pg_attribute a
	JOIN pg_class c ON c.oid = a.attrelid
	JOIN pg_type t ON t.oid = a.atttypid
	CROSS JOIN LATERAL (WITH RECURSIVE base AS (SELECT t.oid, t.typtype, t.typbasetype UNION ALL
	     SELECT o.oid, o.typtype, o.typbasetype FROM base JOIN pg_type o ON base.typtype = 'd' AND o.oid = base.typbasetype)
	     SELECT oid FROM base WHERE typtype <> 'd') b
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
	if t.layout.restaurant < 0 || t.layout.client < 0 {
		return cmp.Or(t.verifyStored(ctx, q), err)
	}
	return err
}

// verifyStored says of columns that are missed whether they are there, but generated: the log has none of those.
func (t *tableFacts) verifyStored(ctx context.Context, q querier) error {
	var generated string
	err := q.QueryRow(ctx, "SELECT coalesce(string_agg(attname, ', ' ORDER BY attnum), '') FROM pg_attribute WHERE attrelid = $1 AND attname IN ($2, $3) AND attgenerated <> ''",
		t.relation.oid, columnRestaurant, columnClient).Scan(&generated)
	switch {
	case err != nil:
		return &Error{Op: "read columns of table", On: t.relation.name.String(), Err: err}
	case generated == "":
		return nil
	}
	return &Error{
		Op: "follow table", On: t.relation.name.String(), Permanent: true, Err: fmt.Errorf("the log does not have %s, which is generated from other columns", generated),
		Fix: "make it a column that is written; a stored one: ALTER TABLE " + t.relation.name.sql() + " ALTER COLUMN … DROP EXPRESSION;",
	}
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
	var identity, typ, output string
	var fits bool
	_, err = pgx.ForEachRow(rows, []any{&oid, &col.name, &col.typ, &identity, &typ, &output, &fits, &col.padded, &col.key}, func() error {
		rel := relations[oid]
		if rel == nil {
			rel = &relation{oid: oid, identity: identity[0], name: t.relation.name}
			relations[oid] = rel
		}
		rel.columns = append(rel.columns, col)
		if oid != t.relation.oid || (col.name != columnRestaurant && col.name != columnClient) {
			return nil
		}
		if col.name == columnRestaurant {
			t.cast, t.output[0] = typ, output
		} else {
			t.output[1] = output
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
	rows, err := q.Query(ctx, `SELECT c.oid, n.nspname, c.relname, c.relpersistence = 'p', c.relkind = 'f' FROM `+partitionsOf("$1")+` p
		JOIN pg_class c ON c.oid = p.oid JOIN pg_namespace n ON n.oid = c.relnamespace
		WHERE c.relkind IN ('r', 'f') ORDER BY c.oid`, t.relation.oid)
	if err != nil {
		return &Error{Op: "list partitions of table", On: t.relation.name.String(), Err: err}
	}
	var l leaf
	var logged, foreign bool
	var unfit error
	_, err = pgx.ForEachRow(rows, []any{&l.oid, &l.name.schema, &l.name.name, &logged, &foreign}, func() error {
		if foreign {
			unfit = t.foreignError(l.name)
			return nil
		}
		if t.leaves = append(t.leaves, l); !logged {
			unfit = unloggedError(l.name)
		}
		return nil
	})
	if err != nil {
		return &Error{Op: "list partitions of table", On: t.relation.name.String(), Err: err}
	}
	if unfit != nil || t.kind != 'p' {
		return unfit
	}
	return t.compareLeaves(ctx, q)
}

// partitionsOf gives the oids of a table and of all its partitions. pg_partition_tree gives them
// too, but locks each: it waits for whoever rewrites one of them.
func partitionsOf(oid string) string {
	return "(WITH RECURSIVE tree AS (SELECT " + oid + "::oid AS oid UNION SELECT inhrelid FROM pg_inherits JOIN tree ON inhparent = tree.oid" +
		" JOIN pg_class parent ON parent.oid = inhparent AND parent.relkind = 'p' WHERE NOT inhdetachpending) SELECT oid FROM tree)"
}

// measure reads how large the leaves are. It locks each for the rest of the transaction.
func (t *tableFacts) measure(ctx context.Context, q querier) error {
	var oids []uint32
	for _, l := range t.leaves {
		oids = append(oids, l.oid)
	}
	var pages []int64
	if err := q.QueryRow(ctx, `SELECT (SELECT setting::bigint FROM pg_settings WHERE name = 'shared_buffers'), ARRAY(SELECT coalesce(pg_relation_size(oid), 0) / current_setting('block_size')::bigint FROM unnest($1::oid[]) WITH ORDINALITY AS leaf (oid, nr) ORDER BY nr)`, oids).Scan(&t.cachePages, &pages); err != nil {
		return &Error{Op: "measure table", On: t.relation.name.String(), Err: err}
	}
	for i := range t.leaves {
		t.leaves[i].pages = pages[i]
	}
	return nil
}

// compareLeaves: an old tuple is logged by the partition's identity and described by the
// table's, so they must agree.
func (t *tableFacts) compareLeaves(ctx context.Context, q querier) error {
	oids := make([]uint32, len(t.leaves))
	for i, l := range t.leaves {
		oids[i] = l.oid
	}
	relations, err := readRelations(ctx, q, oids, t)
	if err != nil {
		return err
	}
	for _, leaf := range t.leaves {
		rel := relations[leaf.oid]
		if rel == nil {
			continue // detached since
		}
		rel.name = leaf.name
		l, err := layoutOf(*rel)
		if err != nil {
			return err
		}
		if l.keyed != t.layout.keyed || l.idName != t.layout.idName {
			return &identityFault{&Error{
				Op: "follow table", On: t.relation.name.String(), Permanent: true,
				Err: fmt.Errorf("partition %s has another replica identity", rel.name),
				Fix: t.allFull(),
			}}
		}
	}
	return nil
}

// allFull is the identity that needs no key, for the table and each partition.
func (t *tableFacts) allFull() string {
	names := []tableName{t.relation.name}
	for _, leaf := range t.leaves {
		names = append(names, leaf.name)
	}
	statements := make([]string, len(names))
	for i, name := range names {
		statements[i] = "ALTER TABLE " + name.sql() + " REPLICA IDENTITY FULL;"
	}
	return strings.Join(statements, " ")
}
