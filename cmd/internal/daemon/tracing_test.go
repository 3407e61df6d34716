package daemon

import (
	"encoding/hex"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"
	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	trace "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"
)

// collected is what an OTLP collector was sent.
type collected struct {
	mu       sync.Mutex
	paths    []string
	services []string
	spans    []string
	all      []*trace.Span
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
				c.spans, c.all = append(c.spans, s.GetName()), append(c.all, s)
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

// The ratio decides for messages without a context; all others follow their publisher. Whatever was decided,
// the records carry it on.
func TestPublisherDecidesWhatTheRatioLeavesOut(t *testing.T) {
	t.Parallel()
	got := &collected{}
	server := httptest.NewServer(got)
	t.Cleanup(server.Close)
	w := newWorld(t)
	r := start(t, append(w.environ, "TIFFIN_TRACING_ENDPOINT="+server.URL, "TIFFIN_TRACING_SAMPLE_RATIO=0"), nil)
	r.waitReady(t)
	const yes, no, publishing = "4bf92f3577b34da6a3ce929d0e0e4736", "0af7651916cd43dd8448eb211c80319c", "00f067aa0ba902b7"
	var records []*kgo.Record
	for _, context := range []string{"", "00-" + yes + "-" + publishing + "-01", "00-" + no + "-" + publishing + "-00"} {
		record := w.campaign("r2") // one client's
		if context != "" {
			record.Headers = []kgo.RecordHeader{{Key: "traceparent", Value: []byte(context)}}
		}
		records = append(records, record)
	}
	w.send(t, records...)
	carried := map[string]string{} // by trigger
	for _, record := range w.deliveries(t, 3) {
		if len(record.Headers) != 2 || record.Headers[1].Key != "traceparent" {
			t.Fatalf("a record carries %v", record.Headers)
		}
		carried[string(record.Headers[0].Value)] = string(record.Headers[1].Value)
	}
	r.stop()
	if err := r.end(t); err != nil {
		t.Error(err)
	}
	got.mu.Lock()
	defer got.mu.Unlock()
	slices.Sort(got.spans)
	if all := strings.Join(got.spans, ", "); all != "campaign, fence, kafka commit, plan, postgres commit" {
		t.Fatalf("the collector has %s: want one message's", all)
	}
	campaign := got.all[slices.IndexFunc(got.all, func(s *trace.Span) bool { return s.GetName() == "campaign" })]
	if id, parent := hex.EncodeToString(campaign.GetTraceId()), hex.EncodeToString(campaign.GetParentSpanId()); id != yes || parent != publishing {
		t.Errorf("the span is of trace %s under %s", id, parent)
	}
	for i, want := range []string{"^00-[0-9a-f]{32}-[0-9a-f]{16}-00$", "^00-" + yes + "-" + hex.EncodeToString(campaign.GetSpanId()) + "-01$", "^00-" + no + "-[0-9a-f]{16}-00$"} {
		trigger := fmt.Sprintf("campaigns/%d/%d", records[i].Partition, records[i].Offset)
		if !regexp.MustCompile(want).MatchString(carried[trigger]) {
			t.Errorf("the record of message %d carries %q, want %s", i, carried[trigger], want)
		}
	}
}
