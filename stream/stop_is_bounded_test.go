package stream

import (
	"context"
	"net"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// A process that is asked to stop does so in time although no broker answers any more: what it
// had in hand is in both sinks, and the group forgets it when its session times out.
func TestStopDoesNotWaitForSilentBrokers(t *testing.T) {
	t.Parallel()
	// The first request of a connection is waited for whatever becomes of the context it is of.
	unconnected := []kgo.Opt{kgo.ConnIdleTimeout(10 * time.Second), kgo.DisableClientMetrics()}
	for name, c := range map[string]struct {
		instance string
		client   []kgo.Opt
	}{
		"static member": {instance: "one"}, "static member, new connections": {instance: "one", client: unconnected},
		"dynamic member": {}, "dynamic member, new connections": {client: unconnected},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newCrashWorld(t, crashKind{})
				defer w.close()
				w.subscribe(t, 0)
				var silent atomic.Bool
				w.store.levelled = nil
				w.store.before = func(effect string) error {
					if effect == "giveUp" { // all is delivered; what remains is to say goodbye
						silent.Store(true)
					}
					return nil
				}
				cfg := w.config()
				cfg.UntilNow = false
				cfg.Kafka.InstanceID = c.instance
				cfg.Kafka.Options = append(c.client, kgo.Dialer(func(ctx context.Context, network, address string) (net.Conn, error) {
					conn, err := w.network.DialContext(ctx, network, address)
					return &mutedConn{conn, &silent}, err
				}))
				e, err := New(cfg, w.index, nobody{})
				if err != nil {
					t.Fatal(err)
				}
				e.openStore = w.store.open
				ctx, cancel := context.WithCancel(t.Context())
				done := make(chan error, 1)
				go func() { done <- e.Run(ctx) }()
				<-time.After(time.Minute) // of the fake clock
				asked := time.Now()
				cancel()
				if err := <-done; err != nil {
					t.Errorf("run: %v", err)
				}
				if took := time.Since(asked); !silent.Load() || took > 10*time.Second {
					t.Errorf("it took %v to stop (brokers silent: %t): want 10 s at most", took, silent.Load())
				}
			})
		})
	}
}

// mutedConn passes nothing on while it is silent, so that no answer comes.
type mutedConn struct {
	net.Conn
	silent *atomic.Bool
}

func (c *mutedConn) Write(p []byte) (int, error) {
	if c.silent.Load() {
		return len(p), nil
	}
	return c.Conn.Write(p)
}
