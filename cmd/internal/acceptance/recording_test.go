package acceptance

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"example.com/tiffin/internal/manual"
)

// recording is what a Prometheus would have of one process: real scrapes, each of them a minute of its
// time. What a process shows may be held for as many minutes as a rule wants to see it; that costs no
// time. promtool evaluates rules and queries on it.
type recording struct {
	address string
	minutes int
	series  map[string][]string // by name and labels: a value for each minute
	tests   []map[string]any    // of promtool
}

// promtool is the program; a machine that lacks it skips, and says so. With CI=true that is a failure.
func promtool(t *testing.T) string {
	t.Helper()
	for _, candidate := range []string{"promtool", filepath.Join(manual.Root(t), "bin", "promtool")} {
		if path, err := exec.LookPath(candidate); err == nil {
			return path
		}
	}
	const lacking = "needs promtool, which no registry of Go has: Debian's package prometheus does"
	if os.Getenv("CI") == "true" {
		t.Fatal(lacking)
	}
	t.Skip(lacking)
	return ""
}

// scrape is what the process shows now, by name and labels; nil when it does not answer.
func (r *recording) scrape() map[string]float64 {
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Get("http://" + r.address + "/metrics")
	if err != nil {
		return nil
	}
	defer func() { _ = response.Body.Close() }()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		return nil
	}
	values := map[string]float64{}
	for line := range strings.Lines(string(text)) {
		series, value, ok := strings.Cut(strings.TrimSpace(line), "} ")
		if ok {
			series += "}"
		} else {
			series, value, ok = strings.Cut(strings.TrimSpace(line), " ")
		}
		if number, err := strconv.ParseFloat(value, 64); ok && err == nil && !strings.HasPrefix(line, "#") && number == number {
			values[series] = number
		}
	}
	return values
}

// record adds a minute with a scrape, and minutes more in which nothing changes.
func (r *recording) record(held int) {
	scrape := r.scrape()
	now := map[string]string{`up{job="tiffin",instance="a"}`: "0"}
	if scrape != nil {
		now[`up{job="tiffin",instance="a"}`] = "1"
	}
	for series, value := range scrape {
		name, labels, _ := strings.Cut(strings.TrimSuffix(series, "}"), "{")
		labels = strings.TrimPrefix(`job="tiffin",instance="a",`+labels, ",")
		now[name+"{"+strings.TrimSuffix(labels, ",")+"}"] = strconv.FormatFloat(value, 'f', -1, 64)
	}
	if r.series == nil {
		r.series = map[string][]string{}
	}
	for series := range now {
		if r.series[series] == nil {
			r.series[series] = slices.Repeat([]string{"_"}, r.minutes)
		}
	}
	for series, values := range r.series {
		value, there := now[series]
		if !there {
			value = "stale"
		}
		r.series[series] = append(values, slices.Repeat([]string{value}, 1+held)...)
	}
	r.minutes += 1 + held
}

// expect has promtool ask, at the last minute, whether an expression has any value that is a number.
func (r *recording) expect(expr string, value bool) {
	want := 0
	if value {
		want = 1
	}
	r.tests = append(r.tests, map[string]any{
		"expr":        fmt.Sprintf("(count((%[1]s) == (%[1]s)) > bool 0) or vector(0)", expr), // NaN is not equal to itself
		"eval_time":   strconv.Itoa(r.minutes-1) + "m",
		"exp_samples": []any{map[string]any{"labels": "{}", "value": want}},
	})
}

// judge evaluates the rules of deploy/ over the recording, and what is expected of it.
func (r *recording) judge(t *testing.T) {
	t.Helper()
	tool := promtool(t)
	var series []any
	for _, name := range slices.Sorted(maps.Keys(r.series)) {
		series = append(series, map[string]any{"series": name, "values": strings.Join(r.series[name], " ")})
	}
	file, err := json.Marshal(map[string]any{ // which is YAML, too
		"rule_files":          []string{filepath.Join(manual.Root(t), "deploy", "prometheus", "alerts.yml")},
		"evaluation_interval": "1m",
		"tests":               []any{map[string]any{"interval": "1m", "input_series": series, "promql_expr_test": r.tests}},
	})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "recording.yml")
	if err := os.WriteFile(path, file, 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(t.Context(), tool, "test", "rules", path).CombinedOutput(); err != nil {
		t.Errorf("promtool: %v\n%s", err, out)
	}
}
