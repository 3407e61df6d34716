package cdc

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
)

func copyOf(rows ...[]string) []byte {
	var w wal
	out := slices.Clone(copyMagic)
	out = append(out, w.put(uint32(0), uint32(3), []byte("ext"))...)
	for _, row := range rows {
		out = append(out, w.put(int16(len(row)))...)
		for i, v := range row {
			switch {
			case v == "NULL":
				out = append(out, w.put(int32(-1))...)
			case i == 0 && len(row) == 3:
				out = append(out, w.put(int32(8), int64(len(v)))...)
			default:
				out = append(out, w.put(int32(len(v)), []byte(v))...)
			}
		}
	}
	return append(out, 0xff, 0xff)
}

// Wherever the bytes are cut, the same rows come out.
func TestCopyRowsCutAnywhere(t *testing.T) {
	t.Parallel()
	whole := copyOf([]string{"x", "restaurant", ""}, []string{"xx", "NULL", "client"}, []string{"r", "c"}, []string{"xxx", strings.Repeat("long", 50), "c"})
	parse := func(chunks ...[]byte) (string, error) {
		var c copyRows
		var got []string
		for _, chunk := range chunks {
			if err := c.parse(bytes.Clone(chunk), func(id int64, r, cl []byte) error {
				got = append(got, fmt.Sprintf("%d %q %v %q", id, r, r == nil, cl))
				return nil
			}); err != nil {
				return "", err
			}
		}
		return strings.Join(got, "\n"), c.finish()
	}
	want, err := parse(whole)
	if err != nil || strings.Count(want, "\n") != 3 {
		t.Fatalf("%s: %v", want, err)
	}
	for i := range whole {
		for _, j := range []int{i, min(i+1, len(whole)), (i + len(whole)) / 2} {
			if got, err := parse(whole[:i], whole[i:j], whole[j:]); got != want || err != nil {
				t.Fatalf("cut at %d and %d: %v\n%s", i, j, err, got)
			}
		}
		if _, err := parse(whole[:i]); err == nil {
			t.Fatalf("ends at %d without an error", i)
		}
	}
}

// Any bytes give rows or an error, and the same ones in blocks, whichever messages they come in.
func FuzzCopyRows(f *testing.F) {
	f.Add(copyOf([]string{"x", "restaurant", ""}, []string{"xx", "NULL", "client"}), 5, 60)
	f.Add(copyOf([]string{"restaurant", "client"}), 40, 2)
	f.Add(copyOf([]string{"r", "c"}, []string{"r", "d"}, []string{"r", "e"}), 34, 12)
	f.Fuzz(func(t *testing.T, b []byte, first, others int) {
		var c copyRows
		var want, got []string
		to := func(list *[]string) addRow {
			return func(id int64, restaurant, client []byte) error {
				*list = append(*list, fmt.Sprintf("%d %q %q", id, restaurant, client))
				return nil
			}
		}
		messages := cutInto(b, min(max(first, 0), len(b)), min(max(others, 1), 1<<20))
		var failed error
		for _, content := range messages {
			if failed = c.parse(content, to(&want)); failed != nil {
				break
			}
		}
		stream := serverMessage('H', 1, 0, 0)
		for _, content := range messages {
			stream = append(stream, serverMessage('d', content...)...)
		}
		blocks := newRowBuilders(1, nil)
		taker := &rangeTaker{ctx: t.Context(), to: blocks, add: to(&got)}
		var built []string
		done := make(chan error)
		go func() { done <- blocks.build(to(&built)) }()
		s := &copyStream{}
		taken := s.copyOut(s.build(bytes.NewReader(append(stream, serverMessage('Z', 'I')...)), io.Discard), "COPY", taker)
		close(blocks.blocks)
		if err := errors.Join(taken, <-done); (err == nil) != (failed == nil) {
			t.Fatalf("in blocks: %v, one after the other: %v", err, failed)
		}
		got = append(got, built...)
		slices.Sort(got)
		slices.Sort(want)
		if failed == nil && (!slices.Equal(got, want) || taker.rows.done != c.done) {
			t.Fatalf("in blocks: %q, one after the other: %q", got, want)
		}
	})
}

// cutInto cuts bytes into a first part and others of one length.
func cutInto(b []byte, first, others int) [][]byte {
	return slices.AppendSeq([][]byte{b[:first]}, slices.Chunk(b[first:], others))
}
