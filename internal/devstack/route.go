package devstack

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"sync"
)

// Route is a TCP route to a server that can be cut, stalled and led to another server. While it is
// stalled it takes bytes and passes none on, as a broken link does, so that no connection ends; what it
// took is passed on when it resumes. Its methods may be called from several goroutines.
//
// toxiproxy as a library does not serve here: of every connection that it ends in the middle of a
// transfer two goroutines stay behind (v2.5.0), and every test binary looks for those.
type Route struct {
	listener net.Listener
	wg       sync.WaitGroup

	mu     sync.Mutex
	to     string
	most   int                   // stalls after so many bytes; 0: never
	open   chan struct{}         // closed while bytes pass
	conns  map[net.Conn]net.Conn // each end's other end
	held   map[net.Conn]struct{} // the ends of connections that are stalled by themselves
	freed  chan struct{}         // closed when these pass bytes again
	closed bool
}

// OpenRoute leads from one host:port, which it listens on, to another; from "" is a free port of
// 127.0.0.1. ctx bounds the start only; the caller must call Close.
func OpenRoute(ctx context.Context, from, to string) (*Route, error) {
	if from == "" {
		from = "127.0.0.1:0"
	}
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", from)
	if err != nil {
		return nil, fmt.Errorf("open a route to %s: %w", to, err)
	}
	r := &Route{listener: l, to: to, open: make(chan struct{}), conns: map[net.Conn]net.Conn{}, held: map[net.Conn]struct{}{}, freed: make(chan struct{})}
	close(r.open)
	r.wg.Go(func() { r.serve(context.WithoutCancel(ctx)) })
	return r, nil
}

// Address is where clients connect to: host:port.
func (r *Route) Address() string { return r.listener.Addr().String() }

// DSN is the URL of a database, led over the route.
func (r *Route) DSN(dsn string) (string, error) {
	u, err := url.Parse(dsn)
	if err != nil {
		return "", fmt.Errorf("lead a DSN over the route: %w", err)
	}
	u.Host = r.Address()
	return u.String(), nil
}

// Cut ends every connection; new ones are made as before.
func (r *Route) Cut() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.cut()
}

func (r *Route) cut() {
	for c := range r.conns {
		_ = c.Close() // the goroutines that pass bytes see to the rest
	}
	clear(r.conns)
}

// Lead ends every connection and connects to another server from now on.
func (r *Route) Lead(to string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.to = to
	r.cut()
}

// Stall lets nothing pass until Resume.
func (r *Route) Stall() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.stall()
}

func (r *Route) stall() {
	if !r.stalled() {
		r.open = make(chan struct{})
	}
}

// StallPort lets nothing pass of the one connection that its server sees come from a port, until Resume.
// It reports whether there is one.
func (r *Route) StallPort(port int) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for end, other := range r.conns {
		if at, ok := end.LocalAddr().(*net.TCPAddr); ok && at.Port == port {
			r.held[end], r.held[other] = struct{}{}, struct{}{}
			return true
		}
	}
	return false
}

// StallAfter lets so many bytes pass first, of both directions and all connections together.
func (r *Route) StallAfter(bytes int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.most = bytes
}

// Stalled says whether nothing passes.
func (r *Route) Stalled() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.stalled()
}

func (r *Route) stalled() bool {
	select {
	case <-r.open:
		return false
	default:
		return true
	}
}

// Resume lets everything pass again.
func (r *Route) Resume() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.resume()
}

func (r *Route) resume() {
	r.most = 0
	if r.stalled() {
		close(r.open)
	}
	close(r.freed)
	r.freed = make(chan struct{})
	clear(r.held)
}

// Close ends the route and its connections, and waits for its goroutines.
func (r *Route) Close() error {
	err := r.listener.Close()
	r.mu.Lock()
	r.closed = true
	r.cut()
	r.resume()
	r.mu.Unlock()
	r.wg.Wait()
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

func (r *Route) serve(ctx context.Context) {
	for {
		in, err := r.listener.Accept()
		if err != nil {
			return
		}
		r.mu.Lock()
		to := r.to
		r.mu.Unlock()
		out, err := (&net.Dialer{}).DialContext(ctx, "tcp", to)
		if err != nil {
			_ = in.Close() // as a server that refuses
			continue
		}
		r.connect(in, out, to)
	}
}

// connect passes bytes both ways, unless the route was closed or led elsewhere meanwhile.
func (r *Route) connect(in, out net.Conn, to string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed || r.to != to {
		_, _ = in.Close(), out.Close()
		return
	}
	r.conns[in], r.conns[out] = out, in
	r.wg.Go(func() { r.pass(in, out) })
	r.wg.Go(func() { r.pass(out, in) })
}

func (r *Route) pass(from, to net.Conn) {
	defer func() {
		_, _ = from.Close(), to.Close()
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.conns, from)
		delete(r.conns, to)
	}()
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		<-r.passes(n, from)
		if _, failed := to.Write(buf[:n]); err != nil || failed != nil {
			return
		}
	}
}

// passes counts n bytes of an end and gives what to wait for before they go on.
func (r *Route) passes(n int, from net.Conn) <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, ok := r.held[from]; ok {
		return r.freed
	}
	if r.most > 0 {
		if r.most -= n; r.most <= 0 {
			r.most = 0
			r.stall()
		}
	}
	return r.open
}
