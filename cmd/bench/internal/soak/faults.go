package soak

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"
)

// fault is one thing that goes wrong. All of it is drawn from the seed, before it begins.
type fault struct {
	after time.Duration // since the one before began
	kill  bool          // counts as a kill
	what  string
	// target is what no two faults have at once.
	target string
	last   time.Duration // how long it lasts
	begin  func(context.Context, *world) (end func(context.Context) error, err error)
}

// chaos draws one fault after the other.
type chaos struct {
	random *rand.Rand
	pace   time.Duration // from kill to kill, on average
}

// next draws a fault.
func (c *chaos) next() fault {
	f := c.draw()
	f.after = time.Duration(c.random.ExpFloat64() * float64(c.pace) * 2 / 3) // two of three are kills
	return f
}

func (c *chaos) draw() fault {
	n := c.random.IntN(daemons)
	switch kind := c.random.IntN(100); {
	case kind < 32:
		return c.killDaemon(n)
	case kind < 44:
		return c.killBroker(c.random.IntN(brokers))
	case kind < 54:
		return c.killPostgres("source", func(w *world) server { return w.source })
	case kind < 66:
		return c.killPostgres("feedback", func(w *world) server { return w.feedback })
	case kind < 76:
		return c.suspend(n)
	case kind < 80:
		return c.terminate(n)
	default:
		return c.network(n, c.random.IntN(brokers+2))
	}
}

// upTo is a duration that is usually short.
func (c *chaos) upTo(most time.Duration) time.Duration {
	x := c.random.Float64()
	return time.Duration(x * x * float64(most))
}

func daemonName(n int) string { return fmt.Sprintf("daemon %d", n+1) }

// killDaemon may take longer than the group waits for the member.
func (c *chaos) killDaemon(n int) fault {
	return fault{
		kill: true, what: "kill -9 of " + daemonName(n), target: daemonName(n), last: c.upTo(9 * time.Second),
		begin: func(_ context.Context, w *world) (func(context.Context) error, error) {
			w.daemons[n].kill()
			return func(context.Context) error { return w.daemons[n].start() }, nil
		},
	}
}

func (c *chaos) terminate(n int) fault {
	return fault{
		what: "SIGTERM of " + daemonName(n), target: daemonName(n), last: c.upTo(3 * time.Second),
		begin: func(_ context.Context, w *world) (func(context.Context) error, error) {
			stopped := make(chan error, 1)
			go func() { stopped <- w.daemons[n].stop(false) }()
			return func(context.Context) error { return errors.Join(<-stopped, w.daemons[n].start()) }, nil
		},
	}
}

// suspend makes a zombie every second time: the group has given its partitions away meanwhile.
func (c *chaos) suspend(n int) fault {
	last := 200*time.Millisecond + c.upTo(3*time.Second)
	if c.random.IntN(2) == 0 {
		last = 7*time.Second + c.upTo(5*time.Second)
	}
	return fault{
		what: "SIGSTOP of " + daemonName(n), target: daemonName(n), last: last,
		begin: func(_ context.Context, w *world) (func(context.Context) error, error) {
			w.daemons[n].suspend()
			return func(context.Context) error { w.daemons[n].resume(); return nil }, nil
		},
	}
}

func (c *chaos) killBroker(n int) fault {
	name := fmt.Sprintf("broker %d", n+1)
	return fault{
		kill: true, what: "kill -9 of " + name, target: name, last: c.upTo(4 * time.Second),
		begin: func(_ context.Context, w *world) (func(context.Context) error, error) {
			w.kafka.KillBroker(n)
			return func(ctx context.Context) error { return w.kafka.StartBroker(ctx, n) }, nil
		},
	}
}

// server is a database server.
type server interface {
	Kill()
	Start(ctx context.Context) error
}

func (c *chaos) killPostgres(name string, of func(*world) server) fault {
	return fault{
		kill: true, what: "kill -9 of the " + name + " server", target: name, last: c.upTo(4 * time.Second),
		begin: func(_ context.Context, w *world) (func(context.Context) error, error) {
			of(w).Kill()
			return of(w).Start, nil
		},
	}
}

// network harms what is between a daemon and one server.
func (c *chaos) network(n, server int) fault {
	kind, size, last := c.random.IntN(6), c.random.IntN(20_000), 100*time.Millisecond+c.upTo(10*time.Second)
	kinds := [...]string{"reset", "cut", "silenced", "deaf to answers", "slow", "cut in an answer"}
	f := fault{target: fmt.Sprintf("%s to %d", daemonName(n), server), last: last}
	f.what = fmt.Sprintf("%s, to server %d: %s", daemonName(n), server, kinds[kind])
	f.begin = func(_ context.Context, w *world) (func(context.Context) error, error) {
		way := w.network.ways[n][server]
		var err error
		switch kind {
		case 0:
			return nothing, way.reset()
		case 1:
			way.cut()
		case 2:
			err = way.silence("upstream", "downstream")
		case 3:
			err = way.silence("downstream")
		case 4:
			err = way.delay(150*time.Millisecond, 100*time.Millisecond)
		default:
			err = way.truncate(size)
		}
		return func(context.Context) error { return way.heal() }, err
	}
	return f
}

func nothing(context.Context) error { return nil }

// targets are what suffers now.
type targets struct {
	mu   sync.Mutex
	busy map[string]chan struct{}
}

// take waits until nothing else harms the target.
func (t *targets) take(ctx context.Context, name string) (release func(), ok bool) {
	for {
		t.mu.Lock()
		other := t.busy[name]
		if other == nil {
			mine := make(chan struct{})
			t.busy[name] = mine
			t.mu.Unlock()
			return func() {
				t.mu.Lock()
				defer t.mu.Unlock()
				delete(t.busy, name)
				close(mine)
			}, true
		}
		t.mu.Unlock()
		select {
		case <-other:
		case <-ctx.Done():
			return nil, false
		}
	}
}
