package httpd

import (
	"net/http"
	"strings"
	"testing"
)

// Profiles are for whoever is on this machine, and for nobody else.
func TestProfilesOnlyOnLoopback(t *testing.T) {
	t.Parallel()
	var ready reasons
	ready.set()
	for listen, want := range map[string]int{"127.0.0.1:0": http.StatusOK, "[::1]:0": http.StatusOK, "0.0.0.0:0": http.StatusNotFound} {
		cfg := config(&ready)
		cfg.Listen = listen
		s, err := Listen(t.Context(), cfg)
		if err != nil && strings.HasPrefix(listen, "[") {
			continue // a machine without IPv6
		}
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range []string{"/debug/pprof/", "/debug/pprof/heap", "/debug/pprof/trace?seconds=0.01"} {
			answer := &statusOnly{header: http.Header{}, status: http.StatusOK}
			request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://localhost"+path, nil)
			if err != nil {
				t.Fatal(err)
			}
			request.RemoteAddr = "127.0.0.1:5"
			routes(t, s).ServeHTTP(answer, request)
			if answer.status != want {
				t.Errorf("%s on %s: %d, want %d", path, listen, answer.status, want)
			}
			request.Host = "evil.example:9464" // pointed at this machine
			if routes(t, s).ServeHTTP(answer, request); answer.status == http.StatusOK {
				t.Errorf("%s on %s: told to %s", path, listen, request.Host)
			}
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}

// statusOnly is a response writer that keeps the status.
type statusOnly struct {
	header http.Header
	status int
}

func (s *statusOnly) Header() http.Header         { return s.header }
func (s *statusOnly) Write(b []byte) (int, error) { return len(b), nil }
func (s *statusOnly) WriteHeader(status int)      { s.status = status }
