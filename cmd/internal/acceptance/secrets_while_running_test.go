package acceptance

import (
	"context"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"example.com/tiffin/internal/devstack"
	"example.com/tiffin/internal/devstack/devstacktest"
)

// A secret shows nowhere while the daemon works, loses each server, is refused by each, and comes back: not in
// its log, its endpoint, the list of processes, what it tells the service manager, nor in what the servers show of its sessions.
func TestSecretsShowNowhereWhileServersComeAndGo(t *testing.T) {
	t.Parallel()
	v := newVault(t)
	// Two of the secrets come another way than from the environment of the process.
	settings := v.write(t, "tiffin.yaml", "source: {dsn: '"+v.env["TIFFIN_SOURCE_DSN"]+"'}\nkafka: {sasl: {password_file: "+v.write(t, "password", v.right["kafka"].text+"\n")+"}}\n")
	bare, _, _ := strings.Cut(v.env["TIFFIN_FEEDBACK_DSN"], " password=")
	address, notices := manage(t)
	p := v.launch(t, map[string]string{
		"TIFFIN_SOURCE_DSN": "", "TIFFIN_KAFKA_SASL_PASSWORD": "", "TIFFIN_FEEDBACK_DSN": bare,
		"PGPASSFILE": v.write(t, "pgpass", "*:*:*:*:"+v.right["feedback"].text+"\n"), "NOTIFY_SOCKET": address,
	}, "tiffin", "run", "-c", settings)
	d := &watched{vault: v, process: p}
	d.await(t, "msg=ready")
	d.scrape(t)
	v.publish(t)
	d.tells(t, "/metrics", "tiffin_deliveries_total 2")
	d.scrape(t)
	d.sessions(t)

	for _, server := range []*devstack.Postgres{v.source, v.feedback} {
		stopped(t, func(ctx context.Context) error { return server.Stop(ctx, devstack.StopFast) })
		d.tells(t, "/readyz", "connection refused")
		d.scrape(t)
		if err := server.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		d.tells(t, "/readyz", `{"ready":true`)
	}
	// The password is changed, and the sessions end: every new one is refused.
	for _, c := range []struct {
		db   *devstacktest.Database
		role string
	}{{v.sourceDB, "reader"}, {v.feedbackDB, "writer"}} {
		right := map[string]string{"reader": v.right["source"].text, "writer": v.right["feedback"].text}[c.role]
		c.db.Exec(t, "ALTER ROLE "+c.role+" PASSWORD '"+v.wrong("changed")+"'",
			"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '"+c.role+"'")
		d.tells(t, "/readyz", "password authentication failed")
		d.scrape(t)
		c.db.Exec(t, "ALTER ROLE "+c.role+" PASSWORD '"+right+"'")
		d.tells(t, "/readyz", `{"ready":true`)
	}
	// A right is taken away from sessions that go on.
	audit := []string{"tiffin", "audit", "--daemon", "http://" + d.address()}
	v.provoke(t, nil, "0 differences", audit...)
	v.sourceDB.Exec(t, "REVOKE SELECT ON subscribers_restaurants FROM reader")
	v.provoke(t, nil, "no right to read it", audit...)
	d.scrape(t)
	v.sourceDB.Exec(t, "GRANT SELECT ON subscribers_restaurants TO reader")
	v.publish(t)
	d.tells(t, "/metrics", "tiffin_deliveries_total 4") // on connections that the next refusal does not find ended
	v.feedbackDB.Exec(t, "REVOKE INSERT ON subscribers_feedback FROM writer")
	v.publish(t)
	d.await(t, "permission denied for table subscribers_feedback")
	d.tells(t, "/readyz", "lacks a right")
	v.provoke(t, nil, `"differences":0`, append(audit, "--json")...)
	d.scrape(t)
	v.feedbackDB.Exec(t, "GRANT INSERT ON subscribers_feedback TO writer")
	d.tells(t, "/readyz", `{"ready":true`)
	v.setKafkaPassword(t, "planted", v.wrong("changed"))
	stopped(t, v.kafka.Stop)
	d.tells(t, "/readyz", `"ready":false`)
	d.scrape(t)
	if err := v.kafka.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	d.tells(t, "/readyz", "SASL_AUTHENTICATION_FAILED")
	d.scrape(t)
	v.setKafkaPassword(t, "planted", v.right["kafka"].text)
	d.tells(t, "/readyz", `{"ready":true`)
	d.scrape(t)

	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	err := <-p.done
	p.done <- err
	if err != nil {
		t.Errorf("asked to stop: %v", err)
	}
	v.look(t, "the daemon's log", []byte(p.log.String()))
	v.look(t, "the notices", []byte(notices.String()))
	for _, told := range []string{"connection refused", "password authentication failed", "lacks a right", "SASL_AUTHENTICATION_FAILED"} {
		if !strings.Contains(notices.String(), told) {
			t.Errorf("the service manager was not told %q:\n%s", told, notices.String())
		}
	}
	for place, least := range map[string]int{"the daemon's log": 5000, "/metrics": 5000, "/": 1000, "/live/events": 500, "/live/campaigns": 50, "/audit": 50, "/debug/pprof/goroutine?debug=2": 5000, "the list of processes": 50, "the notices": 500} {
		if v.places[place] < least {
			t.Errorf("of %s only %d bytes were seen", place, v.places[place])
		}
	}
}

