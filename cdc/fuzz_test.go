package cdc

import (
	"encoding/binary"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"example.com/tiffin/cache"
)

// captures reads what a real server sent, one file a scenario (see TestCapture): messages,
// each behind its length in four bytes.
func captures(t testing.TB) map[string][][]byte {
	t.Helper()
	files, err := filepath.Glob(filepath.Join("testdata", "capture", "*.wal"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no captures: %v", err)
	}
	all := map[string][][]byte{}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		all[strings.TrimSuffix(filepath.Base(file), ".wal")] = frames(data)
	}
	return all
}

func frames(data []byte) (msgs [][]byte) {
	for len(data) >= 4 {
		n := min(int(binary.BigEndian.Uint32(data)), len(data)-4)
		msgs, data = append(msgs, data[4:4+n:4+n]), data[4+n:]
	}
	return msgs
}

func framed(msgs ...[]byte) (data []byte) {
	for _, m := range msgs {
		data = append(binary.BigEndian.AppendUint32(data, uint32(len(m))), m...)
	}
	return data
}

// All kinds of messages that a server sends to us, and those of the newer protocols, which it
// does not, are among the seeds.
func TestCapturesHoldEveryMessage(t *testing.T) {
	t.Parallel()
	for name, kinds := range map[string]string{"default": "BCRYIUDTMO", "index": "BCRIUDT", "full": "BCRIUDT", "nothing": "BCRI", "stream": "SEcA"} {
		has := map[byte]bool{}
		unchanged := false
		for _, msg := range captures(t)[name] {
			has[msg[0]] = true
			var m change
			if strings.ContainsRune("IUD", rune(msg[0])) && decodeChange(msg[0], msg[1:], &m) == nil {
				for _, f := range m.new {
					unchanged = unchanged || f.kind == 'u'
				}
			}
		}
		for _, kind := range []byte(kinds) {
			if !has[kind] {
				t.Errorf("%s: no message %c", name, kind)
			}
		}
		if !unchanged && name != "nothing" && name != "stream" {
			t.Errorf("%s: no unchanged TOAST value", name)
		}
	}
}

