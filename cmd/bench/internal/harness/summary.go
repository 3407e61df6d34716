package harness

import (
	"errors"
	"fmt"
	"slices"
)

// Outcome is a scenario after all its runs.
type Outcome struct {
	Scenario  Scenario
	options   Options
	Summaries []Summary
	Verdicts  []Verdict // of all runs; equal ones once
	Series    []Series
	Profiles  []Profile
	Notes     []string
	Err       error // the first fault
}

// Summary is a figure over all runs.
type Summary struct {
	Figure                   // Value and Limit are medians, too
	Samples        []float64 // in the order of the runs
	Limits         []float64 // of the same runs; empty: none
	Median         float64
	Least, Most    float64
	Ratio          float64 // to the limit, the median of the runs' ratios: 1 is the limit, less is worse; 0: no limit
	Goal           *Goal   // nil: none
	Judged, Passed bool
	Sinks          *Verdict // of the figure's runs, the worst of them; nil: nothing was delivered
}

// Missed are the goals that were not reached, a sentence each.
func (o *Outcome) Missed() []string {
	var missed []string
	if o.options.Quick {
		return nil
	}
	for _, s := range o.Summaries {
		if s.Judged && !s.Passed {
			missed = append(missed, fmt.Sprintf("%s: %s, goal %s", s.Label(), s.judged(), s.Goal.describe(s.Unit))+s.despite())
		}
	}
	for _, g := range o.Scenario.Goals {
		if o.options.wants(g.Case) && !slices.ContainsFunc(o.Summaries, func(s Summary) bool { return g.isOf(s.Figure) }) {
			missed = append(missed, label(g.Case, g.Figure)+": not measured")
		}
	}
	return missed
}

// judged is the value that the goal is about.
func (s Summary) judged() string {
	if s.Goal.Limit {
		return fmt.Sprintf("%.2f of the limit", s.Ratio)
	}
	return s.Text()
}

// despite says why a figure that is good enough does not reach its goal.
func (s Summary) despite() string {
	if s.Goal.reached(s) {
		return "; but the sinks, or the answers, are not what was expected"
	}
	return ""
}

// Explaining are the profiles of the cases in which a goal was missed.
func (o *Outcome) Explaining() []Profile {
	return slices.DeleteFunc(slices.Clone(o.Profiles), func(p Profile) bool {
		return !slices.ContainsFunc(o.Summaries, func(s Summary) bool { return s.Case == p.Case && s.Judged && !s.Passed })
	})
}

// OK is whether nothing is wrong.
func (o *Outcome) OK() bool { return o.Err == nil && len(o.Missed()) == 0 }

// Repeated is whether a figure was measured more than once.
func (o *Outcome) Repeated() bool {
	return slices.ContainsFunc(o.Summaries, func(s Summary) bool { return len(s.Samples) > 1 })
}

func (g Goal) isOf(f Figure) bool { return g.Case == f.Case && g.Figure == f.Name && f.Who == Tiffin }

// conclude merges the runs' results. In quick form no goal is judged: the figures are of seconds.
func conclude(s Scenario, options Options, results []*Result, err error) *Outcome {
	o := &Outcome{Scenario: s, options: options, Err: err}
	for run, r := range results {
		for _, f := range r.Figures {
			if f.Who == "" {
				f.Who = Tiffin
			}
			o.gather(f)
		}
		for _, v := range r.Verdicts {
			if v.Who == "" {
				v.Who = Tiffin
			}
			if !slices.Contains(o.Verdicts, v) {
				o.Verdicts = append(o.Verdicts, v)
			}
		}
		for _, note := range r.Notes {
			if !slices.Contains(o.Notes, note) {
				o.Notes = append(o.Notes, note)
			}
		}
		for _, s := range r.Series {
			s.Lines = slices.Clone(s.Lines)
			for i := range s.Lines {
				s.Lines[i].Run = run
			}
			o.Series = plotted(o.Series, s)
		}
		if len(r.Profiles) > 0 { // one run explains as well as another
			o.Profiles = r.Profiles
		}
	}
	if len(o.Summaries) == 0 && len(options.Cases) > 0 && err == nil {
		o.Err = fmt.Errorf("no case of it is named %q", options.Cases) // nothing measured is nothing reached
	}
	wrong := errors.Is(err, ErrDiffer)
	for i := range o.Summaries {
		o.Summaries[i].conclude(s.Goals, options.Quick)
		o.attach(&o.Summaries[i], wrong)
	}
	return o
}

// attach puts the verdict beside the figure: what delivers something else reaches no goal. A fault
// of that kind is of everything.
func (o *Outcome) attach(s *Summary, wrong bool) {
	cases := map[string]bool{}
	for _, other := range o.Summaries {
		cases[other.Case] = true
	}
	for _, v := range o.Verdicts {
		if v.concerns(s.Figure, cases) && (s.Sinks == nil || !v.Exact) {
			s.Sinks = &v
		}
	}
	s.Passed = s.Passed && !wrong && (s.Sinks == nil || s.Sinks.Exact)
}

func (o *Outcome) gather(f Figure) {
	i := slices.IndexFunc(o.Summaries, func(s Summary) bool { return s.Case == f.Case && s.Name == f.Name && s.Who == f.Who })
	if i < 0 {
		i = len(o.Summaries)
		o.Summaries = append(o.Summaries, Summary{Figure: f})
	}
	s := &o.Summaries[i]
	s.Samples = append(s.Samples, f.Value)
	if f.Limit > 0 {
		s.Limits = append(s.Limits, f.Limit)
	}
}

func (s *Summary) conclude(goals []Goal, quick bool) {
	s.Median, s.Least, s.Most = median(s.Samples), slices.Min(s.Samples), slices.Max(s.Samples)
	s.Value = s.Median
	if len(s.Limits) == len(s.Samples) {
		s.Limit = median(s.Limits)
		ratios := make([]float64, len(s.Samples))
		for i, v := range s.Samples {
			ratios[i] = v / s.Limits[i]
			if s.Unit.LessIsBetter() {
				ratios[i] = s.Limits[i] / v
			}
		}
		s.Ratio = median(ratios)
	}
	for _, g := range goals {
		if g.isOf(s.Figure) {
			s.Goal = &g
			s.Judged, s.Passed = !quick, g.reached(*s)
		}
	}
}

// median of an even number is the mean of the two in the middle.
func median(list []float64) float64 {
	sorted := slices.Sorted(slices.Values(list))
	n := len(sorted)
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}
