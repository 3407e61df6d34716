package httpd

import (
	"bufio"
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type reasons struct {
	list     atomic.Pointer[[]string]
	progress []string
	hangs    atomic.Pointer[[]string]
}

func (r *reasons) set(list ...string) { r.list.Store(&list) }
func (r *reasons) Reasons() []string  { return *r.list.Load() }
func (r *reasons) Progress() []string { return r.progress }

func (r *reasons) Hangs() []string {
	if list := r.hangs.Load(); list != nil {
		return *list
	}
	return nil
}

// A process that waits is alive, whatever it waits for; one that hangs is not, and says what does.
func TestLivenessEndsWhenSomethingHangs(t *testing.T) {
	t.Parallel()
	var state reasons
	state.set("source: connecting")
	base, client, _ := serve(t, &state)
	if status, body, _ := get(t, client, base+"/livez"); status != http.StatusOK || !strings.Contains(body, "connecting") {
		t.Errorf("waiting: %d %s", status, body)
	}
	state.hangs.Store(&[]string{"source: the reader hangs"})
	if status, body, _ := get(t, client, base+"/livez"); status != http.StatusServiceUnavailable || body != `{"ready":false,"reasons":["source: the reader hangs"]}`+"\n" {
		t.Errorf("hanging: %d %s", status, body)
	}
	state.hangs.Store(nil)
	if status, _, _ := get(t, client, base+"/livez"); status != http.StatusOK {
		t.Errorf("alive again: %d", status)
	}
}

// serve runs a server for the time of the test, and returns a client that keeps no connection.
func serve(t *testing.T, readiness Readiness) (base string, client *http.Client, stop func() error) {
	t.Helper()
	s, err := Listen(t.Context(), config(readiness))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	transport := &http.Transport{}
	stopped := false
	stop = func() error {
		stopped = true
		transport.CloseIdleConnections()
		cancel()
		return <-done
	}
	t.Cleanup(func() {
		if stopped {
			return
		}
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
	return "http://" + s.Addr().String(), &http.Client{Transport: transport}, stop
}

func config(readiness Readiness) Config {
	return Config{
		Listen: "127.0.0.1:0", Readiness: readiness, Gatherer: NewRegistry("v1.2.3"), Version: "v1.2.3",
		Log: slog.New(slog.DiscardHandler),
	}
}

func routes(t *testing.T, s *Server) http.Handler {
	t.Helper()
	handler, err := s.routes()
	if err != nil {
		t.Fatal(err)
	}
	return handler
}

func get(t *testing.T, client *http.Client, url string) (int, string, http.Header) {
	t.Helper()
	response, err := client.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, string(body), response.Header
}

func TestProbesTellReadinessAndItsReasons(t *testing.T) {
	t.Parallel()
	var ready reasons
	ready.set("source: connecting", `slot "a<b" is active`)
	base, client, _ := serve(t, &ready)
	const unready = `{"ready":false,"reasons":["source: connecting","slot \"a<b\" is active"]}` + "\n"
	for path, want := range map[string]int{"/readyz": 503, "/livez": 200} {
		if status, body, header := get(t, client, base+path); status != want || body != unready || header.Get("Content-Type") != "application/json" {
			t.Errorf("%s while unready: %d %s %v", path, status, body, header)
		}
	}
	ready.set()
	for _, path := range []string{"/readyz", "/livez"} {
		if status, body, _ := get(t, client, base+path); status != 200 || body != `{"ready":true,"reasons":[]}`+"\n" {
			t.Errorf("%s once ready: %d %s", path, status, body)
		}
	}
}

func TestProbesAndPageTellProgress(t *testing.T) {
	t.Parallel()
	const line = "campaigns/0/17: 350,000 of 1,000,000 records sent"
	ready := reasons{progress: []string{line}}
	ready.set()
	base, client, _ := serve(t, &ready)
	if status, body, _ := get(t, client, base+"/readyz"); status != 200 || body != `{"ready":true,"reasons":[],"progress":["`+line+`"]}`+"\n" {
		t.Errorf("/readyz: %d %s", status, body)
	}
	if _, body, _ := get(t, client, base+"/"); !strings.Contains(body, line) {
		t.Errorf("the page does not tell the progress: %s", body)
	}
}

func TestMetricsHoldBuildRuntimeAndProcess(t *testing.T) {
	t.Parallel()
	var ready reasons
	ready.set()
	base, client, _ := serve(t, &ready)
	status, body, _ := get(t, client, base+"/metrics")
	if status != 200 {
		t.Fatalf("status %d", status)
	}
	for _, want := range []string{`tiffin_build_info{go_version="go`, `version="v1.2.3"} 1`, "go_goroutines ", "process_open_fds "} {
		if !strings.Contains(body, want) {
			t.Errorf("the metrics lack %s", want)
		}
	}
}

func TestPageLeadsToTheEndpointsAndEscapes(t *testing.T) {
	t.Parallel()
	var ready reasons
	ready.set("<script>alert(1)</script>")
	base, client, _ := serve(t, &ready)
	status, body, _ := get(t, client, base+"/")
	if status != 200 || !strings.Contains(body, `href="/metrics"`) || !strings.Contains(body, `href="/readyz"`) || strings.Contains(body, "<script>") {
		t.Errorf("%d %s", status, body)
	}
	if status, _, _ := get(t, client, base+"/nothing"); status != 404 {
		t.Errorf("an unknown path: %d", status)
	}
}

func TestRunStopsWithinItsBoundThoughAClientStalls(t *testing.T) {
	t.Parallel()
	var ready reasons
	ready.set()
	base, client, stop := serve(t, &ready)
	get(t, client, base+"/livez")
	conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", strings.TrimPrefix(base, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	if _, err := conn.Write([]byte("GET /livez HTTP/1.1\r\nHost: x\r\n")); err != nil { // and never the end
		t.Fatal(err)
	}
	if err := stop(); err != nil {
		t.Errorf("asked to stop, Run returned %v", err)
	}
	if _, err := bufio.NewReader(conn).ReadByte(); err == nil {
		t.Error("the stalled connection was answered")
	}
}

func TestAddressInUseIsNamedWithTheFix(t *testing.T) {
	t.Parallel()
	var ready reasons
	ready.set()
	first, err := Listen(t.Context(), config(&ready))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = first.Close() }()
	cfg := config(&ready)
	cfg.Listen = first.Addr().String()
	if _, err := Listen(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), "http.listen") || !strings.Contains(err.Error(), cfg.Listen) {
		t.Errorf("got %v", err)
	}
	if _, err := Listen(t.Context(), Config{}); err == nil {
		t.Error("an empty config was accepted")
	}
}
