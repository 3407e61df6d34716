package cdc

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"
)

// everyChange are the operations without one of which the index would miss changes.
const everyChange = "insert, update, delete, truncate"

// publicationFacts is the publication as the catalog has it.
type publicationFacts struct {
	exists   bool
	complete bool // publishes insert, update, delete and truncate
	viaRoot  bool
	holds    bool   // the table is in it, under its own name
	under    string // the partitioned table under whose name it publishes the table; "" for its own
	filtered bool
	filter   string   // the condition that rows must meet
	columns  []string // by a list, which a later column is not in; empty: all
	kinds    string   // of changes that it publishes
}

// inspectPublication reads the catalog itself: the view pg_publication_tables locks every table
// of the publication, and waits for whoever alters one of them. A partition is published under
// the name of the topmost of its tables in the publication, where that publishes via the root.
func inspectPublication(ctx context.Context, q querier, version int, name string, table tableName) (publicationFacts, error) {
	inSchema := "false"
	if version >= publishedSchemas {
		inSchema = "EXISTS (SELECT FROM pg_publication_namespace JOIN pg_class c ON c.relnamespace = pnnspid WHERE pnpubid = p.oid AND c.oid = t.oid)"
	}
	var p publicationFacts
	err := q.QueryRow(ctx, `
		WITH own AS (SELECT c.oid FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = $2 AND c.relname = $3),
		published AS (
			SELECT t.oid FROM pg_publication p, (SELECT oid FROM own UNION SELECT relid FROM own, pg_partition_ancestors(own.oid)) t
			WHERE p.pubname = $1 AND (p.puballtables OR `+inSchema+` OR EXISTS (SELECT FROM pg_publication_rel WHERE prpubid = p.oid AND prrelid = t.oid)))
		SELECT p.pubinsert AND p.pubupdate AND p.pubdelete AND p.pubtruncate, p.pubviaroot,
		       EXISTS (SELECT FROM published),
		       coalesce((SELECT n.nspname || '.' || c.relname FROM own, pg_partition_ancestors(own.oid) WITH ORDINALITY a (oid, nr)
		                 JOIN pg_class c ON c.oid = a.oid JOIN pg_namespace n ON n.oid = c.relnamespace
		                 WHERE p.pubviaroot AND a.oid <> own.oid AND a.oid IN (SELECT oid FROM published) ORDER BY nr DESC LIMIT 1), ''),
		       coalesce(to_jsonb(r)->>'prqual', '') <> '',
		       ARRAY(SELECT a.attname FROM own, pg_attribute a WHERE a.attrelid = own.oid AND a.attnum = ANY (translate(to_jsonb(r)->>'prattrs', '[]', '{}')::int2[]) ORDER BY a.attnum),
		       concat_ws(', ', CASE WHEN p.pubinsert THEN 'insert' END, CASE WHEN p.pubupdate THEN 'update' END,
		                 CASE WHEN p.pubdelete THEN 'delete' END, CASE WHEN p.pubtruncate THEN 'truncate' END)
		FROM pg_publication p
		LEFT JOIN pg_publication_rel r ON r.prpubid = p.oid AND r.prrelid IN (SELECT oid FROM own)
		WHERE p.pubname = $1`, name, table.schema, table.name).
		Scan(&p.complete, &p.viaRoot, &p.holds, &p.under, &p.filtered, &p.columns, &p.kinds)
	if errors.Is(err, pgx.ErrNoRows) {
		return p, nil
	}
	if err == nil {
		p.exists = true
		p.holds = p.holds && p.under == ""
		err = p.readFilter(ctx, q, name, table)
	}
	if err != nil {
		return p, &Error{Op: "read publication", On: name, Err: err}
	}
	return p, nil
}

// readFilter reads the condition that rows must meet, to be told: pg_get_expr locks the table.
func (p *publicationFacts) readFilter(ctx context.Context, q querier, name string, table tableName) error {
	if !p.filtered {
		return nil
	}
	return q.QueryRow(ctx, "SELECT coalesce(max(rowfilter), 'a filter holds') FROM pg_publication_tables WHERE pubname = $1 AND schemaname = $2 AND tablename = $3",
		name, table.schema, table.name).Scan(&p.filter)
}

