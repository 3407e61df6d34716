package acceptance

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"example.com/tiffin/internal/devstack"
	"example.com/tiffin/internal/devstack/devstacktest"
	"example.com/tiffin/internal/manual"
)

// Each alert is rehearsed: its fault is provoked on real servers, the rule fires on the daemon's own
// metrics, the commands of its section in docs/runbooks.md are typed, and the rule falls silent. What
// was published meanwhile is in both sinks, once.
func TestRunbooksAreRehearsed(t *testing.T) {
	t.Parallel()
	promtool(t)
	rehearsals := map[string]func(*rehearsal){
		"TiffinDown": rehearseDown, "TiffinNotReady": rehearseNotReady, "TiffinCampaignsLate": rehearseCampaignsLate,
		"TiffinSourceLag": rehearseSourceLag, "TiffinSlotRetainsLog": rehearseSlotRetainsLog, "TiffinIndexRebuilt": rehearseIndexRebuilt,
		"TiffinSinkRetries": rehearseSinkRetries, "TiffinDeadLetters": rehearseDeadLetters, "TiffinFenceSlow": rehearseFenceSlow,
		"TiffinMessagesLost": rehearseMessagesLost,
	}
	rules := regexp.MustCompile(`(?m)- alert: (\w+)`).FindAllStringSubmatch(manual.Text(t, "deploy/prometheus/alerts.yml"), -1)
	for _, rule := range rules {
		rehearse := rehearsals[rule[1]]
		if rehearse == nil {
			t.Errorf("nobody rehearses %s", rule[1])
			continue
		}
		t.Run(rule[1], func(t *testing.T) {
			t.Parallel()
			r := newRehearsal(t, rule[1])
			rehearse(r)
			r.well()
		})
	}
	if len(rules) != len(rehearsals) {
		t.Errorf("%d rules, %d rehearsals", len(rules), len(rehearsals))
	}
}

// rehearsal is a daemon at work, and its alert.
type rehearsal struct {
	*world
	recording
	alert    string
	running  *process
	manifest *pgx.Conn
	messages []*campaign
	before   int // of messages that an earlier process delivered
}

// newRehearsal prepares, but does not start: a case may change what the daemon meets.
func newRehearsal(t *testing.T, alert string) *rehearsal {
	t.Helper()
	r := &rehearsal{world: newWorld(t, 1), alert: alert, recording: recording{address: freeAddress(t)}}
	r.env = append(r.env, "TIFFIN_HTTP_LISTEN="+r.address)
	return r
}

// ownSource moves the source to a server of its own, for what other tests would feel.
func (r *rehearsal) ownSource() {
	r.t.Helper()
	server, err := devstack.StartPostgres(r.t.Context(), devstack.PostgresOptions{})
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() {
		if err := server.Close(); err != nil {
			r.t.Error(err)
		}
	})
	r.source = devstacktest.NewDatabase(r.t, server, r.source.Name)
	r.env = append(r.env, "TIFFIN_SOURCE_DSN="+r.source.DSN)
	r.source.Exec(r.t, `CREATE TABLE subscribers_restaurants (id serial PRIMARY KEY, client_id varchar NOT NULL, restaurant_id varchar NOT NULL)`)
}

// start lets the daemon deliver a campaign, and ten minutes pass in which all is well.
func (r *rehearsal) start() {
	r.t.Helper()
	r.source.Exec(r.t, `INSERT INTO subscribers_restaurants (client_id, restaurant_id) VALUES ('ann', 'r'), ('bob', 'r')`)
	r.running = r.world.start("run")
	r.ready(r.running)
	r.manifest = r.feedback.Connect(r.t)
	r.send()
	r.sent()
	r.record(10)
	r.expect(r.rule(""), false)
}

func (r *rehearsal) rule(state string) string {
	return fmt.Sprintf("ALERTS{alertname=%q%s}", r.alert, state)
}

// fires says that by now the rule's expression is true.
func (r *rehearsal) fires() {
	r.t.Helper()
	r.record(0)
	r.expect(r.rule(""), true)
}

// goesOn says that it stays true for as long as the fault does, so that the alert is sent.
func (r *rehearsal) goesOn() {
	r.t.Helper()
	r.record(6)
	r.expect(r.rule(`,alertstate="firing"`), true)
}