// allocates reports how many bytes something takes, in this goroutine and others.
func allocates(do func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	do()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// bounded fails when something takes more memory than its input explains: a column of a tuple
// is one byte at least and takes 32, and what grows by doubling was taken three times over. The
// rest is for errors, and for what other goroutines of the test binary take.
func bounded(t *testing.T, input int, do func()) {
	t.Helper()
	least := ^uint64(0)
	for range 3 { // what others take is not taken thrice
		if least = min(least, allocates(do)); least <= uint64(128*input+64<<10) {
			return
		}
	}
	t.Errorf("%d bytes made it take %d", input, least)
}

// Any bytes give a message or an error, and take no more memory than their length explains.
func FuzzDecodeMessage(f *testing.F) {
	for _, msgs := range captures(f) {
		for _, msg := range msgs {
			f.Add(msg)
		}
	}
	f.Fuzz(func(t *testing.T, msg []byte) {
		if len(msg) == 0 {
			return
		}
		body := msg[1:]
		bounded(t, len(msg), func() {
			_, _ = decodeBegin(body)
			_, _ = decodeCommit(body)
			if rel, err := decodeRelation(body); err == nil {
				_, _ = layoutOf(rel)
			}
			_, _ = decodeTruncate(body)
			for _, op := range []byte("IUD") {
				var m change
				if err := decodeChange(op, body, &m); err == nil {
					total := 0
					for _, field := range append(slices.Clip(m.old), m.new...) {
						total += len(field.text)
					}
					if total > len(msg) {
						t.Errorf("values of %d bytes in a message of %d", total, len(msg))
					}
				}
			}
		})
	})
}

// strict is a staging that fails the test when something is staged that must not be.
type strict struct {
	t testing.TB
	a *assembler
	n int
}

func (s *strict) stage(texts ...[]byte) error {
	if !s.a.open || s.a.skip {
		s.t.Errorf("staged outside a transaction, or of one that the index has: open %t, skip %t", s.a.open, s.a.skip)
	}
	if s.n++; s.n%97 == 0 {
		return errors.New("refused")
	}
	for _, text := range texts {
		_ = len(text)
	}
	return nil
}

func (s *strict) Insert(_ int64, r, c []byte) error { return s.pair(r, c) }
func (s *strict) Delete(_ int64, r, c []byte) error { return s.pair(r, c) }
func (s *strict) DeleteID(int64) error              { return s.stage() }

func (s *strict) UpdateID(_ int64, r, c []byte) error  { return s.stage(r, c) }
func (s *strict) MoveID(_, _ int64, r, c []byte) error { return s.stage(r, c) }
func (s *strict) Truncate() error                      { return s.stage() }
func (s *strict) Discard()                             { s.n = 0 }
func (s *strict) Len() int                             { return s.n }

func (s *strict) pair(r, c []byte) error {
	if r == nil || c == nil {
		s.t.Errorf("a row without restaurant %q or client %q", r, c)
	}
	return s.stage(r, c)
}

// assemblerLike follows the table of a capture, from the beginning of time.
func assemblerLike(t testing.TB, msgs [][]byte) *assembler {
	t.Helper()
	for _, msg := range msgs {
		if rel, err := decodeRelation(msg[1:]); msg[0] == 'R' && err == nil && rel.name.name == "subscribers_restaurants" {
			l, err := layoutOf(rel)
			if err != nil {
				l = layout{id: -1, client: 1, restaurant: 2, columns: len(rel.columns)} // NOTHING, or streamed
			}
			return &assembler{
				table: rel.name, oid: rel.oid, loaded: l, xids: 500,
				m: NewMetrics(nil), log: slog.New(slog.DiscardHandler), now: time.Now, rels: map[uint32]followed{},
			}
		}
	}
	return &assembler{m: NewMetrics(nil), log: slog.New(slog.DiscardHandler), now: time.Now, rels: map[uint32]followed{}}
}

// Any sequence of messages gives transactions or an error: never a panic, nothing staged
// outside a transaction, no commit without a beginning, and no more memory than it explains.
func FuzzDecodeTransactions(f *testing.F) {
	all := captures(f)
	like := map[byte]string{}
	for name, msgs := range all {
		like[name[0]] = name
		f.Add(name[0], framed(msgs...))
		for i := range msgs { // in another order
			f.Add(name[0], framed(slices.Concat(msgs[i:], msgs[:i])...))
		}
	}
	f.Fuzz(func(t *testing.T, identity byte, data []byte) {
		a := assemblerLike(t, all[like[identity]])
		msgs := frames(data)
		bounded(t, len(data), func() { assembleAll(t, a, msgs) })
	})
}

// assembleAll returns how many transactions changed something.
func assembleAll(t testing.TB, a *assembler, msgs [][]byte) (changed int) {
	clear(a.rels)
	a.open, a.skip = false, false
	s := &strict{t: t, a: a}
	a.txn = s
	applied := cache.LSN(0)
	for _, msg := range msgs {
		was := a.open
		done, err := a.message(msg, applied)
		if err != nil {
			return changed // the session ends
		}
		if done == nil {
			continue
		}
		if !was || a.open || done.changed && (s.n == 0 || a.skip) {
			t.Errorf("a transaction ends: open before %t, after %t, changed %t, staged %d, skipped %t", was, a.open, done.changed, s.n, a.skip)
		}
		if done.changed {
			changed++
		}
		applied = max(applied, done.commit.End)
		s.Discard()
	}
	return changed
}

// What the server sent is understood to the end.
func TestCapturesAreAssembled(t *testing.T) {
	t.Parallel()
	all := captures(t)
	for name, want := range map[string]int{"default": 8, "index": 5, "full": 5} {
		if got := assembleAll(t, assemblerLike(t, all[name]), all[name]); got != want {
			t.Errorf("%s: %d transactions with changes, want %d", name, got, want)
		}
	}
}
