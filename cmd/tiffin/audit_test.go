package main

import (
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
	"time"

	"example.com/tiffin/cdc"
	"example.com/tiffin/cmd/internal/command"
	"example.com/tiffin/cmd/internal/daemon"
)

// Not parallel: commands read the environment of the process.
func TestAuditSaysThatIndexAndTableAreEqual(t *testing.T) {
	clearEnvironment(t)
	db := servers.Database(t)
	db.Exec(t, `CREATE TABLE subscribers_restaurants (id serial PRIMARY KEY, client_id varchar NOT NULL, restaurant_id varchar NOT NULL)`,
		`INSERT INTO subscribers_restaurants (client_id, restaurant_id) SELECT i, i % 7 FROM generate_series(1, 100) i`)
	t.Setenv("TIFFIN_SOURCE_DSN", db.DSN)
	t.Setenv("TIFFIN_SOURCE_SLOT", db.Slot)
	t.Setenv("TIFFIN_HTTP_LISTEN", "127.0.0.1:1") // nobody is there
	code, stdout, stderr := execute(t, "audit")
	if code != command.ExitOK || !strings.Contains(stdout, "fresh index (slot "+db.Slot) {
		t.Errorf("%d %q %q", code, stdout, stderr)
	}
	if !strings.Contains(stdout, "7 restaurants (7 with their clients), 100 rows, 0 differences") {
		t.Errorf("%q", stdout)
	}
	_, stdout, _ = execute(t, "audit", "--json")
	var summary struct {
		OK   bool
		Rows int
	}
	if err := json.Unmarshal([]byte(stdout), &summary); err != nil || !summary.OK || summary.Rows != 100 {
		t.Errorf("%q: %v", stdout, err)
	}
	t.Setenv("TIFFIN_SOURCE_DSN", "postgres://u:hunter2@127.0.0.1:1/d")
	if code, _, stderr := execute(t, "audit"); code != command.ExitFault || strings.Contains(stderr, "hunter2") {
		t.Errorf("without a server: %d %q", code, stderr)
	}
}

// endpoint waits until a process has told its address.
func (p *process) endpoint(t *testing.T) string {
	t.Helper()
	p.waitFor(t, "msg=endpoint")
	address := regexp.MustCompile(`http=(\S+)`).FindStringSubmatch(p.seen.String())
	if address == nil {
		t.Fatalf("no address in\n%s", p.seen.String())
	}
	return address[1]
}

// Not parallel: as above.
func TestAuditAsksTheRunningDaemon(t *testing.T) {
	clearEnvironment(t)
	db := servers.Database(t)
	db.Exec(t, `CREATE TABLE subscribers_restaurants (id serial PRIMARY KEY, client_id varchar NOT NULL, restaurant_id varchar NOT NULL)`,
		`INSERT INTO subscribers_restaurants (client_id, restaurant_id) SELECT i, i % 7 FROM generate_series(1, 100) i`)
	environ := append(nowhere(), "TIFFIN_SOURCE_DSN="+db.DSN, "TIFFIN_SOURCE_SLOT="+db.Slot)
	p := begin(t, environ, "run") // without a broker: the index is all that is asked for
	address := p.endpoint(t)
	p.waitFor(t, "in sync with source database")
	t.Setenv("TIFFIN_SOURCE_DSN", "postgres://u@127.0.0.1:1/d")
	t.Setenv("TIFFIN_HTTP_LISTEN", address)
	for _, args := range [][]string{{"audit"}, {"audit", "--daemon", "http://" + address}} {
		code, stdout, stderr := execute(t, args...)
		if code != command.ExitOK || !strings.Contains(stdout, "running index (slot "+db.Slot) || !strings.Contains(stdout, ": 7 restaurants (7 with their clients), 100 rows, 0 differences") {
			t.Errorf("%v: %d %q %q", args, code, stdout, stderr)
		}
	}
	if code, stdout, _ := execute(t, "audit", "--json"); code != command.ExitOK || !strings.HasPrefix(stdout, `{"ok":true,"index":"running",`) {
		t.Errorf("%d %q", code, stdout)
	}
	if code, _, stderr := execute(t, "audit", "--fresh"); code != command.ExitFault || !strings.Contains(stderr, "connection refused") {
		t.Errorf("--fresh asked the daemon: %d %q", code, stderr)
	}
	if code, _, _ := execute(t, "audit", "--fresh", "--daemon", "http://"+address); code != command.ExitUsage {
		t.Errorf("both flags: %d", code)
	}
}

