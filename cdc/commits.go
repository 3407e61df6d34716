package cdc

import "time"

// commitsKept are remembered, of 40 bytes each.
const commitsKept = 1 << 12

// commits remembers the last transactions that the stream began, by where their commit records start, so that
// what is sent again can be told from another history. The zero value is empty, nil remembers nothing.
type commits struct {
	ring []begin
	next int
}

// note takes a transaction that was not sent before.
func (c *commits) note(final uint64, at time.Time) {
	switch {
	case c == nil:
	case len(c.ring) < commitsKept:
		c.ring = append(c.ring, begin{final: final, at: at})
	default:
		c.ring[c.next] = begin{final: final, at: at}
		c.next = (c.next + 1) % commitsKept
	}
}

// sentBefore reports whether a transaction that lies below the applied position is one of those remembered, or
// lies before them all, where nobody can tell.
func (c *commits) sentBefore(final uint64, at time.Time) bool {
	if c == nil || len(c.ring) == 0 || final < c.ring[c.next%len(c.ring)].final {
		return true
	}
	for _, b := range c.ring {
		if b.final == final {
			return b.at.Equal(at)
		}
	}
	return false
}