// comesAgain is goesOn for a fault that is over before it shows: of one, a rate of five minutes tells for less than
// the five minutes that make the alert. So it comes a second time, while the rule still sees the first.
func (r *rehearsal) comesAgain(fault func()) {
	r.t.Helper()
	for range 2 {
		fault()
		r.fires()
		r.record(2)
	}
}

// well is the end of each rehearsal: the alert was sent, campaigns are delivered, the rule is silent, and nothing of
// what made it fire has grown in between.
func (r *rehearsal) well() {
	r.t.Helper()
	r.ready(r.running)
	r.expect("last_over_time("+r.rule(`,alertstate="firing"`)+"[1d])", true)
	r.record(70)
	r.send()
	r.sent()
	r.record(0)
	r.expect(r.rule(""), false)
	r.stop(r.running)
	r.wantBoth(r.messages)
	r.judge(r.t)
}

// send publishes a campaign; sent waits until all of them are delivered and counted.
func (r *rehearsal) send() {
	r.t.Helper()
	m := message("r", fmt.Sprintf("c-%d", len(r.messages)), "x", 0, 1<<40, []string{"ann", "bob"})
	r.publish(m)
	r.messages = append(r.messages, m)
}

func (r *rehearsal) sent() {
	r.t.Helper()
	r.shows("tiffin_delivery_seconds_count", func(n float64) bool { return int(n) == len(r.messages)-r.before })
}

// shows waits until a figure of the daemon is so.
func (r *rehearsal) shows(series string, ok func(float64) bool) {
	r.t.Helper()
	r.eventually(series, func() bool {
		value, there := r.scrape()[series]
		return there && ok(value)
	})
}

// sh types a block of the runbooks and returns what it printed.
func (r *rehearsal) sh(block string) string {
	r.t.Helper()
	needTools(r.t, "bash", "curl", "kcat")
	dir, err := programs()
	if err != nil {
		r.t.Fatal(err)
	}
	names := strings.NewReplacer("localhost:9464", r.address, "broker:9092", servers.Kafka(r.t).PlainBrokers()[0], "campaigns.dlq", r.topic.dead)
	cmd := exec.CommandContext(r.t.Context(), "bash", "-euo", "pipefail", "-c", names.Replace(block))
	cmd.Dir, cmd.Env = r.t.TempDir(), append(r.env, "PATH="+dir+":"+os.Getenv("PATH"))
	if err := os.WriteFile(filepath.Join(cmd.Dir, "tiffin.yaml"), []byte("log: {level: warn}\n"), 0o600); err != nil { // the rest is in the environment
		r.t.Fatal(err)
	}
	out, err := cmd.CombinedOutput()
	r.t.Logf("%s%s", block, out)
	if err != nil {
		r.t.Fatalf("%s%v", block, err)
	}
	return string(out)
}

// sql runs a block of the runbooks and returns its rows, each as text.
func (r *rehearsal) sql(db *devstacktest.Database, block string) []string {
	r.t.Helper()
	block = strings.NewReplacer("'tiffin'", "'"+r.source.Slot+"'", ";", "").Replace(block)
	rows, err := db.Connect(r.t).Query(r.t.Context(), "SELECT row(q.*)::text FROM ("+block+") AS q")
	if err != nil {
		r.t.Fatal(err)
	}
	lines, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		r.t.Fatalf("%s%v", block, err)
	}
	r.t.Logf("%s%s", block, strings.Join(lines, "\n"))
	return lines
}

// wantLine is a row that holds all of these words.
func (r *rehearsal) wantLine(lines []string, words ...string) {
	r.t.Helper()
	for _, line := range lines {
		all := true
		for _, word := range words {
			all = all && strings.Contains(line, word)
		}
		if all {
			return
		}
	}
	r.t.Errorf("no row says %q:\n%s", words, strings.Join(lines, "\n"))
}

// walsender is the server's process that reads the log for the daemon, which the caller may stop.
func (r *rehearsal) walsender() (pid int) {
	r.t.Helper()
	err := r.source.Connect(r.t).QueryRow(r.t.Context(), "SELECT active_pid FROM pg_replication_slots WHERE slot_name = $1", r.source.Slot).Scan(&pid)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = syscall.Kill(pid, syscall.SIGCONT) })
	return pid
}

