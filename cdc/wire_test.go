package cdc

import (
	"testing"
	"time"

	"example.com/tiffin/cache"
)

// postgresEpoch is what the server's times count from, in microseconds.
var postgresEpoch = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

// Messages are let gather in a backlog, which is told by the server's own clock, and no longer than the
// backlog lasts: a fence would wait for what gathers.
func TestOnlyABacklogGathers(t *testing.T) {
	t.Parallel()
	a, _ := assemblerFor(t, 'd', "id")
	s := &session{Reader: &Reader{}, wire: &wire{}, asm: a, txn: &cache.Txn{}}
	committed := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC) // whatever our clock says
	log := func(after time.Duration, msg []byte) []byte {
		sent := committed.Add(after).Sub(postgresEpoch).Microseconds()
		return append(new(wal).put(byte('w'), uint64(0), uint64(0), sent), msg...)
	}
	commit := new(wal).put(byte('C'), byte(0), uint64(92), uint64(100), committed.Sub(postgresEpoch).Microseconds())
	keepalive := new(wal).put(byte('k'), uint64(100), int64(0), byte(0))

	for _, step := range []struct {
		what string
		data []byte
		want bool
	}{
		{"begin of the first transaction", log(time.Hour, beginOf(92, 500)), false},
		{"late commit", log(time.Hour, commit), true},
		{"begin in a backlog", log(time.Hour, beginOf(92, 501)), true},
		{"commit that came at once", log(time.Millisecond, commit), false},
		{"begin when caught up", log(time.Millisecond, beginOf(92, 502)), false},
		{"late commit again", log(time.Second, commit), true},
		{"keepalive at the log's end", keepalive, false},
	} {
		if err := s.data(t.Context(), step.data); err != nil {
			t.Fatalf("%s: %v", step.what, err)
		}
		if s.wire.busy != step.want {
			t.Errorf("%s: gathers %t, want %t", step.what, s.wire.busy, step.want)
		}
	}
}
