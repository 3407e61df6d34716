package report

import (
	_ "embed"
	"fmt"
	"html/template"
	"io"
	"slices"

	"example.com/tiffin/cmd/bench/internal/harness"
)

//go:embed page.html
var pageSource string

// section is a scenario on the page.
type section struct {
	*harness.Outcome
	Bars     template.HTML
	Plots    []drawn
	Profiles []explained
}

type drawn struct {
	Title, Detail string
	Drawing       template.HTML
}

// explained is where a case's CPU time went.
type explained struct {
	Case      string
	Missed    bool // a goal of the case was: shown at once
	Functions []harness.Function
	Fault     string
}

// functionsShown of a profile.
const functionsShown = 25

func writePage(w io.Writer, env Environment, outcomes []*harness.Outcome) error {
	page, err := template.New("page").Funcs(template.FuncMap{
		"percent": func(share float64) string { return fmt.Sprintf("%.1f %%", 100*share) },
		"ratio":   func(ratio float64) string { return fmt.Sprintf("%.2f", ratio) },
	}).Parse(pageSource)
	if err != nil {
		return fmt.Errorf("the report's template: %w", err)
	}
	data := struct {
		Environment [][2]string
		Command     string
		OK, Judged  bool
		Inexact     []string // what others than tiffin have not done
		Sections    []section
	}{Environment: env.lines(), Command: env.Command, OK: true}
	for _, o := range outcomes {
		data.OK = data.OK && o.OK()
		data.Judged = data.Judged || slices.ContainsFunc(o.Summaries, func(s harness.Summary) bool { return s.Judged })
		for _, v := range o.Verdicts {
			if !v.Exact && v.Who != harness.Tiffin {
				data.Inexact = append(data.Inexact, fmt.Sprintf("Of the peers: %s.", v.Sentence()))
			}
		}
		data.Sections = append(data.Sections, sectionOf(o))
	}
	if err := page.Execute(w, data); err != nil {
		return fmt.Errorf("write the report: %w", err)
	}
	return nil
}

func sectionOf(o *harness.Outcome) section {
	s := section{Outcome: o, Bars: bars(o.Summaries)}
	for _, series := range o.Series {
		s.Plots = append(s.Plots, drawn{series.Title, series.Detail, plot(series)})
	}
	missed := map[string]bool{}
	for _, p := range o.Explaining() {
		missed[p.Case] = true
	}
	for _, p := range o.Profiles {
		e := explained{Case: p.Case, Missed: missed[p.Case]}
		var err error
		if e.Functions, err = p.Top(functionsShown); err != nil {
			e.Fault = err.Error()
		}
		s.Profiles = append(s.Profiles, e)
	}
	return s
}
