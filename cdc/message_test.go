package cdc

import (
	"bytes"
	"encoding/binary"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"example.com/tiffin/cache"
)

// wal builds messages as the server does.
type wal struct{ bytes.Buffer }

func (w *wal) put(values ...any) []byte {
	w.Reset()
	for _, v := range values {
		switch v := v.(type) {
		case string:
			w.WriteString(v)
			w.WriteByte(0)
		case []byte:
			w.Write(v)
		default:
			_ = binary.Write(w, binary.BigEndian, v)
		}
	}
	return bytes.Clone(w.Bytes())
}

// row builds a tuple; "\x00n" is a NULL, "\x00u" an unchanged TOAST value.
func (w *wal) row(values ...string) []byte {
	parts := []any{uint16(len(values))}
	for _, v := range values {
		if kind, ok := strings.CutPrefix(v, "\x00"); ok {
			parts = append(parts, kind[0])
			continue
		}
		parts = append(parts, byte('t'), uint32(len(v)), []byte(v))
	}
	return w.put(parts...)
}

func beginOf(final uint64, xid uint32) []byte {
	return new(wal).put(byte('B'), final, int64(0), xid)
}

func commitOf(end uint64) []byte {
	return new(wal).put(byte('C'), byte(0), end-8, end, int64(0))
}

func relationOf(oid uint32, schema, name string, identity byte, key string, columns ...string) []byte {
	parts := []any{byte('R'), oid, schema, name, identity, uint16(len(columns))}
	for _, c := range columns {
		typ := uint32(1043)
		if c == "id" {
			typ = oidInt4
		}
		flag := byte(0)
		if strings.Contains(key, c) {
			flag = 1
		}
		parts = append(parts, flag, c, typ, int32(-1))
	}
	return new(wal).put(parts...)
}

// noted writes down what is staged.
type noted struct{ ops []string }

func (n *noted) note(parts ...string) error {
	n.ops = append(n.ops, strings.Join(parts, " "))
	return nil
}

func text(b []byte) string {
	if b == nil {
		return "-"
	}
	return string(b)
}

func number(id int64) string { return string(rune('0' + id)) }

func (n *noted) Insert(id int64, r, c []byte) error { return n.note("+", number(id), text(r), text(c)) }
func (n *noted) Delete(_ int64, r, c []byte) error  { return n.note("-", text(r), text(c)) }
func (n *noted) DeleteID(id int64) error            { return n.note("-", number(id)) }
func (n *noted) UpdateID(id int64, r, c []byte) error {
	return n.note("=", number(id), text(r), text(c))
}

func (n *noted) MoveID(old, id int64, r, c []byte) error {
	return n.note(">", number(old), number(id), text(r), text(c))
}
func (n *noted) Truncate() error { return n.note("truncate") }
func (n *noted) Discard()        { n.ops = nil }
func (n *noted) Len() int        { return len(n.ops) }

const tableOID = 16384

func assemblerFor(t testing.TB, identity byte, key string) (*assembler, *noted) {
	t.Helper()
	rel, err := decodeRelation(relationOf(tableOID, "public", "t", identity, key, "id", "client_id", "restaurant_id")[1:])
	if err != nil {
		t.Fatal(err)
	}
	l, err := layoutOf(rel)
	if err != nil {
		t.Fatal(err)
	}
	txn := &noted{}
	return &assembler{
		table: tableName{"public", "t"}, oid: tableOID, loaded: l, snapshot: cache.Snapshot{Xmin: 500, Xmax: 500}, xids: 500,
		txn: txn, m: NewMetrics(nil), log: slog.New(slog.DiscardHandler), now: time.Now, rels: map[uint32]followed{},
	}, txn
}

func (a *assembler) all(msgs ...[]byte) (done *ended, err error) {
	for _, msg := range msgs {
		if done, err = a.message(msg, 1000); err != nil {
			return nil, err
		}
	}
	return done, nil
}

