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
	holds    bool // the table is in it
	filter   string
	columns  []string // published of the table; nil before PostgreSQL 15: all
	listed   bool     // by a list, which a later column is not in
	kinds    string   // of changes that it publishes
}

func inspectPublication(ctx context.Context, q querier, name string, table tableName) (publicationFacts, error) {
	var p publicationFacts
	err := q.QueryRow(ctx, `
		SELECT p.pubinsert AND p.pubupdate AND p.pubdelete AND p.pubtruncate, p.pubviaroot,
		       t.tablename IS NOT NULL OR p.puballtables OR EXISTS (SELECT FROM pg_publication_rel r JOIN pg_class c ON c.oid = r.prrelid
		               JOIN pg_namespace n ON n.oid = c.relnamespace WHERE r.prpubid = p.oid AND n.nspname = $2 AND c.relname = $3),
		       coalesce(to_jsonb(t)->>'rowfilter', ''),
		       ARRAY(SELECT jsonb_array_elements_text(to_jsonb(t)->'attnames')),
		       EXISTS (SELECT FROM pg_publication_rel r JOIN pg_class c ON c.oid = r.prrelid JOIN pg_namespace n ON n.oid = c.relnamespace
		               WHERE r.prpubid = p.oid AND n.nspname = $2 AND c.relname = $3 AND to_jsonb(r)->>'prattrs' IS NOT NULL),
		       concat_ws(', ', CASE WHEN p.pubinsert THEN 'insert' END, CASE WHEN p.pubupdate THEN 'update' END,
		                 CASE WHEN p.pubdelete THEN 'delete' END, CASE WHEN p.pubtruncate THEN 'truncate' END)
		FROM pg_publication p
		LEFT JOIN pg_publication_tables t ON t.pubname = p.pubname AND t.schemaname = $2 AND t.tablename = $3
		WHERE p.pubname = $1`, name, table.schema, table.name).
		Scan(&p.complete, &p.viaRoot, &p.holds, &p.filter, &p.columns, &p.listed, &p.kinds)
	if errors.Is(err, pgx.ErrNoRows) {
		return p, nil
	}
	if err != nil {
		return p, &Error{Op: "read publication", On: name, Err: err}
	}
	p.exists = true
	return p, nil
}

// publicationSteps says how to make the publication publish every change of the table. The table
// is added with all its columns: what a list of columns forbids its owner later (see partial) is
// for the owner to choose. What the publication holds of it already stays as it is; where that is
// not enough the steps are an error that names the fix.
func publicationSteps(name string, p publicationFacts, table *tableFacts) ([]Step, error) {
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
	if p.filter != "" {
		return "publishes only rows where " + p.filter
	}
	if !p.holds || len(p.columns) == 0 {
		return ""
	}
	for _, column := range table.read() {
		if !slices.Contains(p.columns, column) {
			return "does not publish column " + column
		}
	}
	if !p.listed {
		return ""
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
