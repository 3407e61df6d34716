package stream

import (
	"fmt"
	"slices"
	"strconv"
	"sync/atomic"
)

// progress is how far a lane is. Safe for concurrent use.
type progress struct {
	what string
	// total is the number of deliveries, as far as it is known; rows are on their way into
	// the table, records committed in the output topic.
	total, rows, records atomic.Int64
	// reading says that its recipients are being read.
	reading atomic.Bool
}

func (p *progress) String() string {
	if p.reading.Load() {
		return p.what + ": reading its subscribers from the source database"
	}
	total, rows, records := p.total.Load(), p.rows.Load(), p.records.Load()
	if records == 0 && rows < total && rows > 0 {
		return fmt.Sprintf("%s: %s of %s rows written", p.what, grouped(rows), grouped(total))
	}
	return fmt.Sprintf("%s: %s of %s records sent", p.what, grouped(records), grouped(total))
}

// began enters a lane; finished takes it off.
func (s *state) began(what string) *progress {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := &progress{what: what}
	s.large = append(s.large, p)
	return p
}

func (s *state) finished(p *progress) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.large = slices.DeleteFunc(s.large, func(of *progress) bool { return of == p })
}

// progress tells of every lane.
func (s *state) progress() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var lines []string
	for _, p := range s.large {
		lines = append(lines, p.String())
	}
	return lines
}

// left counts the deliveries on lanes that are not in both sinks yet.
func (s *state) left() (lanes int, deliveries int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range s.large {
		deliveries += p.total.Load() - p.records.Load()
	}
	return len(s.large), deliveries
}

// grouped writes a number with commas: 1,000,000.
func grouped(n int64) string {
	digits := strconv.FormatInt(n, 10)
	for at := len(digits) - 3; at > 0; at -= 3 {
		digits = digits[:at] + "," + digits[at:]
	}
	return digits
}
