package harness

import (
	"encoding/json"
	"fmt"
	"io"
)

// figureLine and the others are one line each of --json.
type figureLine struct {
	Kind     string    `json:"kind"` // figure
	Scenario string    `json:"scenario"`
	Case     string    `json:"case,omitempty"`
	Figure   string    `json:"figure"`
	Who      string    `json:"who"`
	Unit     Unit      `json:"unit"`
	Median   float64   `json:"median"`
	Least    float64   `json:"least"`
	Most     float64   `json:"most"`
	Samples  []float64 `json:"samples"`
	Limits   []float64 `json:"limits,omitempty"`
	Ratio    float64   `json:"ratio_to_limit,omitempty"`
	Goal     string    `json:"goal,omitempty"`
	Reached  *bool     `json:"reached,omitempty"` // absent: no goal, or not judged

	Exact     *bool  `json:"exact,omitempty"` // the sinks of its runs; absent: nothing was delivered
	Guarantee string `json:"guarantee,omitempty"`
}

type sentenceLine struct {
	Kind     string `json:"kind"` // sinks, note, missed, fault
	Scenario string `json:"scenario"`
	Who      string `json:"who,omitempty"`
	Exact    *bool  `json:"exact,omitempty"`
	Text     string `json:"text"`
}

type summaryLine struct {
	Kind   string   `json:"kind"` // summary
	OK     bool     `json:"ok"`
	Missed []string `json:"missed"`
	Faults []string `json:"faults"`
}

// WriteJSON writes one object a line: the environment, every figure, verdict, note and fault, last a
// summary with "ok". environment is encoded as it is.
func WriteJSON(w io.Writer, environment any, outcomes []*Outcome) error {
	encoder := json.NewEncoder(w)
	encoder.SetEscapeHTML(false)
	summary := summaryLine{Kind: "summary", OK: true, Missed: []string{}, Faults: []string{}}
	lines := []any{environment}
	for _, o := range outcomes {
		name := o.Scenario.Name
		for _, s := range o.Summaries {
			lines = append(lines, lineOf(name, s))
		}
		for _, v := range o.Verdicts {
			lines = append(lines, sentenceLine{"sinks", name, v.Who, &v.Exact, label(v.Case, v.Text)})
		}
		for _, note := range o.Notes {
			lines = append(lines, sentenceLine{Kind: "note", Scenario: name, Text: note})
		}
		for _, missed := range o.Missed() {
			lines = append(lines, sentenceLine{Kind: "missed", Scenario: name, Text: missed})
			summary.Missed = append(summary.Missed, name+": "+missed)
		}
		if o.Err != nil {
			lines = append(lines, sentenceLine{Kind: "fault", Scenario: name, Text: o.Err.Error()})
			summary.Faults = append(summary.Faults, name+": "+o.Err.Error())
		}
		summary.OK = summary.OK && o.OK()
	}
	for _, line := range append(lines, summary) {
		if err := encoder.Encode(line); err != nil {
			return fmt.Errorf("write the figures: %w", err)
		}
	}
	return nil
}

func lineOf(scenario string, s Summary) figureLine {
	line := figureLine{
		Kind: "figure", Scenario: scenario, Case: s.Case, Figure: s.Name, Who: s.Who, Unit: s.Unit,
		Median: s.Median, Least: s.Least, Most: s.Most, Samples: s.Samples, Limits: s.Limits, Ratio: s.Ratio,
	}
	if s.Goal != nil {
		line.Goal = s.Goal.describe(s.Unit)
	}
	if s.Judged {
		line.Reached = &s.Passed
	}
	if s.Sinks != nil {
		line.Exact, line.Guarantee = &s.Sinks.Exact, s.Sinks.Guarantee
	}
	return line
}