func changeMsg(op byte, parts ...any) []byte {
	return new(wal).put(append([]any{op, uint32(tableOID)}, parts...)...)
}

// Each message becomes the change that its replica identity allows to know.
func TestChangesBecomeStaged(t *testing.T) {
	t.Parallel()
	row := new(wal).row
	const u = "\x00u"
	for name, c := range map[string]struct {
		identity byte
		key      string
		msg      []byte
		want     string
	}{
		"keyed insert":           {'d', "id", changeMsg('I', byte('N'), row("7", "c", "r")), "+ 7 r c"},
		"keyed update":           {'d', "id", changeMsg('U', byte('N'), row("7", "c", "r")), "= 7 r c"},
		"keyed update, toast":    {'d', "id", changeMsg('U', byte('N'), row("7", u, "r")), "= 7 r -"},
		"keyed update of key":    {'d', "id", changeMsg('U', byte('K'), row("7", "\x00n", "\x00n"), byte('N'), row("8", u, "r")), "> 7 8 r -"},
		"keyed delete":           {'d', "id", changeMsg('D', byte('K'), row("7", "\x00n", "\x00n")), "- 7"},
		"keyed null":             {'d', "id", changeMsg('I', byte('N'), row("7", "\x00n", "r")), "+ 7 \x00 \x00"},
		"full update":            {'f', "", changeMsg('U', byte('O'), row("7", "c", "r"), byte('N'), row("7", "d", "r")), "- r c|+ 0 r d"},
		"full update, toast":     {'f', "", changeMsg('U', byte('O'), row("7", "c", "r"), byte('N'), row("7", u, "s")), "- r c|+ 0 s c"},
		"full update, same pair": {'f', "", changeMsg('U', byte('O'), row("7", "c", "r"), byte('N'), row("8", "c", "r")), ""},
		"full delete":            {'f', "", changeMsg('D', byte('O'), row("7", "c", "r")), "- r c"},
		"index update, no key":   {'i', "client_id restaurant_id", changeMsg('U', byte('N'), row("7", "c", "r")), ""},
		"index update":           {'i', "client_id restaurant_id", changeMsg('U', byte('K'), row("\x00n", "c", "r"), byte('N'), row("7", "d", "r")), "- r c|+ 0 r d"},
		"index delete":           {'i', "client_id restaurant_id", changeMsg('D', byte('K'), row("\x00n", "c", "r")), "- r c"},
		"truncate of several":    {'f', "", new(wal).put(byte('T'), uint32(2), byte(1), uint32(5), uint32(tableOID)), "truncate"},
		"truncate of others":     {'f', "", new(wal).put(byte('T'), uint32(1), byte(0), uint32(5)), ""},
		"another relation":       {'f', "", new(wal).put(byte('I'), uint32(5), byte('N'), row("x")), ""},
		"a logical message":      {'f', "", new(wal).put(byte('M'), byte(1), uint64(5), "x", uint32(0)), ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a, txn := assemblerFor(t, c.identity, c.key)
			done, err := a.all(beginOf(2000, 600), relationOf(tableOID, "public", "t", c.identity, c.key, "id", "client_id", "restaurant_id"),
				relationOf(5, "public", "other", 'd', "x", "x"), c.msg, commitOf(2008))
			if err != nil {
				t.Fatal(err)
			}
			if got := strings.Join(txn.ops, "|"); got != c.want {
				t.Errorf("staged %q, want %q", got, c.want)
			}
			if done.changed != (c.want != "") || done.commit.Xid != 600 || done.commit.End != 2008 {
				t.Errorf("ended %+v", done)
			}
		})
	}
}

