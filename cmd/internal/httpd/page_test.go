package httpd

import (
	"context"
	"net/http"
	"net/http/httptest"
	"testing"

	"example.com/tiffin/stream"
)

// silent is a manifest that knows nothing.
type silent struct{}

func (silent) Recent(context.Context) ([]stream.Explanation, error) { return nil, nil }

func (silent) Search(context.Context, string) (stream.Findings, error) {
	return stream.Findings{}, nil
}

func (silent) Explain(context.Context, string, *string) (stream.Explanation, error) {
	return stream.Explanation{}, nil
}

// Campaigns and clients are told to this machine: not to another one, not through a proxy, and not
// to a page elsewhere whose name was pointed at this machine.
func TestPageTellsCampaignsToThisMachineAlone(t *testing.T) {
	t.Parallel()
	var ready reasons
	ready.set()
	cfg := config(&ready)
	cfg.Manifest = silent{}
	s, err := Listen(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	for _, c := range []struct {
		what, remote, host, proxy string // proxy is a header that shows one
		want                      int
	}{
		{"this machine", "127.0.0.1:5", "127.0.0.1:9464", "", http.StatusOK},
		{"by its name", "127.0.0.1:5", "localhost:9464", "", http.StatusOK},
		{"by IPv6", "[::1]:5", "[::1]:9464", "", http.StatusOK},
		{"another machine", "192.0.2.1:5", "127.0.0.1:9464", "", http.StatusForbidden},
		{"a proxy", "127.0.0.1:5", "127.0.0.1:9464", "X-Forwarded-For", http.StatusForbidden},
		{"a proxy by the standard", "127.0.0.1:5", "127.0.0.1:9464", "Forwarded", http.StatusForbidden},
		{"a gateway", "127.0.0.1:5", "127.0.0.1:9464", "Via", http.StatusForbidden},
		{"nginx as its manual has it", "127.0.0.1:5", "127.0.0.1:9464", "X-Real-IP", http.StatusForbidden},
		{"a proxy that ends TLS", "127.0.0.1:5", "127.0.0.1:9464", "X-Forwarded-Proto", http.StatusForbidden},
		{"a name that leads here", "127.0.0.1:5", "evil.example:9464", "", http.StatusForbidden},
	} {
		for _, path := range []string{"/live/campaigns", "/live/search?q=x", "/live/explain?message=campaigns/0/1"} {
			r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, path, nil)
			r.RemoteAddr, r.Host = c.remote, c.host
			if c.proxy != "" {
				r.Header.Set(c.proxy, "192.0.2.1")
			}
			w := httptest.NewRecorder()
			routes(t, s).ServeHTTP(w, r)
			if w.Code != c.want {
				t.Errorf("%s, %s: %d, want %d: %s", c.what, path, w.Code, c.want, w.Body)
			}
		}
	}
}