// Every difference that a daemon finds is told by name, and they are the exit status.
//
// Not parallel: as above.
func TestAuditNamesTheDaemonsDifferences(t *testing.T) {
	clearEnvironment(t)
	found := []cdc.Difference{
		{Restaurant: "r1", Client: "ann", Text: "the table has it, the index has not"},
		{Restaurant: "r2", Text: "2 rows in the table, 3 in the index"},
	}
	endpoint := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		out := json.NewEncoder(w)
		for _, line := range []any{cdc.AuditProgress{}, found[0], found[1], daemon.AuditSummary{Index: daemon.IndexRunning, Rows: 5, Differences: 2}} {
			if err := out.Encode(line); err != nil {
				t.Error(err)
			}
		}
	}))
	defer endpoint.Close()
	code, stdout, stderr := execute(t, "audit", "--daemon", endpoint.URL)
	if code != command.ExitFault || !strings.Contains(stderr, "index and table differ in 2 places") {
		t.Errorf("%d %q", code, stderr)
	}
	for _, line := range []string{`restaurant "r1", client "ann": the table has it, the index has not` + "\n", `restaurant "r2": 2 rows in the table, 3 in the index` + "\n", "5 rows, 2 differences"} {
		if !strings.Contains(stdout, line) {
			t.Errorf("%q lacks %q", stdout, line)
		}
	}
	code, stdout, _ = execute(t, "audit", "--json", "--daemon", endpoint.URL)
	lines := strings.Split(strings.TrimSuffix(stdout, "\n"), "\n")
	if code != command.ExitFault || len(lines) != 3 || !strings.HasPrefix(lines[2], `{"ok":false,`) {
		t.Fatalf("%d %q", code, lines)
	}
	for i, want := range found {
		var got cdc.Difference
		if err := json.Unmarshal([]byte(lines[i]), &got); err != nil || got != want {
			t.Errorf("%q: %v", lines[i], err)
		}
	}
}

// A daemon that cannot compare says why, and one that hangs is found out.
//
// Not parallel: as above.
func TestAuditSaysWhyThereIsNone(t *testing.T) {
	clearEnvironment(t)
	p := begin(t, nowhere(), "run")
	address := p.endpoint(t)
	p.waitFor(t, "connection refused")
	if code, stdout, stderr := execute(t, "audit", "--daemon", "http://"+address); code != command.ExitFault || stdout != "" || !strings.Contains(stderr, "not in sync") || !strings.Contains(stderr, "connection refused") {
		t.Errorf("unready: %d %q %q", code, stdout, stderr)
	}
	if code, _, stderr := execute(t, "audit", "--daemon", "http://127.0.0.1:1"); code != command.ExitFault || !strings.Contains(stderr, "no daemon answers") {
		t.Errorf("nobody: %d %q", code, stderr)
	}
	mute, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0") // as a stopped process: the kernel accepts
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = mute.Close() }()
	_, err = auditRunning(t.Context(), "http://"+mute.Addr().String(), 50*time.Millisecond, auditTo{progress: func(cdc.AuditProgress) {}})
	if err == nil || !strings.Contains(err.Error(), "says nothing for 50ms") {
		t.Errorf("mute: %v", err)
	}
}

// One that falls silent in the middle of an answer is found out too.
func TestAuditThatFallsSilentIsGivenUp(t *testing.T) {
	t.Parallel()
	endpoint := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, "{}\n")
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	}))
	defer endpoint.Close()
	_, err := auditRunning(t.Context(), endpoint.URL, 50*time.Millisecond, auditTo{progress: func(cdc.AuditProgress) {}})
	if err == nil || !strings.Contains(err.Error(), "says nothing for 50ms") {
		t.Errorf("error %v", err)
	}
}

// A daemon makes one audit at a time, and has ended one when its answer ends, not when the last line comes.
func TestAuditIsOverWhenItsAnswerIs(t *testing.T) {
	t.Parallel()
	over := false
	answer := io.MultiReader(strings.NewReader(`{"ok":true,"index":"running"}`+"\n"), readerFunc(func([]byte) (int, error) {
		over = true
		return 0, io.EOF
	}))
	summary, err := readAudit(answer, auditTo{}, func() {})
	if err != nil || !summary.OK || !over {
		t.Errorf("%v, %v; read to its end: %v", summary, err, over)
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// The daemon refuses every name but its own, for that name may have been pointed at it.
func TestDaemonIsAskedByTheNameThatItKnows(t *testing.T) {
	t.Parallel()
	asked := make(chan string, 1)
	endpoint := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { asked <- r.Host }))
	defer endpoint.Close()
	_, _ = auditRunning(t.Context(), endpoint.URL, patience, auditTo{}) // it says nothing
	if host := <-asked; host != "localhost" {
		t.Errorf("asked as %s", host)
	}
}

func TestDaemonIsAskedWhereItListens(t *testing.T) {
	t.Parallel()
	for listen, want := range map[string]string{
		"127.0.0.1:9464": "http://127.0.0.1:9464", "0.0.0.0:1": "http://127.0.0.1:1", "[::]:2": "http://127.0.0.1:2", ":3": "http://127.0.0.1:3",
		"": "", "127.0.0.1:0": "",
	} {
		if got := daemonAt(listen); got != want {
			t.Errorf("%q: %q, want %q", listen, got, want)
		}
	}
}
