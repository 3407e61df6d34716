package acceptance

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"example.com/tiffin/internal/devstack"
	"example.com/tiffin/internal/devstack/devstacktest"
)

// clinic is a set of servers that nobody else uses, so that whatever changes on them is the doctor's
// doing, and brokers that make topics by use.
type clinic struct {
	postgres         *devstack.Postgres
	source, feedback *devstacktest.Database
	kafka            *devstack.Kafka
	environ          []string
}

func newClinic(t *testing.T) *clinic {
	t.Helper()
	server, err := devstack.StartPostgres(t.Context(), devstack.PostgresOptions{Settings: map[string]string{"autovacuum": "off"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Close() })
	c := &clinic{postgres: server, source: devstacktest.NewDatabase(t, server, "app"), feedback: devstacktest.NewDatabase(t, server, "feedback")}
	c.source.Exec(t, "CREATE TABLE subscribers_restaurants (id serial PRIMARY KEY, client_id varchar NOT NULL, restaurant_id varchar NOT NULL)")
	c.kafka = devstacktest.StartKafka(t, devstack.KafkaOptions{Settings: map[string]string{"auto.create.topics.enable": "true"}})
	devstacktest.CreateTopic(t, c.kafka.Brokers(), "campaigns", 2, nil)
	c.environ = []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir(), "TIFFIN_SOURCE_DSN=" + c.source.DSN, "TIFFIN_FEEDBACK_DSN=" + c.feedback.DSN,
		"TIFFIN_KAFKA_BROKERS=" + c.kafka.Brokers()[0], "TIFFIN_HTTP_LISTEN=127.0.0.1:0",
	}
	return c
}

// doctor runs the program and returns its exit status and what it says.
func (c *clinic) doctor(t *testing.T, change string, args ...string) (status int, stdout, stderr string) {
	t.Helper()
	path, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	var out, errs bytes.Buffer
	cmd := exec.CommandContext(t.Context(), path, append([]string{"doctor"}, args...)...)
	cmd.Env, cmd.Stdout, cmd.Stderr = append(slices.Clone(c.environ), change), &out, &errs
	var exit *exec.ExitError
	if err := cmd.Run(); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), out.String(), errs.String()
}

