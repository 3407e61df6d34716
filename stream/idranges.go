package stream

import (
	"fmt"
	"strconv"
	"strings"
)

// idRange is a run of feedback row ids, both ends included.
type idRange struct{ first, last int64 }

// idRanges are the ids of a trigger's feedback rows, ascending, which is record order: the
// manifest leads through them to exactly a trigger's rows, also when two messages have the
// same content and two processes insert at the same time.
type idRanges []idRange

// add appends a run behind all others, merging neighbours.
func (r *idRanges) add(first, last int64) {
	if n := len(*r); n > 0 && (*r)[n-1].last+1 == first {
		(*r)[n-1].last = last
		return
	}
	*r = append(*r, idRange{first, last})
}

// count is the number of ids.
func (r idRanges) count() int64 {
	var n int64
	for _, run := range r {
		n += run.last - run.first + 1
	}
	return n
}

// skip returns what is left behind the first n ids.
func (r idRanges) skip(n int64) idRanges {
	for i, run := range r {
		size := run.last - run.first + 1
		if n < size {
			rest := append(idRanges{{run.first + n, run.last}}, r[i+1:]...)
			return rest
		}
		n -= size
	}
	return nil
}

// multirange is the text form of an int8multirange.
func (r idRanges) multirange() string {
	var b strings.Builder
	b.WriteByte('{')
	for i, run := range r {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, "[%d,%d]", run.first, run.last)
	}
	b.WriteByte('}')
	return b.String()
}

// appendMultirange appends the binary field of an int8multirange, null for none
// (multirange_recv in multirangetypes.c, range_recv in rangetypes.c).
func (r idRanges) appendMultirange(dst []byte) []byte {
	const (
		bothIncluded = 0x02 | 0x04    // RANGE_LB_INC, RANGE_UB_INC
		rangeBytes   = 1 + 2*(4+8)    // flags, and each bound with its length
		runBytes     = 4 + rangeBytes // with its length
	)
	if len(r) == 0 {
		return appendNull(dst)
	}
	dst = appendLength(dst, 4+len(r)*runBytes)
	dst = appendLength(dst, len(r))
	for _, run := range r {
		dst = append(appendLength(dst, rangeBytes), bothIncluded)
		dst = appendInt8(appendInt8(dst, run.first), run.last)
	}
	return dst
}

// parseMultirange reads the canonical text form, "{[1,5),[7,9)}".
func parseMultirange(text string) (idRanges, error) {
	fault := fmt.Errorf("id ranges %q: want an int8multirange in its canonical form", shorten(text))
	inner, ok := strings.CutPrefix(text, "{")
	if !ok {
		return nil, fault
	}
	if inner, ok = strings.CutSuffix(inner, "}"); !ok {
		return nil, fault
	}
	var ranges idRanges
	for len(inner) > 0 {
		run, rest, ok := strings.Cut(strings.TrimPrefix(inner, ","), ")")
		lower, upper, comma := strings.Cut(strings.TrimPrefix(run, "["), ",")
		if !ok || !comma {
			return nil, fault
		}
		first, err1 := strconv.ParseInt(lower, 10, 64)
		end, err2 := strconv.ParseInt(upper, 10, 64)
		if err1 != nil || err2 != nil {
			return nil, fault
		}
		ranges = append(ranges, idRange{first, end - 1})
		inner = rest
	}
	return ranges, nil
}

// dealer deals ids out, ascending. What it gives shares memory that nobody writes to again.
type dealer struct {
	left  idRanges // which it changes
	dealt idRanges
}

// take returns the next n ids.
func (d *dealer) take(n int64) idRanges {
	from := len(d.dealt)
	for n > 0 && len(d.left) > 0 {
		run := &d.left[0]
		size := min(n, run.last-run.first+1)
		d.dealt = append(d.dealt, idRange{run.first, run.first + size - 1})
		n -= size
		if run.first += size; run.first > run.last {
			d.left = d.left[1:]
		}
	}
	return d.dealt[from:len(d.dealt):len(d.dealt)]
}

// before counts the ids that stand before id.
func (r idRanges) before(id int64) int64 {
	var n int64
	for _, run := range r {
		if id <= run.first {
			break
		}
		n += min(id, run.last+1) - run.first
	}
	return n
}
