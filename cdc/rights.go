package cdc

import (
	"context"
	"errors"
	"slices"
	"strings"
)

// columnPlace is the system column that says where a row lies: ranges of it share a load among
// connections. A right to columns does not cover it unless it is named.
const columnPlace = "ctid"

// read are the columns that the reader asks for by SQL.
func (t *tableFacts) read() []string {
	all := []string{columnRestaurant, columnClient}
	if t.layout.idName != "" {
		all = append([]string{t.layout.idName}, all...)
	}
	return all
}

// readRights is what a role may not of what reading the table takes.
type readRights struct {
	role     string
	usage    bool     // of the schema
	lacking  []string // columns that it may not read
	filtered bool     // row-level security hides rows from it
}

// inspectRights judges the rights of the role that asks.
func inspectRights(ctx context.Context, q querier, t *tableFacts) (readRights, error) {
	var r readRights
	err := q.QueryRow(ctx, `
		SELECT current_user, has_schema_privilege(c.relnamespace, 'USAGE'), row_security_active(c.oid),
		       ARRAY(SELECT a.attname::text FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attname = ANY ($2)
		             AND NOT has_column_privilege(c.oid, a.attnum, 'SELECT') ORDER BY a.attnum)
		FROM pg_class c WHERE c.oid = $1`, t.relation.oid, append(t.read(), columnPlace)).
		Scan(&r.role, &r.usage, &r.filtered, &r.lacking)
	if err != nil {
		return r, &Error{Op: "read rights to table", On: t.relation.name.String(), Err: err}
	}
	return r, nil
}

// placed reports whether the role may ask where rows lie; a load does without.
func (r *readRights) placed() bool { return !slices.Contains(r.lacking, columnPlace) }

// readable reports whether the role may read all that is needed; where rows lie is not.
func (r *readRights) readable() bool {
	return len(r.lacking) == 0 || (len(r.lacking) == 1 && !r.placed())
}

// verify names the right that is missing, and who can give it.
func (r *readRights) verify(t *tableFacts) error {
	e := &Error{Op: "read table", On: t.relation.name.String(), Permanent: true}
	switch {
	case !r.usage || !r.readable():
		e.Err, e.Fix = errors.New("no right to read it"), strings.Join(r.grants(t), " ")
	case r.filtered:
		e.Err = errors.New("row-level security hides rows from this role, and the log does not")
		e.Fix = "ALTER ROLE " + quoted(r.role) + " BYPASSRLS;"
	default:
		return nil
	}
	return e
}

// grants are the statements that give what reading lacks, and no more.
func (r *readRights) grants(t *tableFacts) []string {
	var all []string
	if !r.usage {
		all = append(all, grantUsage(t, r.role))
	}
	if !r.readable() {
		all = append(all, grantSelect(t, r.role))
	}
	return all
}

func grantUsage(t *tableFacts, role string) string {
	return "GRANT USAGE ON SCHEMA " + quoted(t.relation.name.schema) + " TO " + quoted(role) + ";"
}

func grantSelect(t *tableFacts, role string) string {
	return "GRANT SELECT (" + quotedList(append(t.read(), columnPlace)) + ") ON " + t.relation.name.sql() + " TO " + quoted(role) + ";"
}

func quotedList(names []string) string {
	all := make([]string, len(names))
	for i, name := range names {
		all[i] = quoted(name)
	}
	return strings.Join(all, ", ")
}
