package daemon

import (
	"fmt"
	"regexp"
	"strings"
	"testing"

	"example.com/tiffin/internal/manual"
)

// What docs/operating.md says of the feedback table: partitioned by id it takes rows, and old ones may go.
func TestFeedbackTableMayBePartitionedAndTrimmed(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.db.Exec(t, manual.Named(t, "docs/operating.md", "sql partitioned"))
	r := start(t, w.environ, nil)
	r.waitReady(t)
	w.publish(t, "r1")
	w.clients(t, 2)
	w.db.Exec(t, manual.Named(t, "docs/operating.md", "sql housekeeping"), "SELECT setval(pg_get_serial_sequence('subscribers_feedback', 'id'), 100000000)")
	w.publish(t, "r2")
	if got := w.clients(t, 3); fmt.Sprint(got) != "map[ann:1 bob:1 cid:1]" {
		t.Errorf("delivered to %v", got)
	}
	w.db.Exec(t, manual.Named(t, "docs/operating.md", "sql rotated"))
	if n := w.rows(t); n != 1 {
		t.Errorf("%d rows after the partition of the first two went", n)
	}
	w.db.Exec(t, "TRUNCATE subscribers_feedback")
	w.publish(t, "r2")
	if got := w.clients(t, 4); fmt.Sprint(got) != "map[ann:1 bob:1 cid:2]" {
		t.Errorf("delivered to %v", got)
	}
	r.stop()
	if err := r.end(t); err != nil {
		t.Error(err)
	}
	if n := w.rows(t); n != 1 {
		t.Errorf("%d rows after all were removed and one came", n)
	}
}

// What docs/operating.md has a DBA ask about the log: the two figures follow from the rate.
func TestBudgetOfTheLogIsComputedOnTheServer(t *testing.T) {
	t.Parallel()
	db := servers.Database(t)
	query := strings.TrimSuffix(strings.TrimSpace(manual.Named(t, "docs/operating.md", "sql log")), ";")
	var rate, budget string
	var hours float64
	err := db.Connect(t).QueryRow(t.Context(), "SELECT log_rate, budget_for_8_hours, extract(epoch FROM outage_that_8_gib_cover) / 3600 FROM ("+query+") AS q").Scan(&rate, &budget, &hours)
	if err != nil || !strings.HasSuffix(rate, "/s") || budget == "" || hours <= 0 {
		t.Errorf("%s, %s, %f h, %v", rate, budget, hours, err)
	}
}

// The documents name every metric, and every value of its labels; none that is not there.
func TestDocumentsNameEveryMetric(t *testing.T) {
	t.Parallel()
	r := start(t, newWorld(t).environ, nil)
	r.waitReady(t)
	text := r.metrics(t)
	r.stop()
	if err := r.end(t); err != nil {
		t.Error(err)
	}
	listed := map[string]string{} // a metric's line
	for _, line := range regexp.MustCompile("(?m)^\\| `(tiffin_[a-z_]+)` \\|.*$").FindAllStringSubmatch(manual.Text(t, "docs/metrics.md"), -1) {
		listed[line[1]] = line[0]
	}
	messages := manual.Text(t, "docs/messages.md")
	there := map[string]bool{}
	for _, help := range regexp.MustCompile(`(?m)^# HELP (tiffin_[a-z_]+) `).FindAllStringSubmatch(text, -1) {
		name := help[1]
		if strings.HasPrefix(name, "tiffin_kafka_") { // the client's own
			continue
		}
		there[name] = true
		if listed[name] == "" {
			t.Errorf("docs/metrics.md lacks %s", name)
		}
		for _, labels := range regexp.MustCompile(`(?m)^`+name+`\{(outcome|reason|sink|result|op)="([a-z0-9_]+)"`).FindAllStringSubmatch(text, -1) {
			label, value := "`"+labels[1]+"`", "`"+labels[2]+"`"
			if !strings.Contains(listed[name], label) || !strings.Contains(listed[name]+messages, value) {
				t.Errorf("the documents lack the value %s of label %s of %s", value, label, name)
			}
		}
	}
	for name := range listed {
		if !there[name] {
			t.Errorf("docs/metrics.md names %s, which is not there", name)
		}
	}
	if len(there) < 20 {
		t.Errorf("%d metrics were found", len(there))
	}
}