// manage listens as a service manager does (sd_notify(3)) and keeps what it is told.
func manage(t *testing.T) (address string, told *syncBuffer) {
	t.Helper()
	dir, err := os.MkdirTemp("", "notify") //nolint:usetesting // the name of a socket has at most 108 bytes
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(dir, "s"), Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	told = &syncBuffer{}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		datagram := make([]byte, 8<<10)
		for {
			n, err := conn.Read(datagram)
			if err != nil {
				return // closed
			}
			_, _ = told.Write(append(datagram[:n:n], '\n'))
		}
	}()
	t.Cleanup(func() { _ = conn.Close(); <-ended })
	return conn.LocalAddr().String(), told
}

// watched is a daemon of which all is read that it shows.
type watched struct {
	*vault
	process *process
}

// await waits until the log says something.
func (d *watched) await(t *testing.T, text string) {
	t.Helper()
	w := &world{t: t}
	w.eventually(text+" in the log", func() bool { return strings.Contains(d.process.log.String(), text) })
}

// tells waits until the endpoint says something.
func (d *watched) tells(t *testing.T, path, text string) {
	t.Helper()
	w := &world{t: t}
	w.eventually(text+" of "+path, func() bool { return strings.Contains(string(d.read(t, http.MethodGet, path)), text) })
}

// address is the endpoint's.
func (d *watched) address() string {
	_, after, _ := strings.Cut(d.process.log.String(), "http=")
	address, _, _ := strings.Cut(after, "\n")
	return strings.TrimSpace(address)
}

// read asks the endpoint, for two seconds at most: the stream of events does not end by itself.
func (d *watched) read(t *testing.T, method, path string) []byte {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, method, "http://"+d.address()+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	response, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(request)
	if err != nil {
		return nil
	}
	defer func() { _ = response.Body.Close() }()
	text, _ := io.ReadAll(response.Body) // what came until it was cut
	for name, values := range response.Header {
		text = append(text, name+strings.Join(values, "")...)
	}
	d.look(t, path, text)
	return text
}

// scrape reads everything once.
func (d *watched) scrape(t *testing.T) {
	t.Helper()
	for _, path := range []string{
		"/", "/metrics", "/livez", "/readyz", "/live/events", "/live/campaigns", "/live/search?q=c", "/live/explain?message=" + inputOfVault + "/0/0", "/debug/pprof/",
		"/debug/pprof/cmdline", "/debug/pprof/goroutine?debug=2", "/debug/pprof/heap?debug=1", "/debug/vars", "/nosuch",
	} {
		d.read(t, http.MethodGet, path)
	}
	d.read(t, http.MethodPost, "/audit")
	d.look(t, "the list of processes", processList(d.process.cmd.Process.Pid))
}

// sessions reads what the servers show of their clients.
func (d *watched) sessions(t *testing.T) {
	t.Helper()
	for _, db := range []*devstacktest.Database{d.sourceDB, d.feedbackDB} {
		var shown string
		const all = "SELECT string_agg(concat_ws(' ', usename, application_name, query), E'\\n') FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
		if err := db.Connect(t).QueryRow(t.Context(), all).Scan(&shown); err != nil || !strings.Contains(shown, "tiffin") {
			t.Errorf("the sessions: %q, %v", shown, err)
		}
		d.look(t, "pg_stat_activity", []byte(shown))
	}
}