func (r *rehearsal) signal(pid int, sig syscall.Signal) {
	r.t.Helper()
	if err := syscall.Kill(pid, sig); err != nil {
		r.t.Fatal(err)
	}
}

// writeLog has the source write so many MiB that are not the table's.
func (r *rehearsal) writeLog(mib int) {
	r.t.Helper()
	r.source.Exec(r.t, fmt.Sprintf("SELECT count(pg_logical_emit_message(false, 'noise', repeat('x', 1048576))) FROM generate_series(1, %d)", mib))
}

func rehearseDown(r *rehearsal) {
	r.start()
	r.running.kill()
	r.before = len(r.messages)
	r.fires()
	r.goesOn()
	r.send() // while nobody is there
	r.eventually("a slot that nobody holds", func() bool {
		return strings.Contains(r.sh(manual.Named(r.t, "docs/runbooks.md", "sh slot")), "idle")
	})
	r.sql(r.source, manual.Named(r.t, "docs/runbooks.md", "sql drop"))
	r.running = r.world.start("run")
	r.sent()
}

func rehearseNotReady(r *rehearsal) {
	route := devstacktest.OpenRoute(r.t, r.source.Server.Address())
	r.env = append(r.env, "TIFFIN_SOURCE_DSN="+devstacktest.RouteDSN(r.t, route, r.source.DSN))
	r.start()
	route.Lead("127.0.0.1:1")
	r.shows("tiffin_ready", func(ready float64) bool { return ready == 0 })
	r.fires()
	r.goesOn()
	r.send()
	if out := r.sh(manual.Named(r.t, "docs/runbooks.md", "sh reasons")); !strings.Contains(out, `"ready":false`) || !strings.Contains(out, "source") {
		r.t.Errorf("the reasons are %s", out)
	}
	route.Lead(r.source.Server.Address())
	r.sent()
}

// A campaign counts as late once it is delivered: until then its fault is told by others.
func rehearseCampaignsLate(r *rehearsal) {
	r.start()
	r.comesAgain(r.deliverLate)
}

func (r *rehearsal) deliverLate() {
	r.t.Helper()
	blocker := r.feedback.Connect(r.t)
	if _, err := blocker.Exec(r.t.Context(), "BEGIN; LOCK TABLE subscribers_feedback IN ACCESS EXCLUSIVE MODE"); err != nil {
		r.t.Fatal(err)
	}
	r.send()
	r.eventually("ten seconds of waiting", func() bool {
		var late bool
		err := r.manifest.QueryRow(r.t.Context(), `SELECT EXISTS (SELECT FROM pg_stat_activity
			WHERE datname = current_database() AND wait_event_type = 'Lock' AND now() - query_start > '10.5 s')`).Scan(&late)
		return err == nil && late
	})
	pid := fmt.Sprint(blocker.PgConn().PID())
	r.wantLine(r.sql(r.feedback, manual.Named(r.t, "docs/runbooks.md", "sql waits")), "Lock,relation,"+pid, "idle in transaction", "LOCK TABLE")
	r.feedback.Exec(r.t, "SELECT pg_terminate_backend("+pid+")")
	r.sent()
}

func rehearseSourceLag(r *rehearsal) {
	r.ownSource()
	r.start()
	pid := r.walsender()
	r.signal(pid, syscall.SIGSTOP)
	r.writeLog(270)
	r.shows("tiffin_cdc_lag_bytes", func(lag float64) bool { return lag > 256<<20 })
	r.fires()
	r.goesOn()
	r.send()
	r.wantLine(r.sql(r.source, manual.Named(r.t, "docs/runbooks.md", "sql sender")), fmt.Sprintf("(%d,", pid), ` MB",`)
	r.signal(pid, syscall.SIGCONT)
	r.sent()
	r.shows("tiffin_cdc_lag_bytes", func(lag float64) bool { return lag < 1<<20 })
}

