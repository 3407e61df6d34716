package daemon

import (
	"context"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"regexp"
	"strings"
	"time"

	"github.com/go-logr/logr"
	"go.opentelemetry.io/otel"
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
	if err := checkHeaders(os.LookupEnv); err != nil {
		return nil, err
	}
	otel.SetLogger(logr.Discard()) // which would print on standard error what it does not understand
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

// checkHeaders refuses what the exporter would pass over, and print whole on standard error, credentials
// included. How they are written: OpenTelemetry Protocol Exporter, "Specifying headers via environment variables".
func checkHeaders(lookup func(string) (string, bool)) error {
	for _, name := range []string{"OTEL_EXPORTER_OTLP_HEADERS", "OTEL_EXPORTER_OTLP_TRACES_HEADERS"} {
		list, _ := lookup(name)
		if strings.TrimSpace(list) == "" {
			continue
		}
		for i, header := range strings.Split(list, ",") {
			key, value, found := strings.Cut(header, "=")
			_, err := url.PathUnescape(value)
			if !found || !headerName.MatchString(strings.TrimSpace(key)) || err != nil {
				return fmt.Errorf("%s: number %d of its headers is not NAME=VALUE with the value's special characters percent-encoded", name, i+1)
			}
		}
	}
	return nil
}

// headerName is a token of HTTP (RFC 9110, section 5.6.2).
var headerName = regexp.MustCompile("^[!#$%&'*+.^_`|~0-9A-Za-z-]+$")

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

// told logs what the collector did not take: the library would tell the process's standard error. The answer's
// body is left out: a collector may say what it was sent, credentials included.
type told struct {
	sdk.SpanExporter

	log *slog.Logger
}

// ExportSpans implements sdk.SpanExporter.
func (t *told) ExportSpans(ctx context.Context, spans []sdk.ReadOnlySpan) error {
	if err := t.SpanExporter.ExportSpans(ctx, spans); err != nil {
		why, _, _ := strings.Cut(err.Error(), "body: ")
		t.log.Warn("spans were not taken by the collector of tracing.endpoint", "spans", len(spans), "err", strings.TrimRight(why, " (:"))
	}
	return nil
}
