package main

import (
	"encoding/json"
	"net"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"

	"example.com/tiffin/cmd/internal/command"
	"example.com/tiffin/internal/devstack"
)

// logLine is what a collector reads of a line.
type logLine struct {
	Time, Level, Msg string
	Part             string // empty: the daemon as a whole
	Err              string
}

// logLines reads all that a process wrote to stderr; each line must be a log's.
func logLines(t *testing.T, stderr string) (found []logLine) {
	t.Helper()
	for text := range strings.Lines(stderr) {
		var line logLine
		if err := json.Unmarshal([]byte(text), &line); err != nil || line.Time == "" || line.Level == "" || line.Msg == "" {
			t.Errorf("no line of a JSON log (%v): %s", err, text)
		}
		found = append(found, line)
	}
	return found
}

// working are the settings of a daemon that has all it needs.
func working(t *testing.T) []string {
	t.Helper()
	db := servers.Database(t)
	db.Exec(t, "CREATE TABLE subscribers_restaurants (id serial PRIMARY KEY, client_id varchar NOT NULL, restaurant_id varchar NOT NULL)")
	broker, err := devstack.StartFakeBroker(t.Context(), devstack.FakeBrokerOptions{
		Topics: map[string]int32{"campaigns": 1, "deliveries": 1, "campaigns.dlq": 1},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(broker.Close)
	return []string{
		"TIFFIN_SOURCE_DSN=" + db.DSN, "TIFFIN_FEEDBACK_DSN=" + db.DSN, "TIFFIN_SOURCE_SLOT=" + db.Slot,
		"TIFFIN_KAFKA_BROKERS=" + broker.Brokers()[0], "TIFFIN_HTTP_LISTEN=127.0.0.1:0",
	}
}

// A life is told by these lines, in this order, each once: alerts and scripts wait for them.
func TestLogTellsALifeInFiveLines(t *testing.T) {
	t.Parallel()
	p := begin(t, append(working(t), "TIFFIN_LOG_FORMAT=json"), "run")
	p.waitFor(t, `"msg":"ready"`)
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if code := p.end(t); code != command.ExitOK {
		t.Errorf("exit %d\n%s", code, p.seen.String())
	}
	var told []string
	for _, line := range logLines(t, p.seen.String()) {
		if line.Part == "" && line.Msg != "not ready" { // a slow start says that, too
			told = append(told, line.Level+" "+line.Msg)
		}
	}
	if want := []string{"INFO endpoint", "INFO starting", "INFO ready", "INFO stopping", "INFO stopped"}; !slices.Equal(told, want) {
		t.Errorf("the log tells %q, want %q\n%s", told, want, p.seen.String())
	}
}

// What ends a start is the last line, in the log's format, and is said once.
func TestReasonOfAFailedStartIsALineOfTheLog(t *testing.T) {
	t.Parallel()
	for what, c := range map[string]struct {
		set, says string
		code      int
	}{
		"hopeless":           {"TIFFIN_SOURCE_TABLE=public.nosuch", "nosuch", command.ExitFault},
		"port that is taken": {"TIFFIN_HTTP_LISTEN=" + taken(t), "address already in use", command.ExitFault},
		"settings":           {"TIFFIN_KAFKA_START=sometimes", "kafka.start (TIFFIN_KAFKA_START): is \"sometimes\"", command.ExitUsage},
		"file of settings":   {"", "no YAML", command.ExitUsage},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			arguments := []string{"run"}
			if what == "file of settings" {
				file := t.TempDir() + "/tiffin.yaml"
				if err := os.WriteFile(file, []byte("a: [\n"), 0o600); err != nil {
					t.Fatal(err)
				}
				arguments = append(arguments, "-c", file)
			}
			p := begin(t, append(working(t), "TIFFIN_LOG_FORMAT=json", c.set), arguments...)
			if code := p.end(t); code != c.code {
				t.Errorf("exit %d, want %d", code, c.code)
			}
			lines := logLines(t, p.seen.String())
			last := lines[len(lines)-1]
			if last.Level != "ERROR" || last.Msg != "failed" || !strings.Contains(last.Err, c.says) {
				t.Errorf("the last line is %+v, want %q\n%s", last, c.says, p.seen.String())
			}
			if n := strings.Count(p.seen.String(), `"msg":"failed"`); n != 1 {
				t.Errorf("told %d times\n%s", n, p.seen.String())
			}
		})
	}
}

// taken is an address at which somebody listens.
func taken(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	return listener.Addr().String()
}
