package stream

import (
	"context"
	"strconv"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
)

// A campaign message is one span from the poll to both commits, a child of what its headers name,
// with a span for each step. All are written down when the message has come to its end, from
// moments that are noted on the way: a message that is held back and planned again leaves none.
// Without Config.Tracer nothing of this happens, and no clock is read.

// traceContext is what the output records of a message carry (W3C Trace Context, level 1): the
// values of two headers, empty for none. It is kept in the manifest, so that rebuilt records are
// the same whatever the settings are by then.
type traceContext struct{ parent, state string }

const (
	traceparent = "traceparent"
	tracestate  = "tracestate"
)

// headerRoom makes the headers of records. Memory is asked for many messages at a time, and never
// used again: it is freed with the last record. The zero value is ready.
type headerRoom struct {
	text    []byte
	headers []kgo.RecordHeader
}

// of are the headers of every record that a message makes.
func (h *headerRoom) of(topic string, partition int32, offset int64, c traceContext) []kgo.RecordHeader {
	const perMessage, atOnce = 3, 128
	if cap(h.headers)-len(h.headers) < perMessage {
		h.headers = make([]kgo.RecordHeader, 0, perMessage*atOnce)
	}
	if most := len(topic) + 32; cap(h.text)-len(h.text) < most {
		h.text = make([]byte, 0, atOnce*most)
	}
	from, first := len(h.text), len(h.headers)
	h.text = appendTriggerID(h.text, topic, partition, offset)
	h.headers = append(h.headers, kgo.RecordHeader{Key: "trigger", Value: h.text[from:len(h.text):len(h.text)]})
	if c.parent != "" {
		h.headers = append(h.headers, kgo.RecordHeader{Key: traceparent, Value: []byte(c.parent)})
	}
	if c.state != "" {
		h.headers = append(h.headers, kgo.RecordHeader{Key: tracestate, Value: []byte(c.state)})
	}
	return h.headers[first:len(h.headers):len(h.headers)]
}

// size bounds what the headers add to a record.
func (c traceContext) size() int {
	if c.parent == "" {
		return 0
	}
	return len(traceparent) + len(c.parent) + len(tracestate) + len(c.state) + 20 // two varints each
}

// fields of a record's headers, or of a traceContext; it implements propagation.TextMapCarrier.
type fields struct {
	record *kgo.Record
	made   traceContext
}

func (f *fields) Get(key string) string {
	if f.record != nil {
		return string(lastHeader(f.record, key))
	}
	switch key {
	case traceparent:
		return f.made.parent
	case tracestate:
		return f.made.state
	}
	return ""
}

func (f *fields) Set(key, value string) {
	switch key {
	case traceparent:
		f.made.parent = value
	case tracestate:
		f.made.state = value
	}
}

func (f *fields) Keys() []string { return []string{traceparent, tracestate} }

// steps are moments of a poll or of a batch.
type steps struct {
	begun, ended time.Time
}

// traced is the span of one message and what it consists of. Its methods may be called on nil.
type traced struct {
	tracer      trace.Tracer
	now         func() time.Time
	span        trace.Span
	fence, plan steps
}

// begin opens the span of a message that is about to be planned; nil without a tracer.
func (p *planner) begin(m message) *traced {
	if p.cfg.Tracer == nil {
		return nil
	}
	ctx := propagation.TraceContext{}.Extract(context.Background(), &fields{record: m.Record})
	_, span := p.cfg.Tracer.Start(ctx, "campaign", trace.WithTimestamp(m.fence.begun), trace.WithSpanKind(trace.SpanKindConsumer),
		trace.WithAttributes(messageAttributes(p.cfg, m.Partition, m.Offset)...))
	return &traced{tracer: p.cfg.Tracer, now: p.cfg.Now, span: span, fence: m.fence, plan: steps{begun: p.cfg.Now()}}
}

// messageAttributes name a message as OpenTelemetry's conventions for Kafka do.
func messageAttributes(cfg *Config, partition int32, offset int64) []attribute.KeyValue {
	return []attribute.KeyValue{
		attribute.String("messaging.system", "kafka"),
		attribute.String("messaging.operation.type", "process"),
		attribute.String("messaging.consumer.group.name", cfg.Kafka.Group),
		attribute.String("messaging.destination.name", cfg.Kafka.Input),
		attribute.String("messaging.destination.partition.id", strconv.Itoa(int(partition))),
		attribute.Int64("messaging.kafka.offset", offset),
	}
}