// listed: later columns are not published.
func (p *publicationFacts) listed() bool { return len(p.columns) > 0 }

// publicationSteps says how to make the publication publish every change of the table. The table
// is added with all its columns: what a list of columns forbids its owner later (see partial) is
// for the owner to choose. What the publication holds of it already stays as it is; where that is
// not enough the steps are an error that names the fix.
func publicationSteps(name string, p publicationFacts, table *tableFacts) ([]Step, error) {
	if err := p.misnamed(name, table); err != nil {
		return nil, err
	}
	steps := additions(name, p, table, nil)
	partial := p.partial(table)
	if partial == "" {
		return steps, nil
	}
	anew := replacement(name, table, nil, partial)
	return nil, &Error{
		Op: "use publication", On: name, Permanent: true,
		Err: fmt.Errorf("of table %s it %s", table.relation.name, partial),
		Fix: anew[0].SQL + " " + anew[1].SQL,
	}
}

// misnamed says that the table's changes come under the name of a table above it: nobody could
// tell them from those of its other partitions. Which way out is right is for the owner to choose.
func (p *publicationFacts) misnamed(name string, table *tableFacts) error {
	if p.under == "" {
		return nil
	}
	return &Error{
		Op: "use publication", On: name, Permanent: true,
		Err: fmt.Errorf("it publishes the changes of %s, a partition, under the name of %s", table.relation.name, p.under),
		Fix: "name " + p.under + " in source.table, or in source.publication one without it, or ALTER PUBLICATION " + quoted(name) + " SET (publish_via_partition_root = false);",
	}
}

// additions are the steps that take nothing away from a publication.
func additions(name string, p publicationFacts, table *tableFacts, columns []string) []Step {
	on := quoted(name)
	if !p.exists {
		with := "publish = '" + everyChange + "'"
		if table.kind == 'p' {
			with += ", publish_via_partition_root = true"
		}
		return []Step{{
			part: partPublication, Why: "does not exist",
			SQL: "CREATE PUBLICATION " + on + " FOR TABLE " + table.published(columns) + " WITH (" + with + ");",
		}}
	}
	var steps []Step
	alter := func(what, why string) {
		steps = append(steps, Step{part: partPublication, SQL: "ALTER PUBLICATION " + on + " " + what + ";", Why: why, Alters: "publication " + name})
	}
	if !p.complete {
		alter("SET (publish = '"+everyChange+"')", "does not publish every kind of change")
	}
	if table.kind == 'p' && !p.viaRoot {
		alter("SET (publish_via_partition_root = true)", "does not publish partitions under their table's name")
	}
	if !p.holds {
		alter("ADD TABLE "+table.published(columns), "does not hold table "+table.relation.name.String())
	}
	return steps
}

// replacement publishes the table anew: a list of columns can be changed in no other way that
// leaves other tables of the publication alone.
func replacement(name string, table *tableFacts, columns []string, why string) []Step {
	alter := "ALTER PUBLICATION " + quoted(name) + " "
	return []Step{
		{part: partPublication, SQL: alter + "DROP TABLE " + table.relation.name.sql() + ";", Why: why, Alters: "publication " + name},
		{part: partPublication, SQL: alter + "ADD TABLE " + table.published(columns) + ";", Why: why, Alters: "publication " + name},
	}
}

// published is the table as a publication names it.
func (t *tableFacts) published(columns []string) string {
	if columns == nil {
		return t.relation.name.sql()
	}
	return t.relation.name.sql() + " (" + quotedList(columns) + ")"
}

// partial says what of the table is kept out of the publication, "" for nothing needed.
func (p *publicationFacts) partial(table *tableFacts) string {
	if p.filtered {
		return "publishes only rows where " + p.filter
	}
	if !p.holds || !p.listed() {
		return ""
	}
	for _, column := range table.read() {
		if !slices.Contains(p.columns, column) {
			return "does not publish column " + column
		}
	}
	const refused = ", so that the server refuses the application every UPDATE and DELETE"
	if table.relation.identity == 'f' {
		return "publishes a list of columns under replica identity FULL" + refused
	}
	for _, c := range table.relation.columns {
		if c.key && !slices.Contains(p.columns, c.name) {
			return "does not publish column " + c.name + " of the replica identity" + refused
		}
	}
	return ""
}
