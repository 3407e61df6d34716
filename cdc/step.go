package cdc

import (
	"context"
	"slices"

	"github.com/jackc/pgx/v5"
)

// Step is one statement that prepares the source database.
type Step struct {
	// SQL is complete, with quoted names and a semicolon.
	SQL string
	// Settles is what whoever runs SQL by hand runs after it, "" for nothing: a statement that ends when
	// what SQL did holds.
	Settles string
	// Why says what is missing without it, to follow Subject, or "it ".
	Why string
	// Subject is what it is about, in the steps of a Script.
	Subject string
	// Alters names what it changes that was there before, "" for nothing: slotsetup does that
	// only when it was told to.
	Alters string
	// Obstacle says why it cannot run now, and what to do; "" when it can.
	Obstacle string

	part part
}

// part is what a step is about.
type part int

const (
	partRole        part = iota // there is none
	partAttribute               // what the role may, of itself
	partGrant                   // what the role is allowed of others
	partIdentity                // of the table
	partOldSlot                 // one that is of no use
	partPublication             // of the table
	partSlot
)

// needs are the parts that must be in order before this one: no table is published under an
// identity by which the server would refuse its application changes, and no slot is older
// than its publication.
func (p part) needs() []part {
	switch p {
	case partAttribute, partGrant:
		return []part{partRole}
	case partOldSlot:
		return []part{partIdentity}
	case partPublication:
		return []part{partIdentity, partOldSlot}
	case partSlot:
		return []part{partIdentity, partOldSlot, partPublication}
	default:
		return nil
	}
}

// waitsFor reports whether one of these parts, which are not in order, must come first.
func (s Step) waitsFor(open []part) bool {
	return slices.ContainsFunc(s.part.needs(), func(p part) bool { return slices.Contains(open, p) })
}

// run runs the statement, as the daemon does.
func (s Step) run(ctx context.Context, cfg *Config, conn *pgx.Conn) error {
	_, err := conn.Exec(ctx, s.SQL)
	if err == nil {
		return nil
	}
	e := &Error{Op: "prepare source database:", On: s.SQL, Err: err}
	if sqlState(err) == codeInsufficientPrivilege {
		e.Permanent, e.Fix = true, "run slotsetup apply as the table's owner or a superuser (setup.dsn), or as such run this statement"
	}
	cfg.Log.Debug("set-up statement was refused", "sql", s.SQL, "err", err)
	return e
}
