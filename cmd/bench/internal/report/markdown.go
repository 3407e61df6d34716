package report

import (
	"fmt"
	"io"
	"strings"

	"example.com/tiffin/cmd/bench/internal/harness"
)

// writeMarkdown writes a section for each scenario.
func writeMarkdown(w io.Writer, env Environment, outcomes []*harness.Outcome) error {
	var text strings.Builder
	text.WriteString("# What was measured\n\n")
	for _, o := range outcomes {
		fmt.Fprintf(&text, "## %s\n\n%s.\n\n| | who | measured | of the limit | sinks | goal |\n|---|---|---|---|---|---|\n", o.Scenario.Name, o.Scenario.Summary)
		for _, s := range o.Summaries {
			ratio := ""
			if s.Ratio > 0 {
				ratio = fmt.Sprintf("%.2f of %s", s.Ratio, s.Unit.Format(s.Limit))
			}
			fmt.Fprintf(&text, "| %s | %s | %s | %s | %s | %s |\n", s.Label(), s.Who, s.Text(), ratio, s.SinksWord(), s.Verdict())
		}
		text.WriteString("\n")
		for _, v := range o.Verdicts {
			fmt.Fprintf(&text, "- Sinks: %s\n", v.Sentence())
		}
		for _, note := range o.Notes {
			fmt.Fprintf(&text, "- %s\n", note)
		}
		for _, missed := range o.Missed() {
			fmt.Fprintf(&text, "- **Missed**: %s\n", missed)
		}
		for _, p := range o.Explaining() {
			writeFunctions(&text, p)
		}
		if o.Err != nil {
			fmt.Fprintf(&text, "- **Fault**: %s\n", strings.ReplaceAll(o.Err.Error(), "\n", " "))
		}
		text.WriteString("\n")
	}
	text.WriteString("## Where\n\n")
	for _, line := range env.lines() {
		fmt.Fprintf(&text, "- %s: %s\n", line[0], line[1])
	}
	fmt.Fprintf(&text, "\nTo repeat it:\n\n```sh\nmake build\n./bin/%s\n```\n", env.Command)
	_, err := io.WriteString(w, text.String())
	return err
}

// writeFunctions says where the CPU time went in a case whose goal was missed.
func writeFunctions(text *strings.Builder, p harness.Profile) {
	const most = 8
	functions, err := p.Top(most)
	if err != nil {
		fmt.Fprintf(text, "- %v\n", err)
		return
	}
	var words []string
	for _, f := range functions {
		words = append(words, fmt.Sprintf("`%s` %.1f %%", f.Name, 100*f.Flat))
	}
	fmt.Fprintf(text, "- Where the daemon's CPU time went, %s: %s\n", p.Case, strings.Join(words, ", "))
}

// lines are the environment for people; what is not known is left out.
func (e Environment) lines() (list [][2]string) {
	for _, line := range [][2]string{
		{"When", e.Time.Format("2006-01-02 15:04 MST")},
		{"Commit", e.Commit},
		{"Processor", fmt.Sprintf("%s, %d cores for everything", e.CPU, e.Cores)},
		{"Memory", e.Memory},
		{"Kernel", e.Kernel},
		{"Go", e.Go},
		{"PostgreSQL", e.Postgres},
		{"Kafka", e.Kafka},
		{"Settings", strings.Join(e.Settings, "; ")},
		{"Peers", strings.Join(e.Peers, "; ")},
		{"Peers skipped", strings.Join(e.Skipped, "; ")},
	} {
		if line[1] != "" {
			list = append(list, line)
		}
	}
	return list
}
