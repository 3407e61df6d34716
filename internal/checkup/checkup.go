// Package checkup is what the doctor's checks of all servers have in common: one line each, in the
// order in which they would fail, and none that could not be judged taken for a fault. A leaf; it
// changes nothing anywhere, and a Sheet belongs to one goroutine.
package checkup

import (
	"context"
	"slices"
	"time"
)

// Verdict is the outcome of one check.
type Verdict string

// The verdicts. Only Fail stands in the daemon's way.
const (
	OK   Verdict = "ok"
	Warn Verdict = "warn"
	Fail Verdict = "fail"
	// Skip is a check that could not be judged, because one that it needs was not passed.
	Skip Verdict = "skip"
)

// Line is what is told of one check.
type Line struct {
	Check   string  `json:"check"` // AREA.WHAT
	Verdict Verdict `json:"verdict"`
	Text    string  `json:"text"`          // what was found
	Fix     string  `json:"fix,omitempty"` // what to do, a command where there is one
}

// Finding is a check's answer.
type Finding struct {
	Verdict Verdict
	Text    string
	Fix     string
}

// Good is a passed check.
func Good(text string) Finding { return Finding{OK, text, ""} }

// Odd is a check that is passed, but that an operator should know of.
func Odd(text, fix string) Finding { return Finding{Warn, text, fix} }

// Bad is a check that is not passed.
func Bad(text, fix string) Finding { return Finding{Fail, text, fix} }

// limit bounds one check: a server that does not answer is a finding, not a wait.
const limit = 10 * time.Second

// Sheet gathers the lines of a doctor's visit, and tells each as it comes.
type Sheet struct {
	// Clock is this host's; nil: time.Now.
	Clock  func() time.Time
	tell   func(Line)
	area   string
	passed []string
	Fails  int
	Warns  int
}

// NewSheet returns a sheet that calls tell with each line.
func NewSheet(tell func(Line)) *Sheet { return &Sheet{tell: tell} }

// Area begins the checks of a server: their names get this prefix, and none of an earlier area counts.
func (s *Sheet) Area(name string) { s.area, s.passed = name, nil }

// Now is what this host's clock says.
func (s *Sheet) Now() time.Time {
	if s.Clock == nil {
		return time.Now()
	}
	return s.Clock()
}

// Check runs one check, within ten seconds, unless one of those that it needs was not passed.
func (s *Sheet) Check(ctx context.Context, what string, needs []string, check func(context.Context) Finding) {
	line := Line{Check: s.area + "." + what, Verdict: Skip}
	if i := slices.IndexFunc(needs, func(n string) bool { return !slices.Contains(s.passed, n) }); i >= 0 {
		line.Text = "not judged: needs " + s.area + "." + needs[i]
		s.tell(line)
		return
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	f := check(ctx)
	line.Verdict, line.Text, line.Fix = f.Verdict, f.Text, f.Fix
	switch f.Verdict {
	case Fail:
		s.Fails++
	case Warn:
		s.Warns++
		s.passed = append(s.passed, what)
	default:
		s.passed = append(s.passed, what)
	}
	s.tell(line)
}
