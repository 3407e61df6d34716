package harness

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
)

// WriteText prints an outcome for people.
func WriteText(w io.Writer, o *Outcome) error {
	if _, err := fmt.Fprintf(w, "\n%s: %s\n", o.Scenario.Name, o.Scenario.Summary); err != nil {
		return err
	}
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, s := range o.Summaries {
		if _, err := fmt.Fprintf(table, "  %s\t%s\t%s\t%s\t%s\t%s\n", s.Label(), s.who(), s.Text(), s.limitText(), s.SinksWord(), s.Verdict()); err != nil {
			return err
		}
	}
	if err := table.Flush(); err != nil {
		return err
	}
	var rest strings.Builder
	for _, v := range o.Verdicts {
		fmt.Fprintf(&rest, "  sinks: %s\n", v.Sentence())
	}
	for _, note := range o.Notes {
		fmt.Fprintf(&rest, "  %s\n", note)
	}
	for _, missed := range o.Missed() {
		fmt.Fprintf(&rest, "  MISSED %s\n", missed)
	}
	for _, p := range o.Explaining() {
		writeProfile(&rest, p)
	}
	if o.Err != nil {
		fmt.Fprintf(&rest, "  FAULT %v\n", o.Err)
	}
	_, err := io.WriteString(w, rest.String())
	return err
}

// functionsShown is how many lines of a profile say where the time goes.
const functionsShown = 12

func writeProfile(w *strings.Builder, p Profile) {
	top, err := p.Top(functionsShown)
	if err != nil {
		fmt.Fprintf(w, "  %v\n", err)
		return
	}
	fmt.Fprintf(w, "  where the daemon's CPU time went, %s (itself, with what it calls):\n", p.Case)
	for _, f := range top {
		fmt.Fprintf(w, "    %5.1f%% %5.1f%%  %s\n", 100*f.Flat, 100*f.Full, f.Name)
	}
}

// Label names the figure within its scenario.
func (s Summary) Label() string { return label(s.Case, s.Name) }

func label(in, name string) string {
	if in == "" {
		return name
	}
	return in + ": " + name
}

func (s Summary) who() string {
	if s.Who == Tiffin {
		return ""
	}
	return s.Who
}

// Text is the median, with the spread if there were several runs.
func (s Summary) Text() string {
	if len(s.Samples) == 1 {
		return s.Unit.Format(s.Median)
	}
	return fmt.Sprintf("%s (%s to %s, %d runs)", s.Unit.Format(s.Median), s.Unit.Format(s.Least), s.Unit.Format(s.Most), len(s.Samples))
}

func (s Summary) limitText() string {
	if s.Ratio == 0 {
		return ""
	}
	return fmt.Sprintf("limit %s, ratio %.2f", s.Unit.Format(s.Limit), s.Ratio)
}

// SinksWord says whether the figure counts; empty: nothing was delivered.
func (s Summary) SinksWord() string {
	if s.Sinks == nil {
		return ""
	}
	return s.Sinks.Word()
}

// Verdict says the goal and whether it was reached; empty: there is none.
func (s Summary) Verdict() string {
	switch {
	case s.Goal == nil:
		return ""
	case !s.Judged:
		return "goal " + s.Goal.describe(s.Unit) + ": not judged with --quick"
	case s.Passed:
		return "goal " + s.Goal.describe(s.Unit) + ": reached"
	default:
		return "goal " + s.Goal.describe(s.Unit) + ": MISSED"
	}
}

// Sentence says whose sinks they are and what is in them.
func (v Verdict) Sentence() string {
	what := v.Text
	if v.Case != "" {
		what = v.Case + ": " + what
	}
	if v.Who != Tiffin {
		what = v.Who + ", " + what
	}
	return what
}
