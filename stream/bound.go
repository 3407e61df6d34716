package stream

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Bound is an end of a range of campaign messages: when they were handled, or an offset of one
// partition. A lower bound is inside the range, an upper one is not.
type Bound struct {
	// Time is set for a bound in time; it holds for every partition.
	Time      time.Time
	Partition int32
	Offset    int64
}

// ParseBound reads an RFC 3339 time or PARTITION:OFFSET.
func ParseBound(text string) (Bound, error) {
	if t, err := time.Parse(time.RFC3339, text); err == nil {
		return Bound{Time: t}, nil
	}
	partition, offset, ok := strings.Cut(text, ":")
	p, err1 := strconv.ParseInt(partition, 10, 32)
	o, err2 := strconv.ParseInt(offset, 10, 64)
	if !ok || err1 != nil || err2 != nil || p < 0 || o < 0 {
		return Bound{}, fmt.Errorf("%q: want an RFC 3339 time (2026-01-31T12:00:00Z) or PARTITION:OFFSET", text)
	}
	return Bound{Partition: int32(p), Offset: o}, nil
}

func (b *Bound) isTime() bool { return !b.Time.IsZero() }

// within narrows a partition's span by the bounds; offsetAt answers where a time lies in it.
// named says that some bound names a partition, and none of them this one. A span that begins behind
// the partition's end is empty, at that end.
func within(partition int32, s judged, from, to []Bound, offsetAt func(time.Time) int64) (narrowed judged, named bool) {
	others, own, end := false, false, s.to
	narrow := func(bounds []Bound, into *int64, keep func(a, b int64) int64) {
		for _, b := range bounds {
			switch {
			case b.isTime():
				*into = keep(*into, offsetAt(b.Time))
			case b.Partition == partition:
				*into = keep(*into, b.Offset)
				own = true
			default:
				others = true
			}
		}
	}
	narrow(from, &s.from, func(a, b int64) int64 { return max(a, b) })
	narrow(to, &s.to, func(a, b int64) int64 { return min(a, b) })
	s.from = min(s.from, end)
	s.to = max(s.from, s.to)
	return s, own || !others
}
