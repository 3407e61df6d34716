package cdc

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
)

func serverMessage(kind byte, body ...byte) []byte {
	head := binary.BigEndian.AppendUint32([]byte{kind}, uint32(4+len(body)))
	return append(head, body...)
}

// orderly takes contents in order, and makes what it was lent unreadable.
type orderly []string

func (o *orderly) content(b []byte) error {
	*o = append(*o, string(b))
	return nil
}

func (*orderly) wants() bool { return true }

func (*orderly) buffer() ([]byte, error) { return make([]byte, copyBuffer), nil }

func (o *orderly) block(b rowBlock) error {
	for messages := b.messages; len(messages) > 0; {
		size := rowMessage(messages)
		*o = append(*o, string(messages[messageHead:size]))
		messages = messages[size:]
	}
	for i := range b.buffer {
		b.buffer[i] = 0xff
	}
	return nil
}

// One large message does not leave its buffer to a session that lasts for months.
func TestLargeMessageLeavesNoBuffer(t *testing.T) {
	t.Parallel()
	small, large := string(bytes.Repeat([]byte("s"), 100)), strings.Repeat("l", 16*keptBuffer)
	want := append(slices.Repeat([]string{small}, 3), large)
	want = append(want, slices.Repeat([]string{small}, 200_000)...) // more than the large one
	var in bytes.Buffer
	for _, content := range want {
		in.Write(serverMessage('d', []byte(content)...))
	}
	s := &copyStream{from: &in}
	for i, content := range want {
		got, ok, err := s.data()
		if err != nil || !ok || string(got) != content {
			t.Fatalf("message %d: %d bytes, %t, %v", i, len(got), ok, err)
		}
	}
	if len(s.buf) > keptBuffer {
		t.Errorf("a buffer of %d bytes is left", len(s.buf))
	}
}

// Wherever the network cuts them, rows come whole and in order, pgx gets every other message,
// and rows may be longer than any buffer.
func TestCopyStreamCutAnywhere(t *testing.T) {
	t.Parallel()
	row := func(length int) string {
		text := strings.Repeat("r", length)
		return string(new(wal).put(int16(2), int32(length), []byte(text), int32(-1)))
	}
	want := []string{
		"a", "", strings.Repeat("x", copyBuffer-3), "bc", strings.Repeat("long", copyBuffer), row(7), row(0), "d", row(copyBuffer - 30), row(3 * copyBuffer), row(5),
	}
	for n := range 3 * copyBuffer / 100 {
		want = append(want, row(n%300))
	}
	whole := slices.Concat(serverMessage('N', 0), serverMessage('H', 1, 0, 0))
	for i, row := range want {
		whole = append(whole, serverMessage('d', []byte(row)...)...)
		if i == 2 { // a notice in the middle belongs to pgx
			whole = append(whole, serverMessage('N', []byte("Mhalfway\x00\x00")...)...)
		}
	}
	failed := append(slices.Clone(whole), serverMessage('E', []byte("SERROR\x00C57014\x00Mcanceled\x00\x00")...)...)
	whole = slices.Concat(whole, serverMessage('c'), serverMessage('C', []byte("COPY 3938\x00")...), serverMessage('Z', 'I'))

	read := func(r io.Reader) ([]string, error) {
		var s copyStream
		var got orderly
		err := s.copyOut(s.build(r, io.Discard), "COPY", &got)
		return got, err
	}
	for name, cut := range map[string]func(io.Reader) io.Reader{
		"at once": func(r io.Reader) io.Reader { return r }, "one by one": iotest.OneByteReader, "halves": iotest.HalfReader,
		"with its end": iotest.DataErrReader,
	} {
		if got, err := read(cut(bytes.NewReader(whole))); err != nil || !slices.Equal(got, want) {
			t.Errorf("%s: %d rows, %v", name, len(got), err)
		}
		var pgErr *pgconn.PgError
		if got, err := read(cut(bytes.NewReader(failed))); !errors.As(err, &pgErr) || !slices.Equal(got, want) {
			t.Errorf("%s: %d rows before the error, %v", name, len(got), err)
		}
	}
	for _, at := range []int{3, 9, len(whole) / 2, len(whole) - 3} {
		if _, err := read(bytes.NewReader(whole[:at])); err == nil {
			t.Errorf("broken off at %d without an error", at)
		}
	}
}

// What pgx reads ends with a message: it holds nothing back of the rows behind.
func TestCopyStreamGivesPgxOneMessage(t *testing.T) {
	t.Parallel()
	s := copyStream{from: bytes.NewReader(slices.Concat(serverMessage('H', 1, 0, 0), serverMessage('d', 'x'), serverMessage('d', 'y')))}
	frontend := pgproto3.NewFrontend(&s, io.Discard)
	if msg, err := frontend.Receive(); err != nil {
		t.Fatal(msg, err)
	}
	if held := frontend.ReadBufferLen(); held != 0 {
		t.Errorf("pgx holds %d bytes back", held)
	}
	if content, ok, err := s.data(); string(content) != "x" || !ok || err != nil {
		t.Errorf("first row %q, %t, %v", content, ok, err)
	}
	if b, ok, err := (&copyStream{from: bytes.NewReader([]byte{'d', 0, 0, 0, 1})}).data(); err == nil {
		t.Errorf("a length below its own: %q, %t", b, ok)
	}
}