// The log grows while the daemon is away: beside a running one it would have to grow slowly, because
// the daemon gives the slot up when at its next look, 10 s later, the budget would be passed.
func rehearseSlotRetainsLog(r *rehearsal) {
	const budget = 64 << 20
	r.ownSource()
	r.env = append(r.env, "TIFFIN_SOURCE_MAX_RETAINED_WAL=64MiB")
	r.start()
	r.stop(r.running)
	r.before = len(r.messages)
	r.source.Exec(r.t, "CREATE TABLE another (id int)")
	owner := r.source.Connect(r.t)
	if _, err := owner.Exec(r.t.Context(), "BEGIN; INSERT INTO another VALUES (1)"); err != nil {
		r.t.Fatal(err)
	}
	r.writeLog(36)
	r.running = r.world.start("run")
	r.shows("tiffin_slot_retained_bytes", func(retained float64) bool { return retained > budget/2 })
	r.ready(r.running)
	r.fires()
	r.goesOn()
	r.wantLine(r.sql(r.source, manual.Named(r.t, "docs/runbooks.md", "sql slots")), r.source.Slot, ",t,", ` MB"`)
	pid := fmt.Sprint(owner.PgConn().PID())
	r.wantLine(r.sql(r.source, manual.Named(r.t, "docs/runbooks.md", "sql oldest")), "("+pid+",", "idle in transaction", "INSERT INTO another")
	r.source.Exec(r.t, "SELECT pg_terminate_backend("+pid+")", "CHECKPOINT")
	r.send()
	r.sent()
	r.shows("tiffin_slot_retained_bytes", func(retained float64) bool { return retained < budget/2 })
}

func rehearseIndexRebuilt(r *rehearsal) {
	r.start()
	for n := 1; n <= 2; n++ {
		r.eventually("a slot that is gone", func() bool {
			conn := r.source.Connect(r.t)
			_, _ = conn.Exec(r.t.Context(), "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = $1", r.source.Slot)
			_, err := conn.Exec(r.t.Context(), "SELECT pg_drop_replication_slot($1)", r.source.Slot)
			return err == nil // it fails when the daemon was faster
		})
		r.shows(`tiffin_rebuilds_total{reason="slot_missing"}`, func(rebuilds float64) bool { return rebuilds == float64(n) })
		r.ready(r.running)
	}
	r.fires()
	if out := r.sh(manual.Named(r.t, "docs/runbooks.md", "sh rebuilds")); out != `tiffin_rebuilds_total{reason="slot_missing"} 2`+"\n" {
		r.t.Errorf("the rebuilds are %s", out)
	}
	if !strings.Contains(r.running.log.String(), "slot") {
		r.t.Error("the log does not name the slot")
	}
}

func rehearseSinkRetries(r *rehearsal) {
	r.start()
	r.feedback.Exec(r.t, "ALTER TABLE subscribers_feedback ADD own text NOT NULL DEFAULT 'x'", "ALTER TABLE subscribers_feedback ALTER own DROP DEFAULT")
	r.send()
	r.shows(`tiffin_sink_retries_total{sink="postgres"}`, func(retries float64) bool { return retries >= 6 })
	r.fires()
	if out := r.sh(manual.Named(r.t, "docs/runbooks.md", "sh reasons")); !strings.Contains(out, "own") {
		r.t.Errorf("the reasons do not name the column: %s", out)
	}
	r.feedback.Exec(r.t, "ALTER TABLE subscribers_feedback ALTER own DROP NOT NULL")
	r.sent()
}

func rehearseDeadLetters(r *rehearsal) {
	r.start()
	junk := &campaign{value: []byte("junk")}
	r.publish(junk)
	r.shows(`tiffin_dead_letters_total{reason="not_json"}`, func(n float64) bool { return n == 1 })
	r.fires()
	r.eventually("the dead letter", func() bool {
		out := r.sh(manual.Named(r.t, "docs/runbooks.md", "sh dead letters"))
		return strings.Contains(out, "reason=not_json") && strings.Contains(out, "error=the value is not JSON") &&
			strings.Contains(out, fmt.Sprintf("trigger=%s/0/%d", r.topic.in, junk.offset)) && strings.Contains(out, "\njunk\n")
	})
}

