package daemon

import (
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"google.golang.org/protobuf/proto"
)

// collected is what an OTLP collector was sent.
type collected struct {
	mu       sync.Mutex
	paths    []string
	services []string
	spans    []string
}

func (c *collected) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	var request collector.ExportTraceServiceRequest
	if err == nil {
		err = proto.Unmarshal(body, &request)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.paths = append(c.paths, r.Method+" "+r.URL.Path)
	for _, of := range request.GetResourceSpans() {
		for _, a := range of.GetResource().GetAttributes() {
			c.services = append(c.services, a.GetKey()+"="+a.GetValue().GetStringValue())
		}
		for _, scope := range of.GetScopeSpans() {
			for _, s := range scope.GetSpans() {
				c.spans = append(c.spans, s.GetName())
			}
		}
	}
}

// With tracing.endpoint the collector has every span by the time the daemon has ended.
func TestSpansReachTheCollector(t *testing.T) {
	t.Parallel()
	got := &collected{}
	server := httptest.NewServer(got)
	t.Cleanup(server.Close)
	w := newWorld(t)
	r := start(t, append(w.environ, "TIFFIN_TRACING_ENDPOINT="+server.URL), nil)
	r.waitReady(t)
	w.publish(t, "r1")
	w.clients(t, 2)
	r.stop()
	if err := r.end(t); err != nil {
		t.Error(err)
	}
	got.mu.Lock()
	defer got.mu.Unlock()
	slices.Sort(got.spans)
	if all := strings.Join(got.spans, ", "); all != "campaign, fence, kafka commit, plan, postgres commit" {
		t.Errorf("the collector has %s", all)
	}
	if !slices.Contains(got.paths, "POST /v1/traces") || !slices.Contains(got.services, "service.name=tiffin") || !slices.Contains(got.services, "service.version=test") {
		t.Errorf("asked %q, of %q", got.paths, got.services)
	}
}

// A collector that refuses holds up neither a delivery nor the end, and the log says so.
func TestRefusingCollectorHoldsNobodyUp(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(server.Close)
	log := &lines{}
	w := newWorld(t)
	r := start(t, append(w.environ, "TIFFIN_TRACING_ENDPOINT="+server.URL+"/custom/path"), func(o *Options) { o.Log = slog.New(slog.NewTextHandler(log, nil)) })
	r.waitReady(t)
	w.publish(t, "r1")
	w.clients(t, 2)
	r.stop()
	if err := r.end(t); err != nil {
		t.Error(err)
	}
	if said := log.with("spans were not taken by the collector"); len(said) == 0 || !strings.Contains(said[0], "404") {
		t.Errorf("the log says %q", said)
	}
}
