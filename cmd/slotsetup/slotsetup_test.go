package main

import (
	"bytes"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"example.com/tiffin/cmd/internal/command"
	"example.com/tiffin/cmd/internal/command/commandtest"
	"example.com/tiffin/internal/devstack/devstacktest"
)

var servers devstacktest.Servers

func TestMain(m *testing.M) { os.Exit(servers.Main(m)) }

func execute(t *testing.T, args ...string) (status int, stdout, stderr string) {
	t.Helper()
	return executeWith(t, strings.NewReader(""), args...)
}

func executeWith(t *testing.T, in io.Reader, args ...string) (status int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	status = command.Run(t.Context(), newRootCommand(), args, command.Streams{In: in, Out: &out, Err: &errs})
	return status, out.String(), errs.String()
}

// source is a database with the contract's table, and a file of settings for it.
func source(t *testing.T) (db *devstacktest.Database, file string) {
	t.Helper()
	db = servers.Database(t)
	db.Exec(t, `CREATE TABLE subscribers_restaurants (id serial PRIMARY KEY, client_id varchar NOT NULL, restaurant_id varchar NOT NULL)`)
	file = filepath.Join(t.TempDir(), "tiffin.yaml")
	if err := os.WriteFile(file, []byte("source:\n  dsn: "+db.DSN+"\n  slot: "+db.Slot+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return db, file
}

// From a bare table to a prepared source and back, with the statuses that scripts rely on.
func TestPlanApplyStatusDrop(t *testing.T) {
	t.Parallel()
	db, file := source(t)
	alter := func(sql string) func() { return func() { db.Exec(t, sql) } }
	for _, step := range []struct {
		before func()
		args   []string
		status int
		says   []string
	}{
		{nil, []string{"status"}, 1, []string{"does not exist", "\nwrong", "fix: slotsetup apply -c " + file + ": CREATE PUBLICATION", "and 1 more: slotsetup plan -c " + file}},
		{nil, []string{"plan"}, 0, []string{"CREATE PUBLICATION", "Missing: 2 statements", ":  slotsetup plan -c " + file + " | psql -X"}},
		{nil, []string{"plan", "--offline"}, 0, []string{"CREATE ROLE", "not asked"}},
		{nil, []string{"apply"}, 0, []string{"done     SELECT pg_create_logical_replication_slot", "ready    2 statements run"}},
		{nil, []string{"apply"}, 0, []string{"ready    0 statements run"}},
		{nil, []string{"plan"}, 0, []string{"Nothing is missing"}},
		{nil, []string{"status"}, 0, []string{"of 8.0 GiB", "insert, update, delete, truncate", "DEFAULT (id)", "holder       nobody", "\nok\n"}},
		{alter(`ALTER TABLE subscribers_restaurants REPLICA IDENTITY NOTHING`), []string{"status"}, 1, []string{"identity     NOTHING", "does not tell which row", `REPLICA IDENTITY DEFAULT;`}},
		{nil, []string{"apply"}, 1, []string{"left     ALTER TABLE", "--yes"}},
		{nil, []string{"apply", "--yes"}, 0, []string{"done     ALTER TABLE", "ready    1 statements run"}},
		{nil, []string{"drop"}, 2, []string{"Slot " + db.Slot + " holds back", "--yes"}},
		{alter(`SELECT pg_create_logical_replication_slot('` + db.Slot + `_2', 'pgoutput')`), []string{"drop"}, 2, []string{"Other slots of this database", db.Slot + "_2"}},
		{nil, []string{"drop", "--slot-only", "--yes"}, 0, []string{"holds back", "done     SELECT pg_drop"}},
		{alter(`CREATE TABLE orders (id int); ALTER PUBLICATION tiffin ADD TABLE orders`), []string{"drop"}, 2, []string{"not of this table alone", "stops: public.orders. To remove"}},
		{nil, []string{"drop", "--yes"}, 0, []string{"no daemon can read", "Other slots of this database", "done     DROP PUBLICATION"}},
		{nil, []string{"drop", "--yes"}, 0, []string{"nothing to drop"}},
		{nil, []string{"drop"}, 0, []string{"nothing to drop"}},
		{nil, []string{"status"}, 1, []string{"does not exist"}},
		{alter(`DROP TABLE subscribers_restaurants`), []string{"plan"}, 1, []string{"Not complete", "no such table"}},
		{nil, []string{"apply"}, 1, []string{"no such table"}},
		{nil, []string{"status"}, 1, []string{"identity     no table", "wrong        read table", "source.table"}},
	} {
		if step.before != nil {
			step.before()
		}
		status, out, errs := execute(t, append(step.args, "-c", file)...)
		for _, says := range step.says {
			if !strings.Contains(out+errs, says) {
				t.Errorf("slotsetup %v does not say %q:\n%s%s", step.args, says, out, errs)
			}
		}
		if status != step.status {
			t.Errorf("slotsetup %v: exit %d, want %d\n%s%s", step.args, status, step.status, out, errs)
		}
	}
}

// With --json every line is one object, and the last says ok as the exit status does.
func TestJSONIsOneObjectALine(t *testing.T) {
	t.Parallel()
	_, file := source(t)
	unreachable := filepath.Join(t.TempDir(), "tiffin.yaml")
	if err := os.WriteFile(unreachable, []byte("source:\n  dsn: postgres://nobody@127.0.0.1:1/none\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		file   string
		args   []string
		status int
	}{
		{file, []string{"plan"}, 0},
		{file, []string{"plan", "--offline"}, 0},
		{file, []string{"status"}, 1},
		{file, []string{"apply"}, 0},
		{file, []string{"status"}, 0},
		{file, []string{"drop"}, 2},
		{file, []string{"drop", "--yes"}, 0},
		{unreachable, []string{"plan"}, 1},
		{unreachable, []string{"apply"}, 1},
		{unreachable, []string{"status"}, 1},
		{unreachable, []string{"drop", "--yes"}, 1},
	} {
		status, out, errs := execute(t, append(step.args, "--json", "-c", step.file)...)
		if status != step.status {
			t.Errorf("slotsetup %v: exit %d, want %d\n%s%s", step.args, status, step.status, out, errs)
		}
		var last map[string]any
		for line := range strings.Lines(out) {
			last = nil
			if err := json.Unmarshal([]byte(line), &last); err != nil {
				t.Errorf("slotsetup %v: %v: %s", step.args, err, line)
			}
		}
		if last["ok"] != (status == 0) {
			t.Errorf("slotsetup %v: exit %d, and last %v", step.args, status, last)
		}
	}
}

// What nobody has read from the slot counts: as text for people and in bytes for programs.
func TestStatusShowsWhatTheSlotHoldsBack(t *testing.T) {
	t.Parallel()
	db, file := source(t)
	if status, out, errs := execute(t, "apply", "-c", file); status != 0 {
		t.Fatal(out, errs)
	}
	const unread = 3 << 20
	db.Exec(t, `SELECT pg_logical_emit_message(true, 'test', repeat('x', `+strconv.Itoa(unread)+`))`)
	status, out, errs := execute(t, "status", "--json", "-c", file)
	if status != 0 {
		t.Fatal(out, errs)
	}
	shown := map[string]int64{}
	for line := range strings.Lines(out) {
		var item struct {
			Item, Text string
			Bytes      int64
			Limit      int64 `json:"limit_bytes"`
		}
		if err := json.Unmarshal([]byte(line), &item); err != nil {
			t.Fatal(err)
		}
		shown[item.Item], shown[item.Item+" limit"] = item.Bytes, item.Limit
	}
	// The slot may hold back more than nobody has read, and other tests write to the same log.
	if shown["lag"] < unread || shown["retained"] < shown["lag"] || shown["retained limit"] != 8<<30 {
		t.Errorf("%d bytes unread are shown as %v", unread, shown)
	}
	_, out, _ = execute(t, "status", "-c", file)
	lines := regexp.MustCompile(`(?m)^(retained|lag) +([3-9]|[1-9][0-9.]+)(\.[0-9])? [MG]iB (of 8\.0 GiB \(0 %, source\.max_retained_wal\)|behind the end of the log, confirmed [0-9A-F]+/[0-9A-F]+)`)
	if n := len(lines.FindAllString(out, -1)); n != 2 {
		t.Errorf("%d of the two lines:\n%s", n, out)
	}
}

// A DBA's own setting is the one to be corrected, not the daemon's.
func TestFixNamesTheSettingThatIsWrong(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "tiffin.yaml")
	for _, c := range []struct{ setup, fix string }{
		{"", "; fix: start the server, or correct host and port in source.dsn: nc -vz 127.0.0.1 1\n"},
		{"setup:\n  dsn: postgres://postgres@127.0.0.1:2/app\n", "; fix: start the server, or correct host and port in setup.dsn: nc -vz 127.0.0.1 2\n"},
		{"setup:\n  dsn: " + servers.Database(t).DSN + "&dbname=nosuch\n", "; fix: name an existing database in setup.dsn\n"},
	} {
		if err := os.WriteFile(file, []byte("source:\n  dsn: postgres://tiffin_reader@127.0.0.1:1/app\n"+c.setup), 0o600); err != nil {
			t.Fatal(err)
		}
		if status, out, errs := execute(t, "status", "-c", file); status != command.ExitFault || out != "" || !strings.HasSuffix(errs, c.fix) {
			t.Errorf("exit %d, %q, %q: want %q", status, out, errs, c.fix)
		}
	}
}

// A fault of usage or settings is 2.
func TestUsage(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{{}, {"unknown"}, {"apply", "extra"}, {"plan", "--no"}, {"plan", "-c", "/does/not/exist"}} {
		if status, _, errs := execute(t, args...); status != command.ExitUsage || errs == "" {
			t.Errorf("slotsetup %v: exit %d, %q", args, status, errs)
		}
	}
}

func TestEveryCommandHelpsWithAnExample(t *testing.T) {
	t.Parallel()
	if found := commandtest.Unexplained(t.Context(), newRootCommand); len(found) > 0 {
		t.Errorf("%q", found)
	}
}

func TestNoFlagTakesASecret(t *testing.T) {
	t.Parallel()
	if found := commandtest.SecretFlags(newRootCommand()); len(found) > 0 {
		t.Errorf("%q would show a secret to everyone who lists processes", found)
	}
}

// The README's statements for the usual table are those that plan prints for it, but for the quotes and
// for the password.
func TestReadmeShowsThePlan(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "tiffin.yaml")
	if err := os.WriteFile(file, []byte("source:\n  dsn: postgres://tiffin_reader@db:5432/app\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	status, out, errs := execute(t, "plan", "--offline", "-c", file)
	if status != 0 {
		t.Fatal(errs)
	}
	statements, _, _ := strings.Cut(out, "SELECT pg_create_logical") // the daemon makes the slot
	var want strings.Builder
	for line := range strings.Lines(statements) {
		if !strings.HasPrefix(line, "--") && strings.TrimSpace(line) != "" {
			want.WriteString(strings.ReplaceAll(line, `"`, ""))
		}
	}
	for _, readme := range []string{"README.md", "README.ru.md"} {
		text, err := os.ReadFile("../../" + readme)
		if err != nil {
			t.Fatal(err)
		}
		_, shown, _ := strings.Cut(string(text), "```sql source\n")
		shown, _, _ = strings.Cut(shown, "```")
		if shown = strings.Replace(shown, " PASSWORD 'choose one'", "", 1); shown != want.String() {
			t.Errorf("%s shows\n%s\nthe plan is\n%s", readme, shown, want.String())
		}
	}
}
