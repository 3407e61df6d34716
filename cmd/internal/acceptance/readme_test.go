package acceptance

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"example.com/tiffin/internal/manual"
)

// From a clone to a campaign of one's own that is delivered: every block of the README is typed as it
// stands, in order, against a Kafka with SCRAM over TLS and only the rights that it names, and servers
// whose roles have only what it grants.
func TestReadmeFromCloneToTheFirstCampaign(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	clone(t, s.dir)
	s.exec(s.source, "app", `INSERT INTO subscribers_restaurants (client_id, restaurant_id) VALUES
		('ann', '123e4567-e89b-12d3-a456-426614174000'), ('bob', '123e4567-e89b-12d3-a456-426614174000'), ('cid', 'another')`)
	r := &readme{site: s}
	sh := func(block string) { s.sh(block) }
	follow(t, "README.md", map[string]func(block string){
		"sh demo": r.demo, "mermaid": func(string) {}, "sh build": sh, "sh topics": r.topics, "sh rights": sh,
		"sql source":   func(block string) { s.psql(s.source, "app", block) },
		"sql feedback": func(block string) { s.psql(s.feedback, "feedback", block) },
		"sh migrate":   sh, "yaml settings": s.settings, "sh run": r.run,
		"sh ready":   r.ready,
		"sh publish": sh, "sh read": r.read,
	})
	r.deadLetter()
	s.stop(r.running)
}

type readme struct {
	*site
	running *daemon
}

// demo types the first line and ends it as the line says; the second would run this test.
func (r *readme) demo(block string) {
	r.t.Helper()
	demo, test, _ := strings.Cut(block, "\n")
	d := r.start(demo)
	r.says(d, "Ctrl-C ends the demo")
	r.says(d, "  agree")
	if err := syscall.Kill(-d.cmd.Process.Pid, syscall.SIGINT); err != nil {
		r.t.Fatal(err)
	}
	r.says(d, "equal, row for row")
	d.done <- <-d.done // make calls an interrupt a fault, whatever the demo makes of it
	if left, err := filepath.Glob(filepath.Join(r.dir, "tmp", "tiffin-*")); err != nil || len(left) > 0 {
		r.t.Errorf("the demo left %v behind: %v", left, err)
	}
	if out := r.sh("make -n " + strings.TrimPrefix(test, "make ")); !strings.Contains(out, "go test -count=1 -race") || !strings.Contains(out, "./...") {
		r.t.Errorf("%s: would run\n%s", test, out)
	}
}

func (r *readme) topics(block string) {
	r.t.Helper()
	if out := r.sh(block); strings.Count(out, "Created topic") != 3 {
		r.t.Errorf("the topics are not there:\n%s", out)
	}
}

func (r *readme) run(block string) {
	r.t.Helper()
	// As its reader, a DBA finds nothing missing but the slot that the daemon makes.
	plan := r.sh(fmt.Sprintf("TIFFIN_SETUP_DSN=postgres://postgres@%s/app slotsetup plan -c tiffin.yaml\n", r.source.Address()))
	statements, _, _ := strings.Cut(plan, "SELECT pg_create_logical_replication_slot")
	for line := range strings.Lines(statements) {
		if !strings.HasPrefix(line, "--") && strings.TrimSpace(line) != "" {
			r.t.Errorf("the README grants less than slotsetup plan: %s", line)
		}
	}
	r.running = r.start(block)
}

func (r *readme) ready(block string) {
	r.t.Helper()
	r.says(r.running, "msg=ready") // or it has ended, and says why
	r.until(block, `{"ready":true,"reasons":[]}`)
}

// read expects both deliveries of the campaign, and its row in the manifest.
func (r *readme) read(block string) {
	r.t.Helper()
	out := r.until(block, "(1 row)")
	var deliveries []string
	for line := range strings.Lines(out) {
		if strings.HasPrefix(line, "trigger=campaigns/") {
			trigger, rest, _ := strings.Cut(line, " ")
			key, value, _ := strings.Cut(rest, " ")
			deliveries = append(deliveries, key)
			if !strings.HasSuffix(trigger, "/0") || !strings.Contains(value, `"adv_campaign_content":"first campaign"`) || !strings.Contains(value, `"client_id":"`+key+`"`) {
				r.t.Errorf("delivered: %s", line)
			}
		}
	}
	slices.Sort(deliveries)
	if fmt.Sprint(deliveries) != "[ann bob]" || !strings.Contains(out, "| delivered |          2 |") {
		r.t.Errorf("delivered to %v\n%s", deliveries, out)
	}
	var rows int
	if err := r.connect(r.feedback, "feedback").QueryRow(r.t.Context(), "SELECT count(*) FROM subscribers_feedback").Scan(&rows); err != nil || rows != 2 {
		r.t.Errorf("%d feedback rows, %v", rows, err)
	}
}

// deadLetter is what a reader of the runbooks sees of a message that cannot be delivered.
func (r *readme) deadLetter() {
	r.t.Helper()
	r.sh("echo junk | kcat -P -b broker:9092 -t campaigns")
	out := r.until(manual.Named(r.t, "docs/runbooks.md", "sh dead letters"), "trigger=campaigns/")
	if !strings.Contains(out, "reason=not_json") || !strings.Contains(out, "error=") || !strings.Contains(out, "\njunk\n") {
		r.t.Errorf("the dead letter is %s", out)
	}
}
