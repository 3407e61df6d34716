package httpd

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

type auditorFunc func(ctx context.Context, tell func(any) error, progress func(any)) error

func (f auditorFunc) Audit(ctx context.Context, tell func(any) error, progress func(any)) error {
	return f(ctx, tell, progress)
}

func auditServer(t *testing.T, f auditorFunc) *Server {
	t.Helper()
	var ready reasons
	ready.set()
	cfg := config(&ready)
	cfg.Auditor = f
	s, err := Listen(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func ask(t *testing.T, s *Server, change func(*http.Request)) (int, string) {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/audit", nil)
	r.RemoteAddr, r.Host = "127.0.0.1:5", "127.0.0.1:9464"
	if change != nil {
		change(r)
	}
	w := httptest.NewRecorder()
	routes(t, s).ServeHTTP(deadlined{w}, r)
	return w.Code, w.Body.String()
}

func TestAuditIsForThisMachineAlone(t *testing.T) {
	t.Parallel()
	s := auditServer(t, func(context.Context, func(any) error, func(any)) error {
		t.Error("an audit was made")
		return nil
	})
	for name, change := range map[string]func(*http.Request){
		"another machine": func(r *http.Request) { r.RemoteAddr = "192.0.2.1:5" },
		"a proxy":         func(r *http.Request) { r.Header.Set("X-Forwarded-For", "192.0.2.1") },
		"a page":          func(r *http.Request) { r.Header.Set("Sec-Fetch-Site", "cross-site") },
		"a name that leads here": func(r *http.Request) {
			r.Host = "evil.example:9464"
			r.Header.Set("Origin", "http://evil.example:9464")
			r.Header.Set("Sec-Fetch-Site", "same-origin")
		},
	} {
		if status, body := ask(t, s, change); status != http.StatusForbidden {
			t.Errorf("%s: %d %s", name, status, body)
		}
	}
}

// deadlined is a recorder to which deadlines may be set.
type deadlined struct{ *httptest.ResponseRecorder }

func (deadlined) SetWriteDeadline(time.Time) error { return nil }

func TestAuditIsStreamedOneAtATime(t *testing.T) {
	t.Parallel()
	began, goOn := make(chan struct{}), make(chan struct{})
	s := auditServer(t, func(_ context.Context, tell func(any) error, progress func(any)) error {
		progress(map[string]int{"rows": 1})
		progress(map[string]int{"rows": 2})
		if err := tell(map[string]string{"restaurant": "<r>"}); err != nil {
			return err
		}
		close(began)
		<-goOn
		return errors.New("lost its way")
	})
	first := make(chan string)
	go func() {
		_, body := ask(t, s, nil)
		first <- body
	}()
	<-began
	if status, body := ask(t, s, nil); status != http.StatusConflict || !strings.Contains(body, `"ok":false`) {
		t.Errorf("a second one: %d %s", status, body)
	}
	close(goOn)
	const want = `{"restaurant":"<r>"}` + "\n" + `{"ok":false,"error":"lost its way"}` + "\n"
	if body := <-first; body != want && !strings.Contains(body, `"rows":2`) {
		t.Errorf("got %q, want %q", body, want)
	}
}

func TestRefusedAuditSaysWhy(t *testing.T) {
	t.Parallel()
	s := auditServer(t, func(context.Context, func(any) error, func(any)) error { return errors.New("not in sync") })
	if status, body := ask(t, s, nil); status != http.StatusServiceUnavailable || body != `{"ok":false,"error":"not in sync"}`+"\n" {
		t.Errorf("%d %s", status, body)
	}
}

// Whoever goes away ends the audit, and so does the end of the daemon.
func TestAuditEndsWithItsAudience(t *testing.T) {
	t.Parallel()
	ended := make(chan error, 1)
	s := auditServer(t, func(ctx context.Context, tell func(any) error, _ func(any)) error {
		_ = tell("a line")
		<-ctx.Done()
		ended <- tell("another")
		return ctx.Err()
	})
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+s.Addr().String()+"/audit", nil)
	if err != nil {
		t.Fatal(err)
	}
	response, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	stop()
	if err := <-ended; err == nil {
		t.Error("the audit went on after the daemon's end")
	}
	if _, err := io.ReadAll(response.Body); err != nil {
		t.Errorf("the answer breaks off: %v", err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}
