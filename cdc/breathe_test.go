package cdc

import (
	"encoding/binary"
	"io"
	"net"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"example.com/tiffin/cache"
)

// While a large transaction is applied the server hears from us as often as it must, the
// position is that of before, and a connection that is gone ends the session.
func TestLargeTransactionAnswersTheServer(t *testing.T) {
	t.Parallel()
	conf, err := pgconn.ParseConfig("host=127.0.0.1 user=u")
	if err != nil {
		t.Fatal(err)
	}
	ours, theirs := net.Pipe()
	var stream copyStream
	hijacked := &pgconn.HijackedConn{
		Conn: ours, ParameterStatuses: map[string]string{}, TxStatus: 'I', Config: conf,
		Frontend: stream.build(ours, ours), CustomData: map[string]any{streamKey: &stream},
	}
	conn, err := pgconn.Construct(hijacked)
	if err != nil {
		t.Fatal(err)
	}
	heard := make(chan []byte, 9)
	go func() {
		defer close(heard)
		for {
			message := make([]byte, 1+4+1+3*8+8+1) // CopyData of a standby status update
			if _, err := io.ReadFull(theirs, message); err != nil {
				return
			}
			heard <- message
		}
	}()

	w, err := newWire(conn)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now() // the deadlines of the connection are real
	s := &session{
		Reader: &Reader{cfg: Config{Now: func() time.Time { return now }}, pos: position{settled: cache.MaxLSN}},
		wire:   w, statusEvery: time.Second, lastStatus: now,
	}
	s.pos.start(100)
	s.pos.inTxn = true
	s.pos.heard(5000) // of the transaction that is being applied
	for range 30 {
		s.breathe(t.Context())
		now = now.Add(100 * time.Millisecond)
	}
	if s.failure.Load() != nil {
		t.Fatalf("ended: %v", *s.failure.Load())
	}
	m := <-heard
	for i, want := range []uint64{5000, 100, 100} { // received, flushed, applied
		if got := binary.BigEndian.Uint64(m[6+8*i:]); m[0] != 'd' || m[5] != 'r' || got != want {
			t.Errorf("position %d of %q is %d, want %d", i, m[:6], got, want)
		}
	}
	_ = theirs.Close()
	s.breathe(t.Context())
	if s.failure.Load() == nil {
		t.Error("the session goes on over a closed connection")
	}
	_ = ours.Close()
	more := 0
	for range heard { // until its goroutine has ended
		more++
	}
	if more != 1 { // one after 1 s and one after 2 s
		t.Errorf("%d messages in 3 s, want 2", 1+more)
	}
}