// What is published while no process runs is deleted before one does.
func rehearseMessagesLost(r *rehearsal) {
	r.start()
	r.stop(r.running)
	r.before = len(r.messages)
	lost := &campaign{value: []byte("deleted")}
	r.publish(lost)
	cl, err := kgo.NewClient(kgo.SeedBrokers(servers.Kafka(r.t).PlainBrokers()...))
	if err != nil {
		r.t.Fatal(err)
	}
	defer cl.Close()
	upTo := kadm.Offsets{}
	upTo.AddOffset(r.topic.in, 0, lost.offset+1, -1)
	if deleted, err := kadm.NewClient(cl).DeleteRecords(r.t.Context(), upTo); err != nil || deleted.Error() != nil {
		r.t.Fatal(err, deleted.Error())
	}
	r.running = r.world.start("run")
	r.shows(`tiffin_lost_messages_total{reason="retention"}`, func(n float64) bool { return n == 1 })
	r.fires()
	if out := r.sh(manual.Named(r.t, "docs/runbooks.md", "sh lost")); !strings.Contains(out, `{reason="retention"} 1`) {
		r.t.Errorf("the counter says %s", out)
	}
	if log := r.running.log.String(); !strings.Contains(log, "deleted by the topic's retention before they were handled") || !strings.Contains(log, fmt.Sprintf("from_offset=%d", lost.offset)) {
		r.t.Errorf("the log does not name the message: %s", log)
	}
	r.send()
	r.sent()
}

// fetched is how much of the input topic has reached the daemon.
func (r *rehearsal) fetched() (bytes float64) {
	for series, value := range r.scrape() {
		if strings.HasPrefix(series, `tiffin_kafka_fetch_bytes_total{client="consumer"`) {
			bytes += value
		}
	}
	return bytes
}

func rehearseFenceSlow(r *rehearsal) {
	r.start()
	r.comesAgain(r.slowFence)
}

func (r *rehearsal) slowFence() {
	r.t.Helper()
	pid := r.walsender()
	r.signal(pid, syscall.SIGSTOP)
	r.source.Exec(r.t, "DROP TABLE IF EXISTS another", "CREATE TABLE another (id int)") // there is something to wait for
	before := r.fetched()
	r.send()
	r.eventually("a campaign that was fetched", func() bool { return r.fetched() > before })
	<-time.After(1500 * time.Millisecond)
	r.wantLine(r.sql(r.source, manual.Named(r.t, "docs/runbooks.md", "sql sender")), fmt.Sprintf("(%d,", pid))
	r.signal(pid, syscall.SIGCONT)
	r.sent()
}

// Every query of the board has an answer on the metrics of a daemon to which what it shows happened.
func TestBoardShowsSomethingOfEveryQuery(t *testing.T) {
	t.Parallel()
	promtool(t)
	r := newRehearsal(t, "")
	r.start()
	conn := r.source.Connect(t)
	r.eventually("a slot that is gone", func() bool {
		_, _ = conn.Exec(t.Context(), "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = $1", r.source.Slot)
		_, err := conn.Exec(t.Context(), "SELECT pg_drop_replication_slot($1)", r.source.Slot)
		return err == nil
	})
	r.shows(`tiffin_rebuilds_total{reason="slot_missing"}`, func(rebuilds float64) bool { return rebuilds == 1 })
	r.ready(r.running)
	r.source.Exec(t, "INSERT INTO subscribers_restaurants (client_id, restaurant_id) VALUES ('cid', 'another')")
	r.publish(&campaign{value: []byte("junk")})
	r.shows(`tiffin_dead_letters_total{reason="not_json"}`, func(n float64) bool { return n == 1 })
	r.send()
	r.sent()
	r.record(0)
	var board struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
	}
	if err := json.Unmarshal([]byte(manual.Text(t, "deploy/grafana/tiffin.json")), &board); err != nil {
		t.Fatal(err)
	}
	queries := 0
	for _, panel := range board.Panels {
		for _, target := range panel.Targets {
			queries++
			r.expect(strings.NewReplacer("$instance", ".*", "$__rate_interval", "5m").Replace(target.Expr), true)
		}
	}
	if queries < 20 {
		t.Errorf("the board has %d queries", queries)
	}
	r.stop(r.running)
	r.judge(t)
}
