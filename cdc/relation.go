package cdc

import (
	"errors"
	"fmt"
	"strings"
)

// The columns the join needs (the contract's names).
const (
	columnRestaurant = "restaurant_id"
	columnClient     = "client_id"
)

// Type oids that decide something (src/include/catalog/pg_type.dat).
const (
	oidInt8   = 20
	oidInt2   = 21
	oidInt4   = 23
	oidBpchar = 1042
)

// relation is a table as a Relation message or the catalog describes it.
type relation struct {
	oid      uint32
	name     tableName
	identity byte // pg_class.relreplident: d, n, f, i
	columns  []column
}

type column struct {
	name string
	typ  uint32
	key  bool // part of the replica identity
	// padded: its values are character(n). The log names a domain, not what that is over.
	padded bool
}

// layout says where in a relation's tuples the needed values are, and what an old tuple of it
// tells.
type layout struct {
	// keyed: an old row is known by its id alone, so the index keeps id -> row. Otherwise
	// an old row is known by its restaurant and client.
	keyed              bool
	id                 int // the id's column when keyed, else -1
	idName             string
	restaurant, client int
	types              [2]uint32 // of restaurant and client
	padded             [2]bool   // theirs are character(n)
	columns            int
}

// layoutOf finds the needed columns by name and decides by the replica identity. The error
// says what to do.
func layoutOf(rel relation) (layout, error) {
	l := layout{id: -1, restaurant: -1, client: -1, columns: len(rel.columns)}
	var keys []int
	for i, c := range rel.columns {
		switch c.name {
		case columnRestaurant:
			l.restaurant, l.types[0], l.padded[0] = i, c.typ, c.padded || c.typ == oidBpchar
		case columnClient:
			l.client, l.types[1], l.padded[1] = i, c.typ, c.padded || c.typ == oidBpchar
		}
		if c.key {
			keys = append(keys, i)
		}
	}
	if err := l.missing(rel); err != nil {
		return l, err
	}
	if rel.identity == 'f' || (rel.columns[l.restaurant].key && rel.columns[l.client].key) {
		return l, nil
	}
	if len(keys) == 1 && isInteger(rel.columns[keys[0]].typ) {
		l.keyed, l.id, l.idName = true, keys[0], rel.columns[keys[0]].name
		return l, nil
	}
	return l, identityError(rel, len(keys))
}

func (l *layout) missing(rel relation) error {
	var names []string
	if l.restaurant < 0 {
		names = append(names, columnRestaurant)
	}
	if l.client < 0 {
		names = append(names, columnClient)
	}
	if len(names) == 0 {
		return nil
	}
	return &Error{
		Op: "find columns of table", On: rel.name.String(), Permanent: true,
		Err: fmt.Errorf("no column %s", strings.Join(names, ", ")),
		Fix: "ALTER TABLE " + rel.name.sql() + " RENAME … TO " + names[0] + "; -- or name the right table in source.table",
	}
}

// identityFault is a replica identity by which old rows cannot be told.
type identityFault struct{ why *Error }

func (e *identityFault) Error() string { return e.why.Error() }
func (e *identityFault) Unwrap() error { return e.why }

func identityError(rel relation, keys int) error {
	e := &Error{Op: "follow table", On: rel.name.String(), Permanent: true}
	alter := "ALTER TABLE " + rel.name.sql() + " REPLICA IDENTITY "
	full := alter + "FULL;"
	switch {
	case rel.identity == 'n':
		e.Err = errors.New("replica identity NOTHING: once it is published, the server refuses its application every UPDATE and DELETE")
		e.Fix = alter + "DEFAULT; -- or, without a primary key: " + full
	case keys == 0:
		e.Err = errors.New("no primary key and replica identity DEFAULT: once it is published, the server refuses its application every UPDATE and DELETE")
		e.Fix = full + " -- or add a primary key"
	default:
		e.Err = errors.New("its replica identity is neither a single integer column nor holds both " + columnRestaurant + " and " + columnClient)
		e.Fix = full
	}
	return &identityFault{e}
}

func isInteger(typ uint32) bool { return typ == oidInt2 || typ == oidInt4 || typ == oidInt8 }

// sameRows reports whether an index loaded under l can be carried on with tuples of m: the
// same way of knowing an old row, and the same types. Other columns may come and go.
func (l *layout) sameRows(m *layout) bool {
	return l.keyed == m.keyed && l.idName == m.idName && l.types == m.types
}