// state is all that a doctor could change: catalogs, slots, topics, groups, transactions.
func (c *clinic) state(t *testing.T) map[string]string {
	t.Helper()
	state := map[string]string{}
	for _, db := range []*devstacktest.Database{c.source, c.feedback} {
		conn := db.Connect(t)
		for what, query := range map[string]string{
			"relations":    "SELECT oid, relname, relnamespace, relowner, relacl, relkind, relreplident, relfilenode, relhastriggers FROM pg_class",
			"columns":      "SELECT attrelid, attname, atttypid, attnum, attnotnull, attacl FROM pg_attribute",
			"schemas":      "SELECT oid, nspname, nspowner, nspacl FROM pg_namespace WHERE nspname NOT LIKE 'pg\\_t%'",
			"functions":    "SELECT oid, proname, proowner, proacl FROM pg_proc",
			"publications": "SELECT p.*, r.prrelid FROM pg_publication p LEFT JOIN pg_publication_rel r ON r.prpubid = p.oid",
			"roles":        "SELECT rolname, rolsuper, rolreplication, rolcanlogin, rolconfig FROM pg_roles",
			"databases":    "SELECT datname, datdba, datacl FROM pg_database",
			"slots":        "SELECT slot_name, plugin, database, restart_lsn FROM pg_replication_slots",
			"settings":     "SELECT name, setting FROM pg_settings WHERE source <> 'session' AND name NOT LIKE 'transaction%'",
			"rows":         "SELECT relname, n_tup_ins, n_tup_upd, n_tup_del FROM pg_stat_user_tables",
		} {
			var text string
			if err := conn.QueryRow(t.Context(), "SELECT coalesce(string_agg(q::text, E'\\n' ORDER BY q::text), '') FROM ("+query+") q").Scan(&text); err != nil {
				t.Fatal(what, err)
			}
			state[db.Name+": "+what] = text
		}
	}
	client, err := kgo.NewClient(kgo.SeedBrokers(c.kafka.Brokers()...))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	adm := kadm.NewClient(client)
	// What the brokers keep for themselves begins with __, and comes with the first question.
	topics, err := adm.ListTopics(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	configs, err := adm.DescribeTopicConfigs(t.Context(), topics.Names()...)
	if err != nil {
		t.Fatal(err)
	}
	ends, err := adm.ListEndOffsets(t.Context(), topics.Names()...)
	if err != nil {
		t.Fatal(err)
	}
	groups, err := adm.ListGroups(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	transactions, err := adm.ListTransactions(t.Context(), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	state["topics"], state["groups"], state["transactions"] = strings.Join(topics.Names(), " "), strings.Join(groups.Groups(), " "), strings.Join(transactions.TransactionalIDs(), " ")
	for _, rc := range configs {
		for _, entry := range rc.Configs {
			state["topic "+rc.Name] += entry.Key + "=" + entry.MaybeValue() + "\n"
		}
	}
	ends.Each(func(o kadm.ListedOffset) {
		state[fmt.Sprint("end of ", o.Topic, "/", o.Partition)] = fmt.Sprint(o.Offset)
	})
	return state
}

var (
	doctorLine = regexp.MustCompile(`^(ok|warn|fail|skip)(?: {2}){1,2}([a-z]+\.[a-z_]+) +(\S.*)$`)
	doctorFix  = regexp.MustCompile(`^ {39}fix: (\S.*)$`)
)

// Scripts hold on to the exit status and the lines; and whatever the doctor finds, it leaves as it is.
func TestDoctorTellsAndChangesNothing(t *testing.T) {
	t.Parallel()
	c := newClinic(t)
	before := c.state(t)

	status, stdout, stderr := c.doctor(t, "A=b")
	if status != 0 || stderr != "" {
		t.Errorf("all is well: exit %d, %q\n%s", status, stderr, stdout)
	}
	text, order := readDoctor(t, stdout)
	if want := doctorsVisit(); !slices.Equal(order, want) {
		t.Errorf("the lines are\n%q\nwant\n%q", order, want)
	}
	for check, verdict := range map[string]string{"source.publication": "warn", "feedback.schema": "warn", "kafka.topic_output": "warn", "source.slot": "ok", "kafka.topic_input": "ok", "http.listen": "ok"} {
		if text[check] != verdict {
			t.Errorf("%s is %q, want %s\n%s", check, text[check], verdict, stdout)
		}
	}

	status, stdout, stderr = c.doctor(t, "A=b", "--json")
	lines, order, summary := readDoctorJSON(t, stdout)
	if want := doctorsVisit(); !slices.Equal(order, want) {
		t.Errorf("as JSON the lines are\n%q\nwant\n%q", order, want)
	}
	if status != 0 || stderr != "" || !summary.OK || summary.Fails != 0 || summary.Warns != count(lines, "warn") || summary.Warns == 0 {
		t.Errorf("as JSON: exit %d, %q, %+v\n%s", status, stderr, summary, stdout)
	}
	if fmt.Sprint(lines) != fmt.Sprint(text) {
		t.Errorf("as JSON it is %v, as text %v", lines, text)
	}

	for _, args := range [][]string{nil, {"--json"}} {
		status, stdout, stderr = c.doctor(t, "TIFFIN_SOURCE_TABLE=nosuch", args...)
		if status != 1 || !strings.HasPrefix(stderr, "tiffin: doctor: 1 check fails") || !strings.Contains(stdout, "nosuch") {
			t.Errorf("a table is missing: exit %d, %q\n%s", status, stderr, stdout)
		}
	}
	lines, _, summary = readDoctorJSON(t, stdout)
	if summary.OK || summary.Fails != 1 || lines["source.table"] != "fail" || lines["source.columns"] != "skip" || lines["kafka.topic_input"] != "ok" {
		t.Errorf("a table is missing: %+v %v", summary, lines)
	}

	c.fixesReadItsFile(t)

	for _, args := range [][]string{nil, {"--nonsense"}, {"more"}, {"-c", "/no/such/file"}} {
		if status, stdout, stderr := c.doctor(t, "TIFFIN_KAFKA_BROKERS=nonsense", args...); status != 2 || stdout != "" || !strings.HasPrefix(stderr, "tiffin: ") {
			t.Errorf("%v: exit %d, %q, %q", args, status, stdout, stderr)
		}
	}

	c.nothingOfTransactions(t)
	after := c.state(t)
	for what, was := range before {
		if after[what] != was {
			t.Errorf("%s was\n%s\nand is\n%s", what, was, after[what])
		}
	}
	if len(after) != len(before) {
		t.Errorf("%d things were there, %d are", len(before), len(after))
	}
}

// fixesReadItsFile holds that who copies a fix works on what the doctor looked at.
func (c *clinic) fixesReadItsFile(t *testing.T) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "my tiffin.yaml")
	if err := os.WriteFile(file, []byte("source: {setup: never}\nfeedback: {table: public.other}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"-c", file}, {"--json", "-c", file}} {
		_, stdout, _ := c.doctor(t, "A=b", args...)
		for _, fix := range []string{"tiffin migrate -c '" + file + "', or for a DBA: tiffin migrate -c '" + file + "' --print --role ", " -- or: slotsetup apply -c '" + file + "'"} {
			if !strings.Contains(stdout, fix) {
				t.Errorf("%q lacks the fix %s\n%s", args, fix, stdout)
			}
		}
	}
}

// doctorsVisit are the checks in their order, as scripts know them: they may grow.
func doctorsVisit() []string {
	return []string{
		"source.dns", "source.tcp", "source.tls", "source.login", "source.clock", "source.version", "source.primary", "source.wal_level",
		"source.synchronous_standby_names", "source.replication_right", "source.table", "source.table_right", "source.columns",
		"source.replica_identity", "source.publication", "source.slot", "source.replication_slots", "source.wal_senders",
		"source.replication_connection", "source.retained_wal", "source.max_slot_wal_keep_size",
		"feedback.dns", "feedback.tcp", "feedback.tls", "feedback.login", "feedback.clock", "feedback.session", "feedback.version", "feedback.primary",
		"feedback.encoding", "feedback.schema", "feedback.table", "feedback.columns", "feedback.rights", "feedback.logged", "feedback.indexes", "feedback.triggers", "feedback.row_security",
		"kafka.dns", "kafka.tcp", "kafka.tls", "kafka.login", "kafka.advertised", "kafka.version", "kafka.broker_settings",
		"kafka.topic_input", "kafka.topic_output", "kafka.topic_dead_letter",
		"kafka.may_read_input", "kafka.may_write_output", "kafka.may_write_dead_letter", "kafka.group", "kafka.transactional_id",
		"kafka.transaction_timeout", "kafka.session_timeout", "kafka.message_size",
		"index.spill_dir", "http.listen",
	}
}

// nothingOfTransactions holds that the brokers' log of transactions, which came with the first question
// for it, is empty: no id was made, none was ended.
func (c *clinic) nothingOfTransactions(t *testing.T) {
	t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(c.kafka.Brokers()...))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	ends, err := kadm.NewClient(client).ListEndOffsets(t.Context(), "__transaction_state")
	if err != nil || ends.Error() != nil || len(ends) == 0 {
		t.Fatalf("%v, %v: %v", err, ends.Error(), ends)
	}
	ends.Each(func(o kadm.ListedOffset) {
		if o.Offset != 0 {
			t.Errorf("%s/%d ends at %d", o.Topic, o.Partition, o.Offset)
		}
	})
}

// readDoctor reads the lines for people: a check each, a fix below those that need one.
func readDoctor(t *testing.T, stdout string) (verdicts map[string]string, order []string) {
	t.Helper()
	verdicts, last := map[string]string{}, "fail"
	for line := range strings.Lines(stdout) {
		line = strings.TrimSuffix(line, "\n")
		if doctorFix.MatchString(line) {
			if last != "warn" && last != "fail" {
				t.Errorf("a fix below %q: %s", last, line)
			}
			last = "fixed"
			continue
		}
		found := doctorLine.FindStringSubmatch(line)
		if found == nil || last == "fail" && len(verdicts) > 0 {
			t.Errorf("no check, or a fail without its fix above it: %q", line)
			continue
		}
		if _, twice := verdicts[found[2]]; twice {
			t.Errorf("%s is told twice", found[2])
		}
		last, verdicts[found[2]] = found[1], found[1]
		order = append(order, found[2])
	}
	return verdicts, order
}

type doctorEnd struct {
	OK           bool
	Fails, Warns int
}

func readDoctorJSON(t *testing.T, stdout string) (verdicts map[string]string, order []string, end doctorEnd) {
	t.Helper()
	all := strings.Split(strings.TrimSuffix(stdout, "\n"), "\n")
	if err := json.Unmarshal([]byte(all[len(all)-1]), &end); err != nil || !strings.HasPrefix(all[len(all)-1], `{"ok":`) {
		t.Errorf("the summary is %q: %v", all[len(all)-1], err)
	}
	verdicts = map[string]string{}
	for _, text := range all[:len(all)-1] {
		var line struct{ Check, Verdict, Text, Fix string }
		decoder := json.NewDecoder(strings.NewReader(text))
		decoder.DisallowUnknownFields()
		if err := decoder.Decode(&line); err != nil || line.Check == "" || line.Text == "" || line.Verdict == "fail" && line.Fix == "" {
			t.Errorf("%q: %v", text, err)
		}
		verdicts[line.Check] = line.Verdict
		order = append(order, line.Check)
	}
	return verdicts, order, end
}

func count(verdicts map[string]string, verdict string) (n int) {
	for _, v := range verdicts {
		if v == verdict {
			n++
		}
	}
	return n
}
