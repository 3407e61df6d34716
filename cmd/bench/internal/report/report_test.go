package report

import (
	"bytes"
	"context"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/pprof/profile"

	"example.com/tiffin/cmd/bench/internal/harness"
)

// cpuProfile is a profile of one sample.
func cpuProfile(t *testing.T) []byte {
	t.Helper()
	function := &profile.Function{ID: 1, Name: "main.busyWork"}
	location := &profile.Location{ID: 1, Line: []profile.Line{{Function: function}}}
	p := &profile.Profile{
		SampleType: []*profile.ValueType{{Type: "samples", Unit: "count"}}, Function: []*profile.Function{function},
		Location: []*profile.Location{location}, Sample: []*profile.Sample{{Location: []*profile.Location{location}, Value: []int64{3}}},
	}
	var b bytes.Buffer
	if err := p.Write(&b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// A peer that loses or doubles, and goals that nobody judged, are not passed over by the page's first sentence.
func TestReportBeginsWithWhatIsTrue(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		quick bool
		who   string
		says  []string
	}{
		"quick": {true, "peer", []string{"No goal was judged; tiffin&#39;s sinks hold exactly what was expected", "Of the peers: peer, 3 too many."}},
		"goal":  {false, "peer", []string{"Every goal that was judged is reached, and tiffin&#39;s sinks", "Of the peers: peer, 3 too many."}},
		"ours":  {false, harness.Tiffin, []string{"Not everything is as it should be"}},
	} {
		scenario := harness.Scenario{
			Name: "trial", Summary: "a trial", Goals: []harness.Goal{harness.AtLeast("", "deliveries", 0.9).OfLimit()},
			Run: func(context.Context, *harness.Env) (*harness.Result, error) {
				r := &harness.Result{}
				r.Add(harness.Figure{Name: "deliveries", Unit: harness.PerSecond, Value: 95, Limit: 100})
				return r, r.Judge(harness.Verdict{Who: c.who, Text: "3 too many"})
			},
		}
		e, err := harness.NewEnv(harness.Options{Dir: t.TempDir(), Progress: io.Discard, Quick: c.quick})
		if err != nil {
			t.Fatal(err)
		}
		outcomes, _ := harness.Run(t.Context(), e, []harness.Scenario{scenario}, func(*harness.Outcome) error { return nil })
		if err := e.Close(); err != nil {
			t.Fatal(err)
		}
		var page bytes.Buffer
		if err := writePage(&page, Environment{}, outcomes); err != nil {
			t.Fatal(err)
		}
		for _, want := range c.says {
			if !strings.Contains(strings.ReplaceAll(page.String(), "'", "&#39;"), want) {
				t.Errorf("%s: the page lacks %q:\n%.2500s", name, want, page.String()[strings.Index(page.String(), "<body>"):])
			}
		}
	}
}

// The report is whole in one file, and says of every figure, goal, plot and verdict what there is to
// say; what a scenario says cannot become markup.
func TestReportIsWholeInOneFile(t *testing.T) {
	t.Parallel()
	scenario := harness.Scenario{
		Name: "trial", Summary: "a trial", Goals: []harness.Goal{harness.AtLeast("small", "deliveries", 0.9).OfLimit()},
		Run: func(context.Context, *harness.Env) (*harness.Result, error) {
			r := &harness.Result{}
			r.Add(harness.Figure{Case: "small", Name: "deliveries", Unit: harness.PerSecond, Value: 80_000, Limit: 100_000},
				harness.Figure{Case: "small", Name: "deliveries", Who: "<script>peer", Unit: harness.PerSecond, Value: 50_000, Limit: 100_000})
			r.Plot(harness.Series{Title: "Latency", X: "percentile", Y: "seconds", Kind: harness.Percentiles, Lines: []harness.Line{{Name: "a", Points: [][2]float64{{0, 0.001}, {50, 0.002}, {99.9, 0.1}}}}})
			r.Plot(harness.Series{Title: "Cost", X: "subscriptions", Y: "seconds", Kind: harness.Logarithmic, Lines: []harness.Line{{Name: "b", Points: [][2]float64{{1e6, 1e-6}, {2e7, 1.1e-6}}}}})
			r.Plot(harness.Series{Title: "Memory", X: "seconds since ready", Y: "bytes", Kind: harness.Linear, Lines: []harness.Line{{Name: "c", Points: [][2]float64{{0, 1e8}, {5, 2e8}}}}})
			r.Note("a note")
			r.Explain("small", cpuProfile(t))
			return r, r.Judge(harness.Verdict{Case: "small", Who: "<script>peer", Guarantee: "at least once: it doubles", Text: "3 too many"})
		},
	}
	e, err := harness.NewEnv(harness.Options{Dir: t.TempDir(), Progress: io.Discard})
	if err != nil {
		t.Fatal(err)
	}
	outcomes, _ := harness.Run(t.Context(), e, []harness.Scenario{scenario}, func(*harness.Outcome) error { return nil })
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "report")
	env := Environment{Kind: "environment", Time: time.Unix(1_700_000_000, 0), Command: "bench trial --case 'a b'", CPU: "fast", Cores: 2}
	if err := Write(dir, env, outcomes); err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile(filepath.Join(dir, "index.html"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"80,000/s", "0.80 of the limit", "MISSED", "3 too many", "99.9", "20,000,000", "200 MB", "a note", "busyWork", "--case &#39;a b&#39;", "2 cores"} {
		if !strings.Contains(string(page), want) {
			t.Errorf("the page lacks %q", want)
		}
	}
	if outside := regexp.MustCompile(`(?i)(src|href)=|url\(|@import|<script|NaN|Inf[^o]`).Find(page); outside != nil {
		t.Errorf("the page has %q in it", outside)
	}
	if n := strings.Count(string(page), "<svg "); n != 4 {
		t.Errorf("%d drawings, want 4", n)
	}
	markdown, err := os.ReadFile(filepath.Join(dir, "README.md"))
	if !strings.Contains(string(markdown), "`main.busyWork` 100.0 %") {
		t.Errorf("a missed goal is not explained:\n%s", markdown)
	}
	if !strings.Contains(string(markdown), "0.50 of 100,000/s | NOT EXACT, promised: at least once |") || !strings.Contains(string(page), "NOT EXACT, promised: at least once<") {
		t.Errorf("a peer's verdict and guarantee are not beside its figure:\n%s", markdown)
	}
	if err != nil || !strings.Contains(string(markdown), "| small: deliveries | tiffin | 80,000/s | 0.80 of 100,000/s |  | goal at least 0.90 of the limit: MISSED |") {
		t.Errorf("%v\n%s", err, markdown)
	}
}
