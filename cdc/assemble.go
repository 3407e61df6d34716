package cdc

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"time"

	"example.com/tiffin/cache"
)

// staging gathers one transaction: *cache.Txn. It copies what it keeps.
type staging interface {
	Insert(id int64, restaurant, client []byte) error
	Delete(id int64, restaurant, client []byte) error
	DeleteID(id int64) error
	UpdateID(id int64, restaurant, client []byte) error
	MoveID(oldID, newID int64, restaurant, client []byte) error
	Truncate() error
	Discard()
	Len() int
}

// nothing stands for the restaurant and the client of a row with a NULL in either: no
// campaign can carry a NUL byte, so such a row is kept and never answered.
var nothing = []byte(cache.Nothing)

// assembler makes transactions of messages, for one table. It is a state machine without
// I/O; one goroutine uses it.
type assembler struct {
	table    tableName
	oid      uint32 // of the table that was loaded
	loaded   layout
	snapshot cache.Snapshot // of the load
	xids     uint64         // a 64-bit xid of about now

	commits *commits

	txn  staging
	m    *Metrics
	log  *slog.Logger
	now  func() time.Time
	nag  time.Time // when a NULL was last warned of
	rels map[uint32]followed

	open bool
	skip bool // the transaction is in the index already
	xid  uint64
	row  change
}

// followed is what is known of a relation of the stream.
type followed struct {
	layout layout
	err    error // why its changes cannot be taken: shown when there is one
}

// ended is a transaction that the stream completed.
type ended struct {
	commit  cache.Commit
	changed bool // txn holds changes to apply
}

// message takes one message; done is set by a Commit. applied is the position below which
// the index holds everything.
func (a *assembler) message(msg []byte, applied cache.LSN) (done *ended, err error) {
	if len(msg) == 0 {
		return nil, errors.New("empty replication message")
	}
	switch op, body := msg[0], msg[1:]; op {
	case 'B':
		return nil, a.begin(body, applied)
	case 'C':
		return a.commit(body)
	case 'R':
		return nil, a.relation(body)
	case 'I', 'U', 'D':
		return nil, a.change(op, body)
	case 'T':
		return nil, a.truncate(body)
	case 'M', 'O', 'Y': // a logical message, an origin, a type: nothing of ours
		return nil, nil
	default:
		return nil, fmt.Errorf("replication message of unknown kind %q", op)
	}
}

// begin decides whether the transaction is in the index already: sent again after a
// reconnection (its commit lies below the applied position), or seen by the load's snapshot.
func (a *assembler) begin(body []byte, applied cache.LSN) error {
	b, err := decodeBegin(body)
	if err != nil {
		return err
	}
	if a.open {
		return errors.New("transaction begins within another")
	}
	a.xid = extend(a.xids, b.xid)
	a.xids = max(a.xids, a.xid)
	a.open = true
	again := cache.LSN(b.final) < applied
	if again && !a.commits.sentBefore(b.final, b.at) {
		return rewound(fmt.Errorf("transaction %d at %s is none that was there before", a.xid, cache.LSN(b.final)))
	}
	if !again {
		a.commits.note(b.final, b.at)
	}
	a.skip = again || a.snapshot.Sees(a.xid)
	return nil
}

func (a *assembler) commit(body []byte) (*ended, error) {
	c, err := decodeCommit(body)
	if err != nil {
		return nil, err
	}
	if !a.open {
		return nil, errors.New("commit without a transaction")
	}
	a.open = false
	return &ended{
		commit:  cache.Commit{Xid: a.xid, End: cache.LSN(c.end), Time: c.at},
		changed: !a.skip && a.txn.Len() > 0,
	}, nil
}

// relation remembers what the following tuples look like. Whether they can be taken is
// decided when there is one: a description alone, or one within a transaction that the load
// has seen, changes nothing.
func (a *assembler) relation(body []byte) error {
	rel, err := decodeRelation(body)
	if err != nil {
		return err
	}
	if rel.oid != a.oid && rel.name != a.table {
		delete(a.rels, rel.oid)
		return nil
	}
	var f followed
	f.layout, f.err = layoutOf(rel)
	switch {
	case f.err != nil:
		f.err = &rebuildError{reason: "columns", err: f.err}
	case rel.oid != a.oid:
		f.err = &rebuildError{reason: "table", err: fmt.Errorf("table %s was replaced by another of the same name", a.table)}
	case rel.name != a.table:
		f.err = &rebuildError{reason: "table", err: fmt.Errorf("table %s was renamed to %s", a.table, rel.name)}
	case f.layout.keyed != a.loaded.keyed || f.layout.idName != a.loaded.idName:
		f.err = &rebuildError{reason: "identity", err: fmt.Errorf("the replica identity of table %s was changed", a.table)}
	case !f.layout.sameRows(&a.loaded):
		f.err = &rebuildError{reason: "columns", err: fmt.Errorf("the type of a needed column of table %s was changed", a.table)}
	}
	f.layout.padded = a.loaded.padded // of the same types
	a.rels[rel.oid] = f
	return nil
}