// What the index has already is not staged: seen by the load's snapshot, or below the
// position. Even when its table looked different then.
func TestKnownTransactionsAreSkipped(t *testing.T) {
	t.Parallel()
	insert := changeMsg('I', byte('N'), new(wal).row("7", "c"))
	for name, first := range map[string][]byte{"seen": beginOf(2000, 499), "sent again": beginOf(900, 600)} {
		a, txn := assemblerFor(t, 'd', "id")
		done, err := a.all(first, relationOf(tableOID, "public", "t", 'd', "id", "id", "customer"), insert, commitOf(2008))
		if err != nil || done.changed || len(txn.ops) > 0 {
			t.Errorf("%s: %+v, %v, %v", name, done, txn.ops, err)
		}
		if _, err = a.all(beginOf(2010, 601), insert); err == nil {
			t.Errorf("%s: and a new transaction without the column passed", name)
		}
	}
}

// A relation that does not fit what was loaded ends the session for a rebuild, at its first
// change that counts.
func TestChangedRelationsAskForARebuild(t *testing.T) {
	t.Parallel()
	insert := changeMsg('I', byte('N'), new(wal).row("7", "c", "r"))
	for reason, rel := range map[string][]byte{
		"identity": relationOf(tableOID, "public", "t", 'f', "", "id", "client_id", "restaurant_id"),
		"columns":  relationOf(tableOID, "public", "t", 'd', "id", "id", "customer", "restaurant_id"),
		"table":    relationOf(tableOID, "public", "renamed", 'd', "id", "id", "client_id", "restaurant_id"),
	} {
		a, _ := assemblerFor(t, 'd', "id")
		_, err := a.all(beginOf(2000, 600), rel, insert)
		var rebuild *rebuildError
		if !errors.As(err, &rebuild) || rebuild.reason != reason {
			t.Errorf("%s: %v", reason, err)
		}
	}
	a, _ := assemblerFor(t, 'd', "id")
	replaced := relationOf(9, "public", "t", 'd', "id", "id", "client_id", "restaurant_id")
	_, err := a.all(beginOf(2000, 600), replaced, new(wal).put(byte('I'), uint32(9), byte('N'), new(wal).row("7", "c", "r")))
	var rebuild *rebuildError
	if !errors.As(err, &rebuild) || rebuild.reason != "table" {
		t.Errorf("replaced: %v", err)
	}
}

// A stream that loses a beginning or an end is no stream to go on with: what follows would be
// staged under another transaction's id.
func TestMessagesOutOfOrderAreRefused(t *testing.T) {
	t.Parallel()
	insert := changeMsg('I', byte('N'), new(wal).row("7", "c", "r"))
	truncate := new(wal).put(byte('T'), uint32(1), byte(0), uint32(tableOID))
	rel := relationOf(tableOID, "public", "t", 'd', "id", "id", "client_id", "restaurant_id")
	for name, msgs := range map[string][][]byte{
		"a beginning within a transaction": {beginOf(2000, 600), rel, insert, beginOf(2010, 601)},
		"a change outside of one":          {rel, insert},
		"a truncate outside of one":        {truncate},
		"an end without a beginning":       {commitOf(2008)},
	} {
		a, _ := assemblerFor(t, 'd', "id")
		if done, err := a.all(msgs...); err == nil {
			t.Errorf("%s passed: %+v", name, done)
		}
	}
}

// A tuple of more or fewer columns than were announced is not one to look for values in.
func TestTuplesHaveTheColumnsAnnounced(t *testing.T) {
	t.Parallel()
	row := new(wal).row
	for name, msg := range map[string][]byte{
		"fewer":        changeMsg('I', byte('N'), row("7", "c")),
		"more":         changeMsg('I', byte('N'), row("7", "c", "r", "x")),
		"more, of old": changeMsg('U', byte('O'), row("7", "c", "r", "x"), byte('N'), row("7", "d", "r")),
	} {
		a, txn := assemblerFor(t, 'f', "")
		_, err := a.all(beginOf(2000, 600), relationOf(tableOID, "public", "t", 'f', "", "id", "client_id", "restaurant_id"), msg)
		if err == nil || len(txn.ops) > 0 {
			t.Errorf("%s: %v, staged %q", name, err, txn.ops)
		}
	}
}
