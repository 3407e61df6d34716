package harness

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
)

// ErrDiffer is wrapped by the error of a run whose sinks, or whose answers, are not what they must be.
var ErrDiffer = errors.New("not what was expected: no figure counts")

// Tiffin is who a figure is of unless it says something else.
const Tiffin = "tiffin"

// Unit is what a figure counts. It decides how it is written and whether less of it is better.
type Unit string

// The units. Durations are in seconds, memory in bytes.
const (
	PerSecond Unit = "1/s"
	Seconds   Unit = "s"
	Bytes     Unit = "B"
	Ratio     Unit = "ratio" // more is better
	Cost      Unit = "cost"  // a ratio of which less is better
	Count     Unit = "count"
)

// LessIsBetter tells the direction.
func (u Unit) LessIsBetter() bool { return u == Seconds || u == Bytes || u == Cost }

// Format writes a value for people.
func (u Unit) Format(v float64) string {
	switch u {
	case PerSecond:
		return humanize.Comma(int64(v)) + "/s"
	case Seconds:
		return formatDuration(v)
	case Bytes:
		if v < 1000 {
			return fmt.Sprintf("%.2f B", v)
		}
		return humanize.Bytes(uint64(v))
	case Count:
		if v != math.Trunc(v) {
			return fmt.Sprintf("%.2f", v)
		}
		return humanize.Comma(int64(v))
	default:
		return fmt.Sprintf("%.2f", v)
	}
}

// formatDuration keeps three digits.
func formatDuration(seconds float64) string {
	d := time.Duration(seconds * float64(time.Second))
	unit := time.Nanosecond
	for d/unit >= 1000 {
		unit *= 10
	}
	return d.Round(unit).String()
}

// Figure is one measured value. What has the same Case, Name and Who is one figure, measured several times.
type Figure struct {
	Case  string // what of the scenario's workloads; empty: it has one only
	Name  string // what was measured
	Who   string // empty: tiffin
	Unit  Unit
	Value float64
	Limit float64 // what the machine allowed in the same run, in the same unit; 0: none was measured
}

// Verdict is the oracle's: whether both sinks hold exactly the expected deliveries.
type Verdict struct {
	Case, Who string // as a Figure's; a case that no figure has: all of them
	Guarantee string // what whoever it is promises; its words up to a colon, without those in brackets, stand beside figures
	Exact     bool
	Text      string
}

// concerns is whether a figure is of the run that was judged.
func (v Verdict) concerns(f Figure, cases map[string]bool) bool {
	return v.Who == f.Who && (v.Case == f.Case || !cases[v.Case])
}

// Word says of a figure whether it counts, and under which promise.
func (v Verdict) Word() string {
	word := "exact"
	if !v.Exact {
		word = "NOT EXACT"
	}
	short, _, _ := strings.Cut(v.Guarantee, ":")
	for {
		before, rest, more := strings.Cut(short, " (")
		_, after, closed := strings.Cut(rest, ")")
		if !more || !closed {
			break
		}
		short = before + after
	}
	if short != "" {
		word += ", promised: " + short
	}
	return word
}

// Series is a plot.
type Series struct {
	Title  string
	X, Y   string // what the axes show, with the unit
	Kind   Kind
	Lines  []Line
	Detail string // a sentence below; may be empty
}

// Kind is how a series' x axis is spaced.
type Kind string

// The kinds.
const (
	Linear      Kind = "linear"
	Logarithmic Kind = "logarithmic"
	Percentiles Kind = "percentiles" // x is a percentile, 0 to 100; spaced by 1/(1-x)
)

// Line is one line of a plot; its points are x, y and in order of x. Lines of one name and several
// runs are drawn alike.
type Line struct {
	Name   string
	Points [][2]float64
	Run    int // the harness numbers runs from 0
}

// Result is what one run of a scenario measured.
type Result struct {
	Figures  []Figure
	Verdicts []Verdict
	Series   []Series // of several runs all are drawn
	Profiles []Profile
	Notes    []string // sentences: what the figures are of
}

// Add appends figures.
func (r *Result) Add(figures ...Figure) { r.Figures = append(r.Figures, figures...) }

// Plot adds points to the lines of the same name, and lines to the series of the same title, or a new
// one.
func (r *Result) Plot(s Series) { r.Series = plotted(r.Series, s) }

func plotted(list []Series, s Series) []Series {
	i := slices.IndexFunc(list, func(other Series) bool { return other.Title == s.Title })
	if i < 0 {
		s.Lines = slices.Clone(s.Lines)
		return append(list, s)
	}
	of := &list[i]
	for _, line := range s.Lines {
		n := slices.IndexFunc(of.Lines, func(other Line) bool { return other.Name == line.Name && other.Run == line.Run })
		if n < 0 {
			of.Lines = append(of.Lines, line)
			continue
		}
		of.Lines[n].Points = append(slices.Clip(of.Lines[n].Points), line.Points...)
	}
	return list
}

// Explain keeps a profile of tiffin in this case, the last one; without samples there is nothing to keep.
func (r *Result) Explain(in string, profile []byte) {
	if len(profile) > 0 {
		r.Profiles = slices.DeleteFunc(r.Profiles, func(p Profile) bool { return p.Case == in })
		r.Profiles = append(r.Profiles, Profile{Case: in, Data: profile})
	}
}

// Note appends a sentence.
func (r *Result) Note(format string, args ...any) {
	r.Notes = append(r.Notes, fmt.Sprintf(format, args...))
}

// Judge appends the oracle's verdict. The error is that of tiffin's own sinks; a peer that loses or
// doubles is only reported.
func (r *Result) Judge(v Verdict) error {
	r.Verdicts = append(r.Verdicts, v)
	if v.Exact || (v.Who != "" && v.Who != Tiffin) {
		return nil
	}
	return fmt.Errorf("%w: %s", ErrDiffer, v.Text)
}
