package cdc

import (
	"bytes"
	"fmt"
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

// Any bytes give rows or an error.
func FuzzCopyRows(f *testing.F) {
	f.Add(copyOf([]string{"x", "restaurant", ""}, []string{"xx", "NULL", "client"}), 5)
	f.Add(copyOf([]string{"restaurant", "client"}), 40)
	f.Fuzz(func(_ *testing.T, b []byte, cut int) {
		var c copyRows
		cut = min(max(cut, 0), len(b))
		row := func(int64, []byte, []byte) error { return nil }
		if c.parse(b[:cut], row) == nil {
			_ = c.parse(b[cut:], row)
		}
	})
}