func (a *assembler) change(op byte, body []byte) error {
	if !a.open {
		return fmt.Errorf("change %c outside a transaction", op)
	}
	if a.skip || len(body) < 4 {
		return nil
	}
	if err := decodeChange(op, body, &a.row); err != nil {
		return err
	}
	f, ours := a.rels[a.row.relation]
	if !ours {
		return nil
	}
	if f.err != nil {
		return f.err
	}
	l := &f.layout
	if (len(a.row.new) > 0 && len(a.row.new) != l.columns) || (a.row.oldKind != 0 && len(a.row.old) != l.columns) {
		return fmt.Errorf("change %c of table %s: not the %d columns announced", op, a.table, l.columns)
	}
	switch op {
	case 'I':
		a.m.inserts.Inc()
		return a.insert(l)
	case 'U':
		a.m.updates.Inc()
		return a.update(l)
	default:
		a.m.deletes.Inc()
		return a.delete(l)
	}
}

func (a *assembler) insert(l *layout) error {
	id, err := l.idOf(a.row.new)
	if err != nil {
		return err
	}
	restaurant, client, err := a.pair(l, a.row.new)
	if err != nil {
		return err
	}
	return a.txn.Insert(id, restaurant, client)
}

func (a *assembler) update(l *layout) error {
	if l.keyed {
		return a.updateKeyed(l)
	}
	if a.row.oldKind == 0 {
		return nil // USING INDEX, and the pair is in the index: it did not change
	}
	for _, i := range []int{l.restaurant, l.client} {
		if a.row.new[i].kind == 'u' {
			a.row.new[i] = a.row.old[i]
		}
	}
	restaurant, client, err := a.pair(l, a.row.old)
	if err != nil {
		return err
	}
	newRestaurant, newClient, err := a.pair(l, a.row.new)
	if err != nil {
		return err
	}
	if bytes.Equal(restaurant, newRestaurant) && bytes.Equal(client, newClient) {
		return nil
	}
	if err := a.txn.Delete(0, restaurant, client); err != nil {
		return err
	}
	return a.txn.Insert(0, newRestaurant, newClient)
}

func (a *assembler) updateKeyed(l *layout) error {
	id, err := l.idOf(a.row.new)
	if err != nil {
		return err
	}
	restaurant, client, err := a.pairOrUnchanged(l)
	if err != nil {
		return err
	}
	if a.row.oldKind == 0 {
		return a.txn.UpdateID(id, restaurant, client)
	}
	old, err := l.idOf(a.row.old)
	if err != nil {
		return err
	}
	return a.txn.MoveID(old, id, restaurant, client)
}

func (a *assembler) delete(l *layout) error {
	if l.keyed {
		id, err := l.idOf(a.row.old)
		if err != nil {
			return err
		}
		return a.txn.DeleteID(id)
	}
	restaurant, client, err := a.pair(l, a.row.old)
	if err != nil {
		return err
	}
	return a.txn.Delete(0, restaurant, client)
}

func (a *assembler) truncate(body []byte) error {
	if !a.open {
		return errors.New("truncate outside a transaction")
	}
	oids, err := decodeTruncate(body)
	if err != nil || a.skip {
		return err
	}
	if !slices.Contains(oids, a.oid) {
		return nil
	}
	a.m.truncates.Inc()
	return a.txn.Truncate()
}

// pairOrUnchanged gives nil for a value whose TOAST pointer did not change; what it was the index
// knows, unless the row was set aside for a NULL (cache.Nothing).
func (a *assembler) pairOrUnchanged(l *layout) (restaurant, client []byte, err error) {
	r, c := a.row.new[l.restaurant], a.row.new[l.client]
	if r.kind == 'n' || c.kind == 'n' || r.kind != 'u' && c.kind != 'u' {
		return a.pair(l, a.row.new)
	}
	if r.kind == 't' {
		restaurant = trimmed(r.text, l.padded[0])
	}
	if c.kind == 't' {
		client = trimmed(c.text, l.padded[1])
	}
	return restaurant, client, nil
}

func (a *assembler) pair(l *layout, row []field) (restaurant, client []byte, err error) {
	r, c := row[l.restaurant], row[l.client]
	if r.kind == 't' && c.kind == 't' {
		return trimmed(r.text, l.padded[0]), trimmed(c.text, l.padded[1]), nil
	}
	if r.kind == 'n' || c.kind == 'n' {
		a.warnOfNull()
		return nothing, nothing, nil
	}
	return nil, nil, fmt.Errorf("a row of table %s without its %s or %s", a.table, columnRestaurant, columnClient)
}

// warnOfNull says at most once a minute that rows are no subscriptions.
func (a *assembler) warnOfNull() {
	if now := a.now(); now.Sub(a.nag) > time.Minute {
		a.nag = now
		a.log.Warn("row with a NULL restaurant or client is no subscription", "table", a.table.String())
	}
}

func (l *layout) idOf(row []field) (int64, error) {
	if !l.keyed {
		return 0, nil
	}
	if row[l.id].kind != 't' {
		return 0, fmt.Errorf("a row without its key %s", l.idName)
	}
	id, err := strconv.ParseInt(string(row[l.id].text), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("key %s: %w", l.idName, err)
	}
	return id, nil
}

// trimmed takes the padding off a character(n), as the cast to text of a load does.
func trimmed(text []byte, padded bool) []byte {
	if padded {
		return bytes.TrimRight(text, " ")
	}
	return text
}
