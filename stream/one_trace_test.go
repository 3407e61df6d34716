package stream_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"example.com/tiffin/stream"
)

// The context of whoever published the campaigns.
const (
	publisher    = "4bf92f3577b34da6a3ce929d0e0e4736"
	publishing   = "00f067aa0ba902b7"
	publishState = "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE"
)

// tracing has an engine write its spans down.
func (r *rig) tracing() (*tracetest.InMemoryExporter, func(*stream.Config)) {
	r.t.Helper()
	spans := tracetest.NewInMemoryExporter()
	provider := trace.NewTracerProvider(trace.WithSyncer(spans))
	begin := time.Now()
	return spans, func(c *stream.Config) {
		c.Tracer = provider.Tracer("test")
		c.Now = func() time.Time { return time.Unix(r.clock.Load(), 0).Add(time.Since(begin)) }
	}
}

func (r *rig) publishTraced(values ...[]byte) {
	r.t.Helper()
	var records []*kgo.Record
	for _, value := range values {
		records = append(records, &kgo.Record{Value: value, Headers: []kgo.RecordHeader{
			{Key: "traceparent", Value: []byte("00-" + publisher + "-" + publishing + "-01")},
			{Key: "tracestate", Value: []byte(publishState)},
		}})
	}
	r.publishRecords(records...)
}

// attributes of a span as text, and its status.
func attributes(s tracetest.SpanStub) map[string]string {
	all := map[string]string{}
	for _, a := range s.Attributes {
		all[string(a.Key)] = a.Value.String()
	}
	return all
}

// A campaign with a context is one trace: a span under its publisher's, with a child for each step,
// and the output records name that span. What delivers nothing has its span too.
func TestCampaignIsOneTrace(t *testing.T) {
	t.Parallel()
	r := newRig(t, 1, map[string][]string{"three": {"a", "b", "c"}, "large": clients(10)})
	spans, tracing := r.tracing()
	r.publishTraced(campaign("three", "one").json(t), campaign("nobody", "two").json(t), []byte("malformed"), campaign("large", "four").json(t))
	r.untilNow(tracing, func(c *stream.Config) { c.MaxTransactionRecords = 4 }) // the last takes a lane
	roots := map[string]tracetest.SpanStub{}
	children := map[string][]tracetest.SpanStub{}
	for _, s := range spans.GetSpans() {
		if s.SpanContext.TraceID().String() != publisher || s.SpanContext.TraceState().String() != publishState {
			t.Errorf("span %s is of trace %s, state %s", s.Name, s.SpanContext.TraceID(), s.SpanContext.TraceState())
		}
		if s.Status.Code == codes.Error {
			t.Errorf("span %s failed: %s", s.Name, s.Status.Description)
		}
		if s.Parent.SpanID().String() != publishing {
			children[s.Parent.SpanID().String()] = append(children[s.Parent.SpanID().String()], s)
			continue
		}
		all := attributes(s)
		roots[all["messaging.kafka.offset"]] = s
		if s.Name != "campaign" || all["messaging.destination.name"] != r.cfg.Kafka.Input || all["messaging.destination.partition.id"] != "0" {
			t.Errorf("span %s: %v", s.Name, all)
		}
	}
	for offset, want := range map[string]string{"0": "delivered 3", "1": "no_subscribers 0", "2": "malformed 0", "3": "delivered 10"} {
		s, ok := roots[offset]
		if all := attributes(s); !ok || all["tiffin.outcome"]+" "+all["tiffin.recipients"] != want {
			t.Errorf("message %s: %v, want %s", offset, all, want)
			continue
		}
		var names []string
		for _, c := range children[s.SpanContext.SpanID().String()] {
			names = append(names, c.Name)
			if c.StartTime.Before(s.StartTime) || c.EndTime.After(s.EndTime) || c.EndTime.Before(c.StartTime) {
				t.Errorf("message %s: %s from %s to %s in a span from %s to %s", offset, c.Name, c.StartTime, c.EndTime, s.StartTime, s.EndTime)
			}
		}
		if got := strings.Join(names, ", "); got != "fence, plan, postgres commit, kafka commit" {
			t.Errorf("message %s has the steps %s", offset, got)
		}
	}
	for _, rec := range r.records(r.cfg.Kafka.Output) {
		trigger := string(rec.Headers[0].Value)
		span := roots[trigger[strings.LastIndex(trigger, "/")+1:]].SpanContext.SpanID()
		if got, want := fmt.Sprint(headers(rec)[1:]), fmt.Sprintf("[traceparent=00-%s-%s-01 tracestate=%s]", publisher, span, publishState); got != want {
			t.Errorf("%s carries %s, want %s", trigger, got, want)
		}
	}
	if dead := r.records(r.cfg.Kafka.DeadLetter); len(dead) != 1 || headers(dead[0])[0] != "traceparent=00-"+publisher+"-"+publishing+"-01" {
		t.Errorf("a dead letter keeps the headers that came: %v", dead)
	}
	r.wantVerdict(nil)
}

func headers(rec *kgo.Record) (all []string) {
	for _, h := range rec.Headers {
		all = append(all, h.Key+"="+string(h.Value))
	}
	return all
}

