package daemon

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
)

// stopTracing bounds how long the end waits for a collector to take the last spans.
const stopTracing = 5 * time.Second

// tracing sends spans to a collector; the zero value sends none. A collector that is slow or away
// holds nobody up: spans are dropped.
type tracing struct {
	tracer   trace.Tracer // nil without tracing
	provider *sdk.TracerProvider
	log      *slog.Logger
}

// newTracing connects to nothing yet.
func newTracing(ctx context.Context, o Options) (*tracing, error) {
	s := o.Settings.Tracing
	t := &tracing{log: o.Log.With("part", "tracing")}
	if s.Endpoint == "" {
		return t, nil
	}
	exporter, err := otlptracehttp.New(ctx, otlptracehttp.WithEndpointURL(tracesOf(s.Endpoint)))
	if err != nil {
		return nil, fmt.Errorf("tracing.endpoint %s: %w", s.Endpoint, err)
	}
	t.provider = sdk.NewTracerProvider(
		sdk.WithBatcher(&told{exporter, t.log}),
		sdk.WithSampler(sdk.ParentBased(sdk.TraceIDRatioBased(float64(s.SampleRatio)))),
		sdk.WithResource(resource.NewSchemaless(
			attribute.String("service.name", "tiffin"),
			attribute.String("service.version", o.Version),
			attribute.String("service.instance.id", o.Settings.Source.Slot))),
	)
	t.tracer = t.provider.Tracer("example.com/tiffin/stream")
	return t, nil
}

// tracesOf adds the path of OTLP over HTTP where none is given.
func tracesOf(endpoint string) string {
	if base := strings.TrimSuffix(endpoint, "/"); strings.Count(base, "/") == 2 {
		return base + "/v1/traces"
	}
	return endpoint
}

// close sends what is left, for a while.
func (t *tracing) close(ctx context.Context) {
	if t.provider == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTracing)
	defer cancel()
	if err := t.provider.Shutdown(ctx); err != nil {
		t.log.Warn("the last spans were not taken by the collector", "err", err)
	}
}

// told logs what the collector did not take: the library would tell the process's standard error.
type told struct {
	sdk.SpanExporter

	log *slog.Logger
}

// ExportSpans implements sdk.SpanExporter.
func (t *told) ExportSpans(ctx context.Context, spans []sdk.ReadOnlySpan) error {
	if err := t.SpanExporter.ExportSpans(ctx, spans); err != nil {
		t.log.Warn("spans were not taken by the collector of tracing.endpoint", "spans", len(spans), "err", err)
	}
	return nil
}