// context is what the output records carry.
func (t *traced) context() traceContext {
	if t == nil {
		return traceContext{}
	}
	var made fields
	propagation.TraceContext{}.Inject(trace.ContextWithSpan(context.Background(), t.span), &made)
	return made.made
}

// failed ends the span of a message that was not planned, or whose plan is given up.
func (t *traced) failed(err error) {
	if t == nil {
		return
	}
	now := t.now()
	t.step("fence", t.fence, nil)
	t.step("plan", t.plan, err)
	t.span.SetStatus(codes.Error, err.Error())
	t.span.End(trace.WithTimestamp(now))
}

func (t *traced) planned() {
	if t != nil {
		t.plan.ended = t.now()
	}
}

// step writes a child down; an unfinished one ends with its error.
func (t *traced) step(name string, at steps, err error) {
	if at.begun.IsZero() {
		return
	}
	kind := trace.SpanKindInternal
	if name == postgresStep || name == kafkaStep {
		kind = trace.SpanKindClient
	}
	_, span := t.tracer.Start(trace.ContextWithSpan(context.Background(), t.span), name,
		trace.WithTimestamp(at.begun), trace.WithSpanKind(kind))
	if at.ended.IsZero() {
		at.ended = t.now()
		text := "not committed in this attempt"
		if err != nil {
			text = err.Error()
		}
		span.SetStatus(codes.Error, text)
	}
	span.End(trace.WithTimestamp(at.ended))
}

const (
	postgresStep = "postgres commit"
	kafkaStep    = "kafka commit"
)

// timing is when a batch was in the hands of either sink. The writer notes the one, the publisher
// the other; whoever lets go of the batch last reads both.
type timing struct {
	postgres, kafka       steps
	postgresErr, kafkaErr error
}

// traced reports whether any message of the batch has a span.
func (b *batch) traced() bool { return len(b.triggers) > 0 && b.triggers[0].trace != nil }

// begin and end note a step of one sink; err, if any, is why it was not committed.
func (s *steps) begin(b *batch, now func() time.Time) {
	if b.traced() {
		s.begun = now()
	}
}

func (s *steps) end(b *batch, now func() time.Time, err error, failed *error) {
	switch {
	case !b.traced():
	case err != nil:
		*failed = err
	default:
		s.ended = now()
	}
}

// endTraces writes down what became of each message of a batch that nobody uses any more.
func (b *batch) endTraces() {
	if !b.traced() {
		return
	}
	for _, t := range b.triggers {
		t.trace.end(t, &b.timing)
		t.trace = nil // a batch may be let go of twice
	}
}

func (t *traced) end(of *trigger, at *timing) {
	t.span.SetAttributes(attribute.String("tiffin.outcome", string(of.outcome)), attribute.Int("tiffin.recipients", of.deliveries()))
	if of.fault != nil {
		t.span.SetAttributes(attribute.String("tiffin.reason", of.fault.Reason))
	}
	t.step("fence", t.fence, nil)
	t.step("plan", t.plan, nil)
	t.step(postgresStep, at.postgres, at.postgresErr)
	t.step(kafkaStep, at.kafka, at.kafkaErr)
	ended := at.kafka.ended
	if ended.IsZero() {
		ended = t.now()
		t.span.SetStatus(codes.Error, "not in both sinks in this attempt; the next one goes on with it")
	}
	t.span.End(trace.WithTimestamp(ended))
}

// recovered are the spans of messages whose records were rebuilt, until they are committed.
type recovered struct{ spans []trace.Span }

// begin opens the span of one of them in the open transaction, a child of the one whose context its
// records carry.
func (r *recovered) begin(cfg *Config, partition int32, rec *record, from *fields) {
	if cfg.Tracer == nil {
		return
	}
	ctx := propagation.TraceContext{}.Extract(context.Background(), from)
	_, span := cfg.Tracer.Start(ctx, "recovery", trace.WithTimestamp(cfg.Now()), trace.WithSpanKind(trace.SpanKindConsumer),
		trace.WithAttributes(append(messageAttributes(cfg, partition, rec.offset),
			attribute.String("tiffin.outcome", string(rec.outcome)), attribute.Int64("tiffin.recipients", rec.ids.count()))...))
	r.spans = append(r.spans, span)
}

// end closes those that are open; a failure names itself.
func (r *recovered) end(now func() time.Time, failure string) {
	for _, span := range r.spans {
		if failure != "" {
			span.SetStatus(codes.Error, failure)
		}
		span.End(trace.WithTimestamp(now()))
	}
	r.spans = nil
}
