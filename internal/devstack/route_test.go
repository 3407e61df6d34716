package devstack

import (
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"
)

// answering is a server that sends its name, and then back what it gets.
func answering(t *testing.T, name string) string {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer func() { _ = c.Close() }()
				_, _ = io.WriteString(c, name)
				_, _ = io.Copy(c, c)
			}()
		}
	}()
	return l.Addr().String()
}

func dial(t *testing.T, r *Route) net.Conn {
	t.Helper()
	c, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", r.Address())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func read(t *testing.T, c net.Conn, n int) string {
	t.Helper()
	b := make([]byte, n)
	if _, err := io.ReadFull(c, b); err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// What a stalled route took is passed on when it resumes; a cut ends what there was and no more; a
// route led elsewhere connects to the other server.
func TestRouteStallsCutsAndLeadsElsewhere(t *testing.T) {
	t.Parallel()
	r, err := OpenRoute(t.Context(), "", answering(t, "a"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	c := dial(t, r)
	if got := read(t, c, 1); got != "a" {
		t.Fatalf("server %q", got)
	}
	r.StallAfter(1)
	_, _ = io.WriteString(c, "held back")
	_ = c.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	if n, err := c.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("stalled, and %d bytes passed: %v", n, err)
	}
	if !r.Stalled() {
		t.Fatal("not stalled")
	}
	r.Resume()
	_ = c.SetReadDeadline(time.Time{})
	if got := read(t, c, 9); got != "held back" {
		t.Fatalf("resumed, and got %q", got)
	}
	r.Cut()
	if _, err := c.Read(make([]byte, 1)); err == nil {
		t.Fatal("the connection is still there")
	}
	if got := read(t, dial(t, r), 1); got != "a" {
		t.Fatalf("server %q after the cut", got)
	}
	r.Lead(answering(t, "b"))
	if got := read(t, dial(t, r), 1); got != "b" {
		t.Fatalf("server %q, led elsewhere", got)
	}
}
