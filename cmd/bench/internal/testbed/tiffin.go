package testbed

import (
	"context"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// Tiffin is the daemon as a process of its own.
type Tiffin struct {
	*Process
	url    string
	client *http.Client
}

// StartTiffin runs "tiffin run" on a lane with these settings only; nothing of this environment
// reaches it. more are settings by their environment variable, TIFFIN_…; they win.
func StartTiffin(ctx context.Context, program string, lane *Lane, more map[string]string) (*Tiffin, error) {
	address, err := freeAddress(ctx)
	if err != nil {
		return nil, err
	}
	settings := map[string]string{
		"PATH": os.Getenv("PATH"), "HOME": os.Getenv("HOME"),
		"TIFFIN_SOURCE_DSN": lane.SourceDSN, "TIFFIN_FEEDBACK_DSN": lane.FeedbackDSN,
		"TIFFIN_SOURCE_SLOT": lane.Slot, "TIFFIN_SOURCE_PUBLICATION": lane.Publication,
		"TIFFIN_KAFKA_BROKERS": strings.Join(lane.Brokers, ","), "TIFFIN_KAFKA_START": "earliest",
		"TIFFIN_KAFKA_INPUT": lane.Input, "TIFFIN_KAFKA_OUTPUT": lane.Output, "TIFFIN_KAFKA_DEAD_LETTER": lane.DeadLetters,
		"TIFFIN_KAFKA_GROUP": lane.Group, "TIFFIN_HTTP_LISTEN": address,
	}
	maps.Copy(settings, more)
	var env []string
	for name, value := range settings {
		env = append(env, name+"="+value)
	}
	p, err := start(ctx, "tiffin run", env, io.Discard, program, "run")
	if err != nil {
		return nil, err
	}
	return &Tiffin{Process: p, url: "http://" + address, client: &http.Client{}}, nil
}

// Stop asks it to stop; the batch in hand takes its time.
func (t *Tiffin) Stop() error {
	t.client.CloseIdleConnections()
	return t.Process.Stop(20 * time.Second)
}

// WaitReady returns the last moment at which the daemon was not ready yet, so that a measurement
// that begins there leaves nothing out.
func (t *Tiffin) WaitReady(ctx context.Context) (time.Time, error) {
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	last := time.Now()
	for {
		asked := time.Now()
		if err := t.get(ctx, "/readyz", time.Second, io.Discard); err == nil {
			return last, nil
		}
		last = asked
		select {
		case <-t.Exited():
			return asked, t.Ended("before it was ready")
		case <-ctx.Done():
			return asked, fmt.Errorf("wait for the daemon: %w", ctx.Err())
		case <-ticker.C:
		}
	}
}

// Metric is the sum over all label values of a counter or gauge of /metrics, 0 if there is none.
func (t *Tiffin) Metric(ctx context.Context, name string) (float64, error) {
	reader, writer := io.Pipe()
	go func() { writer.CloseWithError(t.get(ctx, "/metrics", 10*time.Second, writer)) }()
	defer func() { _ = reader.Close() }()
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(reader)
	if err != nil {
		return 0, fmt.Errorf("read the daemon's metrics: %w", err)
	}
	var sum float64
	for _, m := range families[name].GetMetric() {
		sum += m.GetCounter().GetValue() + m.GetGauge().GetValue()
	}
	return sum, nil
}

// get writes what the endpoint answers; an answer other than 200 is an error.
func (t *Tiffin) get(ctx context.Context, path string, limit time.Duration, into io.Writer) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, t.url+path, nil)
	if err != nil {
		return err
	}
	response, err := t.client.Do(request)
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answers %s", path, response.Status)
	}
	_, err = io.Copy(into, response.Body)
	return err
}

// freeAddress is a port that nobody listens on now.
func freeAddress(ctx context.Context) (string, error) {
	var config net.ListenConfig
	l, err := config.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("find a free port: %w", err)
	}
	return l.Addr().String(), l.Close()
}
