package stream

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// clientLog passes on what franz-go warns of. Its information level has a line per
// transaction.
type clientLog struct{ log *slog.Logger }

func (clientLog) Level() kgo.LogLevel { return kgo.LogLevelWarn }

func (l clientLog) Log(level kgo.LogLevel, msg string, keyvals ...any) {
	to := slog.LevelInfo
	if level == kgo.LogLevelError {
		to = slog.LevelWarn // the client tries again; what ends a session is logged by the engine
	}
	l.log.Log(context.Background(), to, "kafka client: "+msg, keyvals...) //nolint:sloglint // the client's own words
}

// dialWatch remembers why connections failed: the client's own error after its retries may
// only say that time is up.
type dialWatch struct {
	mu   sync.Mutex
	last error
}

// OnBrokerConnect implements kgo.HookBrokerConnect.
func (d *dialWatch) OnBrokerConnect(meta kgo.BrokerMetadata, _ time.Duration, _ net.Conn, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err == nil {
		d.last = nil
		return
	}
	d.last = fmt.Errorf("connect to %s:%d: %w", meta.Host, meta.Port, err)
}

// explain adds the last connection error.
func (d *dialWatch) explain(err error) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case d.last == nil:
		return err
	case errors.Is(d.last, err): // the client passed on what the connection said
		return d.last
	default:
		return fmt.Errorf("%w (%w)", d.last, err)
	}
}
