package stream

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"testing"
	"unsafe"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgproto3"

	"example.com/tiffin/internal/devstack"
)

// Statements are encoded in the same memory from one write to the next, and the server gets what pgx would
// have sent without it.
func TestStatementsAreEncodedInTheSameMemory(t *testing.T) {
	t.Parallel()
	var got, want bytes.Buffer
	ours, plain := pgproto3.NewFrontend(nil, &got), pgproto3.NewFrontend(nil, &want)
	w := &wireBuffer{}
	draw := rand.New(rand.NewPCG(1, 2))
	write := func(statements, size int) {
		t.Helper()
		ours.Send(w)
		for range statements {
			param := make([]byte, size)
			for i := range param {
				param[i] = byte(draw.Uint32())
			}
			for _, f := range []*pgproto3.Frontend{ours, plain} {
				f.SendBind(&pgproto3.Bind{PreparedStatement: "insert", Parameters: [][]byte{param}})
				f.SendExecute(&pgproto3.Execute{})
			}
		}
		ours.Send(w)
		for _, f := range []*pgproto3.Frontend{ours, plain} {
			if err := f.Flush(); err != nil {
				t.Fatal(err)
			}
		}
		if !bytes.Equal(got.Bytes(), want.Bytes()) {
			t.Fatal("something else is sent than without the buffer")
		}
		got.Reset()
		want.Reset()
	}
	address := func() *byte { return unsafe.SliceData(w.memory) }

	write(60, 4_000)
	first := address()
	for statements := range 60 {
		write(statements, 4_000)
	}
	write(1, 10) // less than what pgx lets go of
	write(60, 4_000)
	if address() != first {
		t.Error("what fits into the memory that there is was encoded elsewhere")
	}
	write(1, 2*wireBufferBytes)
	write(1, 10)
	if n := cap(w.memory); n > wireBufferBytes {
		t.Errorf("%d bytes are kept of a large statement", n)
	}
}

// The memory of a connection's statements is there for all of its pipelines.
func TestPipelinesOfAConnectionShareMemory(t *testing.T) {
	t.Parallel()
	server, err := devstack.StartPostgres(t.Context(), devstack.PostgresOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = server.Close() }()
	w := &writer{}
	if w.conn, err = pgx.Connect(t.Context(), server.DSN("postgres")); err != nil {
		t.Fatal(err)
	}
	defer w.close(t.Context())
	if _, err := w.conn.PgConn().Prepare(t.Context(), "length", "SELECT length($1::text)::int8", nil); err != nil {
		t.Fatal(err)
	}
	var first *byte
	for range 3 {
		const size = 200_000
		p := w.startPipe(t.Context())
		var length int64
		p.number("length", &length, bytes.Repeat([]byte("x"), size))
		if err := errors.Join(p.finish(), p.close()); err != nil || length != size {
			t.Fatal(length, err)
		}
		address := unsafe.SliceData(w.wire.memory)
		if first == nil {
			first = address
		}
		if cap(w.wire.memory) < size || address != first {
			t.Fatalf("%d bytes are kept of a statement of %d, elsewhere: %v", cap(w.wire.memory), size, address != first)
		}
	}
}
