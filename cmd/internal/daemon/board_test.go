package daemon

import (
	"encoding/json"
	"os"
	"regexp"
	"strings"
	"testing"
)

// A board or an alert that asks for a metric that does not exist shows nothing, and nobody notices.
func TestBoardAndAlertsAskForMetricsThatExist(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	r := start(t, w.environ, nil)
	r.waitReady(t)
	w.publish(t, "r1")
	w.clients(t, 2)
	scrape := r.metrics(t)
	exist := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^([a-z_]+)(\{| )`).FindAllStringSubmatch(scrape, -1) {
		exist[m[1]] = true
	}
	for _, expr := range append(boardQueries(t), alertQueries(t)...) {
		for _, name := range regexp.MustCompile(`\b(tiffin|process)_[a-z_]+`).FindAllString(expr, -1) {
			if !exist[name] {
				t.Errorf("%s: there is no metric %s", expr, name)
			}
		}
		for _, m := range regexp.MustCompile(`by \(([a-z, ]+)\)`).FindAllStringSubmatch(expr, -1) {
			for label := range strings.SplitSeq(m[1], ", ") {
				if label != "instance" && !strings.Contains(scrape, label+`="`) {
					t.Errorf("%s: no metric has the label %s", expr, label)
				}
			}
		}
	}
}

func boardQueries(t *testing.T) []string {
	t.Helper()
	text, err := os.ReadFile("../../../deploy/grafana/tiffin.json")
	if err != nil {
		t.Fatal(err)
	}
	var board struct {
		Panels []struct{ Targets []struct{ Expr string } }
	}
	if err := json.Unmarshal(text, &board); err != nil {
		t.Fatal(err)
	}
	var queries []string
	for _, panel := range board.Panels {
		for _, target := range panel.Targets {
			queries = append(queries, target.Expr)
		}
	}
	if len(queries) < 20 {
		t.Fatalf("the board has %d queries", len(queries))
	}
	return queries
}

// alertQueries are the alerts' expressions. Each alert must have a section in the runbooks.
func alertQueries(t *testing.T) []string {
	t.Helper()
	rules, err := os.ReadFile("../../../deploy/prometheus/alerts.yml")
	if err != nil {
		t.Fatal(err)
	}
	runbooks, err := os.ReadFile("../../../docs/runbooks.md")
	if err != nil {
		t.Fatal(err)
	}
	names := regexp.MustCompile(`(?m)- alert: (\w+)`).FindAllStringSubmatch(string(rules), -1)
	for _, name := range names {
		if !strings.Contains(string(runbooks), "\n## "+name[1]+"\n") {
			t.Errorf("docs/runbooks.md has no section %s", name[1])
		}
		if !strings.Contains(string(rules), "runbook: docs/runbooks.md#"+strings.ToLower(name[1])+"\n") {
			t.Errorf("alert %s does not name its runbook", name[1])
		}
	}
	var queries []string
	for _, expr := range regexp.MustCompile(`(?m)^ +expr: (.+)$`).FindAllStringSubmatch(string(rules), -1) {
		queries = append(queries, expr[1])
	}
	if len(queries) == 0 || len(queries) != len(names) {
		t.Fatalf("%d alerts, %d expressions", len(names), len(queries))
	}
	return queries
}