// Rebuilt records are byte for byte what they were, their headers included, also when tracing was
// turned off meanwhile: the manifest keeps what the records carried. With tracing on the recovery
// shows in the same trace.
func TestRebuiltRecordsKeepTheirContext(t *testing.T) {
	t.Parallel()
	r := newRig(t, 1, map[string][]string{"three": {"a", "b", "c"}})
	spans, tracing := r.tracing()
	r.publishTraced(campaign("three", "one").json(t), campaign("three", "two").json(t))
	r.publish(0, campaign("three", "without a context").json(t))
	r.untilNow(tracing)
	copies := func() map[string]int {
		all := map[string]int{}
		for _, rec := range r.records(r.cfg.Kafka.Output) {
			all[fmt.Sprintf("%s %s %q", rec.Key, rec.Value, headers(rec))]++
		}
		return all
	}
	if first := copies(); len(first) != 9 || !slices.Equal(times(first), []int{1}) {
		t.Fatalf("delivered at first: %v", first)
	}
	r.setOffset(0, 0, "tiffin") // as a crash between the two commits leaves it
	r.untilNow()
	if second := copies(); len(second) != 9 || !slices.Equal(times(second), []int{2}) {
		t.Errorf("rebuilt without tracing, some differ from what they were: %v", second)
	}
	spans.Reset()
	r.setOffset(0, 0, "tiffin")
	r.untilNow(tracing)
	if third := copies(); len(third) != 9 || !slices.Equal(times(third), []int{3}) {
		t.Errorf("rebuilt with tracing, some differ from what they were: %v", third)
	}
	var recoveries []string
	for _, s := range spans.GetSpans() {
		if s.Name == "recovery" && s.Status.Code != codes.Error && s.SpanContext.TraceID().String() == publisher {
			recoveries = append(recoveries, attributes(s)["messaging.kafka.offset"])
		}
	}
	if !slices.Equal(recoveries, []string{"0", "1"}) {
		t.Errorf("recoveries in the publisher's trace: %v", recoveries)
	}
}

func times(of map[string]int) (distinct []int) {
	for _, n := range of {
		if !slices.Contains(distinct, n) {
			distinct = append(distinct, n)
		}
	}
	return distinct
}

// Without tracing, whatever context came, the records carry the header trigger alone.
func TestContextStaysOutWithoutTracing(t *testing.T) {
	t.Parallel()
	r := newRig(t, 1, map[string][]string{"one": {"a"}})
	m := campaign("one", "quiet")
	r.publishTraced(m.json(t))
	r.untilNow()
	r.wantBoth([]delivery{r.expect(m, 0, 0, "a")}) // trigger alone, or deliveries says so
	var kept int
	if err := r.db.Connect(t).QueryRow(t.Context(), "SELECT count(traceparent) FROM tiffin.trigger").Scan(&kept); err != nil || kept != 0 {
		t.Errorf("the manifest keeps %d contexts: %v", kept, err)
	}
}

// An attempt that Postgres refuses is a span with the server's reason, and the next one, which succeeds, another
// of the same trace: what failed is seen, and that it is over.
func TestRefusedCommitIsAFailedSpanAndThenAGoodOne(t *testing.T) {
	t.Parallel()
	r := newRig(t, 2, map[string][]string{"r": clients(3)})
	r.asOrdinaryRole()
	spans, tracing := r.tracing()
	o := newOutage(t, r, tracing)
	spans.Reset()
	role := pgx.Identifier{o.db.Name}.Sanitize()
	o.db.Exec(t, "REVOKE INSERT ON subscribers_feedback FROM "+role)
	m := campaign("r", "refused")
	o.number++
	for _, client := range o.clients {
		o.want = append(o.want, o.expect(m, 0, 1, client))
	}
	o.publishTraced(m.json(t))
	o.unready("permission denied")
	o.db.Exec(t, "GRANT INSERT ON subscribers_feedback TO "+role)
	o.settled()
	if err := o.stop(); err != nil {
		t.Fatal(err)
	}
	o.wantVerdict(nil)
	attempts, commits := childrenOf(t, spans.GetSpans(), "postgres commit")
	if len(attempts) < 2 {
		t.Fatalf("%d spans of the message: want that of a refusal and that of the delivery", len(attempts))
	}
	for i, attempt := range attempts {
		commit, last := commits[i], i == len(attempts)-1
		if refused := attempt.Status.Code == codes.Error; refused == last {
			t.Errorf("attempt %d of %d ends with %+v", i+1, len(attempts), attempt.Status)
		}
		if refused := commit.Status.Code == codes.Error; refused == last || refused != strings.Contains(commit.Status.Description, "permission denied") {
			t.Errorf("the commit of attempt %d of %d ends with %+v", i+1, len(attempts), commit.Status)
		}
	}
}

// childrenOf are the publisher's campaign's spans in the order of their beginning, with one child of each.
func childrenOf(t *testing.T, spans tracetest.SpanStubs, name string) (attempts, children []tracetest.SpanStub) {
	t.Helper()
	for _, s := range spans {
		if s.Parent.SpanID().String() == publishing && s.SpanContext.TraceID().String() == publisher {
			attempts = append(attempts, s)
		}
	}
	slices.SortFunc(attempts, func(a, b tracetest.SpanStub) int { return a.StartTime.Compare(b.StartTime) })
	for _, attempt := range attempts {
		i := slices.IndexFunc(spans, func(s tracetest.SpanStub) bool {
			return s.Parent.SpanID() == attempt.SpanContext.SpanID() && s.Name == name
		})
		if i < 0 {
			t.Fatalf("an attempt, which ends with %+v, has no %s", attempt.Status, name)
		}
		children = append(children, spans[i])
	}
	return attempts, children
}
