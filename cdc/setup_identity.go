package cdc

import (
	"context"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
)

// uniqueKey is an index that can be a replica identity.
type uniqueKey struct {
	name    string
	primary bool
	columns []string
}

func uniqueKeys(ctx context.Context, q querier, t *tableFacts) ([]uniqueKey, error) {
	fail := func(err error) ([]uniqueKey, error) {
		return nil, &Error{Op: "read indexes of table", On: t.relation.name.String(), Err: err}
	}
	// What ALTER TABLE … REPLICA IDENTITY USING INDEX accepts (ATExecReplicaIdentity in tablecmds.c).
	rows, err := q.Query(ctx, `
		SELECT c.relname, i.indisprimary, array_agg(a.attname::text ORDER BY a.attnum)
		FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
		JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = ANY ((i.indkey::int2[])[0:i.indnkeyatts - 1])
		WHERE i.indrelid = $1 AND i.indisunique AND i.indimmediate AND i.indisvalid AND i.indpred IS NULL AND i.indexprs IS NULL
		GROUP BY c.relname, i.indisprimary, i.indnkeyatts HAVING bool_and(a.attnotnull)
		ORDER BY NOT i.indisprimary, i.indnkeyatts, c.relname`, t.relation.oid)
	if err != nil {
		return fail(err)
	}
	keys, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (k uniqueKey, err error) {
		return k, row.Scan(&k.name, &k.primary, &k.columns)
	})
	if err != nil {
		return fail(err)
	}
	return keys, nil
}

// identityChoice is a replica identity by which the index can be kept.
type identityChoice struct {
	relation relation
	layout   layout
	clause   string // of ALTER TABLE … REPLICA IDENTITY
	current  bool
}

// identityChoices are the identities that the table can have: the present one if it serves, else
// the one that costs the source least, come first. FULL is always among them.
func identityChoices(t *tableFacts, keys []uniqueKey, unfit bool) []identityChoice {
	var all []identityChoice
	if !unfit {
		all = append(all, identityChoice{relation: t.relation, layout: t.layout, clause: identityClause(t.relation.identity), current: true})
	}
	add := func(kind byte, key uniqueKey, clause string) {
		rel := t.relation.identified(kind, key.columns)
		l, err := layoutOf(rel)
		if err != nil || (!unfit && kind == t.relation.identity && slices.Equal(rel.keys(), t.relation.keys())) {
			return
		}
		all = append(all, identityChoice{relation: rel, layout: l, clause: clause})
	}
	for _, key := range keys {
		switch {
		case key.primary:
			add('d', key, "DEFAULT")
		case t.kind != 'p': // each partition has an index of its own
			add('i', key, "USING INDEX "+quoted(key.name))
		}
	}
	add('f', uniqueKey{}, "FULL")
	return all
}

// identityClause is how ALTER TABLE spells an identity, but for the index.
func identityClause(kind byte) string {
	return map[byte]string{'d': "DEFAULT", 'i': "USING INDEX", 'f': "FULL", 'n': "NOTHING"}[kind]
}

// identified is the relation as it would be under another replica identity.
func (r relation) identified(kind byte, key []string) relation {
	r.identity, r.columns = kind, slices.Clone(r.columns)
	for i, c := range r.columns {
		r.columns[i].key = kind == 'f' || slices.Contains(key, c.name)
	}
	return r
}

// keys are the columns of the replica identity.
func (r relation) keys() []string {
	var all []string
	for _, c := range r.columns {
		if c.key {
			all = append(all, c.name)
		}
	}
	return all
}

// steps make this the identity of the table and of its partitions.
func (c identityChoice) steps(t *tableFacts) []Step {
	if c.current {
		return nil
	}
	names := []tableName{t.relation.name}
	if t.kind == 'p' {
		for _, l := range t.leaves {
			names = append(names, l.name)
		}
	}
	var steps []Step
	for _, name := range names {
		steps = append(steps, Step{
			part: partIdentity, SQL: "ALTER TABLE " + name.sql() + " REPLICA IDENTITY " + c.clause + ";",
			Why: "does not tell which row an UPDATE or DELETE changed", Alters: "table " + name.String(),
		})
	}
	return steps
}

// columns are those that a publication of the table must have, nil for all: a list may leave out
// nothing of the replica identity, and FULL allows none.
func (c identityChoice) columns(version int) []string {
	if version < columnLists || c.relation.identity == 'f' {
		return nil
	}
	var all []string
	for _, col := range c.relation.columns {
		if col.key || col.name == columnRestaurant || col.name == columnClient {
			all = append(all, col.name)
		}
	}
	return all
}

// String is the identity with its columns.
func (c identityChoice) String() string {
	if c.relation.identity == 'f' {
		return c.clause
	}
	return c.clause + " (" + strings.Join(c.relation.keys(), ", ") + ")"
}

// identityCosts are what each choice takes of whom, the least first.
func identityCosts() []string {
	return []string{
		"DEFAULT, the primary key: of one integer column it costs the source nothing, and 8 bytes of memory a row in each tiffin process.",
		"USING INDEX, a unique index on NOT NULL columns, both " + columnRestaurant + " and " + columnClient + " among them (also a primary key): the log has",
		"  the old values of its columns for every DELETE, and for an UPDATE that changes one of them; no memory. Such an index is made by:",
		"  CREATE UNIQUE INDEX CONCURRENTLY … (" + columnRestaurant + ", " + columnClient + ");",
		"FULL: the log has the whole old row for every UPDATE and DELETE, and the publication can have no list of columns.",
		"NOTHING: refused. Once the table is published the server would refuse the application every UPDATE and DELETE.",
	}
}

func (s *survey) identitySection(cfg *Config) Section {
	first := s.identities[0]
	out := Section{Name: "identity", Title: "Replica identity: by what the log tells the old row of an UPDATE or DELETE. It belongs to the application's table."}
	out.Notes = identityCosts()
	if first.current {
		out.Notes = append(out.Notes, "It is "+first.String()+", which serves: kept.")
	} else {
		out.Notes = append(out.Notes, "It is "+identityClause(s.table.relation.identity)+", which does not serve: "+s.untold.Error()+". Of those that this table can have, "+first.String()+" costs least.")
	}
	if s.table.kind == 'p' {
		out.Notes = append(out.Notes, "A partition that is added later needs it as well.")
	}
	out.Steps = first.steps(s.table)
	for _, other := range s.identities[1:] {
		text := "ALTER TABLE " + s.table.relation.name.sql() + " REPLICA IDENTITY " + other.clause + ";"
		if s.publication.listed() {
			text = s.unpublish(cfg) + " " + text
		}
		out.Later = append(out.Later, Statement{Text: text, Then: "slotsetup plan", Why: "Instead: " + other.String()})
	}
	return out
}

// columnLists is the first server_version_num whose publications may hold some columns of a table.
const columnLists = 150000
