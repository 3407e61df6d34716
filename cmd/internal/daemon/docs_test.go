package daemon

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"example.com/tiffin/cmd/internal/settings"
)

// What docs/operating.md says of the feedback table: partitioned by id it takes rows, and old ones may go.
func TestFeedbackTableMayBePartitionedAndTrimmed(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.db.Exec(t, block(t, "docs/operating.md", "sql partitioned"))
	r := start(t, w.environ, nil)
	r.waitReady(t)
	w.publish(t, "r1")
	w.clients(t, 2)
	w.db.Exec(t, block(t, "docs/operating.md", "sql housekeeping"), "TRUNCATE subscribers_feedback")
	w.publish(t, "r2")
	if got := w.clients(t, 3); fmt.Sprint(got) != "map[ann:1 bob:1 cid:1]" {
		t.Errorf("delivered to %v", got)
	}
	r.stop()
	if err := r.end(t); err != nil {
		t.Error(err)
	}
	if n := w.rows(t); n != 1 {
		t.Errorf("%d rows after the first two were removed and one came", n)
	}
}

// What docs/moving-over.md says of the trial: its settings are settings, and it disturbs nothing of the
// production's group; its rows can be compared.
func TestTrialBesideTheOldJobCanBeCompared(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	file := filepath.Join(t.TempDir(), "trial.yaml")
	trial := strings.ReplaceAll(block(t, "docs/moving-over.md", "yaml trial"), "tiffin_trial", w.db.Slot)
	if err := os.WriteFile(file, []byte(trial), 0o600); err != nil {
		t.Fatal(err)
	}
	var environ []string
	for _, e := range w.environ { // the trial's slot counts
		if !strings.HasPrefix(e, "TIFFIN_SOURCE_SLOT=") {
			environ = append(environ, e)
		}
	}
	s, err := settings.Load(settings.Input{File: file, Environ: environ})
	if err != nil {
		t.Fatal(err)
	}
	if s.Kafka.Group == "tiffin" || s.Kafka.Output == "deliveries" || s.Source.Slot == "tiffin" || s.Feedback.Table.Name == "subscribers_feedback" {
		t.Errorf("the trial shares something with production: %+v", s.Kafka)
	}
	w.db.Exec(t, "CREATE TABLE subscribers_feedback (restaurant_id text, adv_campaign_id text, datetime_created int8, client_id text)",
		"CREATE TABLE subscribers_feedback_trial (LIKE subscribers_feedback)",
		"INSERT INTO subscribers_feedback VALUES ('r', 'c', 1, 'ann'), ('r', 'c', 1, 'bob')",
		"INSERT INTO subscribers_feedback_trial VALUES ('r', 'c', 1, 'bob'), ('r', 'c', 1, 'cid'), ('r', 'c', 1, 'dan')")
	compare := strings.TrimSuffix(strings.TrimSpace(block(t, "docs/moving-over.md", "sql compare")), ";")
	var got string
	err = w.db.Connect(t).QueryRow(t.Context(), "SELECT string_agg(who || ' ' || count, ', ' ORDER BY who) FROM ("+compare+") x").Scan(&got)
	if err != nil || got != "only the job 1, only tiffin 2" {
		t.Errorf("the comparison says %q, %v", got, err)
	}
}

// block returns the fenced block of a file of the repository whose info string is this.
func block(t *testing.T, file, info string) string {
	t.Helper()
	text, err := os.ReadFile("../../../" + file)
	if err != nil {
		t.Fatal(err)
	}
	_, block, found := strings.Cut(string(text), "```"+info+"\n")
	block, _, closed := strings.Cut(block, "```")
	if !found || !closed {
		t.Fatalf("%s has no block %q", file, info)
	}
	return block
}
