package cdc

import (
	"context"
	"net"
	"net/url"
	"sync"
	"testing"
	"time"
)

// proxy stands between the reader and its server, and can stall: it takes bytes and passes
// none on, as a broken route does, so that no connection ends.
type proxy struct {
	listener net.Listener
	wg       sync.WaitGroup

	mu    sync.Mutex
	to    string
	most  int           // stalls after so many bytes; 0: never
	open  chan struct{} // closed while bytes pass
	conns []net.Conn
}

func newProxy(t *testing.T, to string) *proxy {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{listener: l, to: to, open: make(chan struct{})}
	close(p.open)
	p.wg.Go(p.serve)
	t.Cleanup(func() {
		_ = l.Close()
		p.cut()
		p.resume()
		p.wg.Wait()
	})
	return p
}

func (p *proxy) serve() {
	for {
		in, err := p.listener.Accept()
		if err != nil {
			return
		}
		p.mu.Lock()
		to := p.to
		p.mu.Unlock()
		out, err := (&net.Dialer{}).DialContext(context.Background(), "tcp", to)
		if err != nil {
			_ = in.Close()
			continue
		}
		p.mu.Lock()
		p.conns = append(p.conns, in, out)
		p.mu.Unlock()
		p.wg.Go(func() { p.pass(in, out) })
		p.wg.Go(func() { p.pass(out, in) })
	}
}

func (p *proxy) pass(from, to net.Conn) {
	defer func() { _, _ = from.Close(), to.Close() }()
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		<-p.passes(n)
		if _, werr := to.Write(buf[:n]); err != nil || werr != nil {
			return
		}
	}
}

// passes counts n bytes and gives what to wait for before they go on.
func (p *proxy) passes(n int) <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.most > 0 {
		if p.most -= n; p.most <= 0 {
			p.most, p.open = 0, make(chan struct{})
		}
	}
	return p.open
}

func (p *proxy) stall() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.open = make(chan struct{})
}

// stallAfter lets so many bytes pass first.
func (p *proxy) stallAfter(bytes int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.most = bytes
}

func (p *proxy) stalled() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-p.open:
		return false
	default:
		return true
	}
}

// lead breaks what there is and connects to another server from now on.
func (p *proxy) lead(to string) {
	p.mu.Lock()
	p.to = to
	p.mu.Unlock()
	p.cut()
}

func (p *proxy) resume() {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-p.open:
	default:
		close(p.open)
	}
}

func (p *proxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.conns {
		_ = c.Close()
	}
	p.conns = nil
}

func (p *proxy) dsn(t *testing.T, dsn string) string {
	t.Helper()
	u, err := url.Parse(dsn)
	if err != nil {
		t.Fatal(err)
	}
	u.Host = p.listener.Addr().String()
	return u.String()
}

// A network that breaks or stalls is said within 15 s, and what follows is exact.
func TestNetworkCutAndStalled(t *testing.T) {
	t.Parallel()
	db := servers.Database(t)
	contract(t, db, "DEFAULT")
	p := newProxy(t, db.Server.Address())
	g := start(t, db, func(c *Config) { c.DSN, c.StatusInterval = p.dsn(t, c.DSN), 10*time.Second })
	insert := `INSERT INTO subscribers_restaurants (restaurant_id, client_id) SELECT 'r'||i, 'c'||i FROM generate_series(1,10) i`
	for range 3 {
		g.agree(t)
		p.cut()
		g.exec(t, insert)
	}
	g.agree(t)
	g.inSync(t)
	p.stall()
	stalled := time.Now()
	g.exec(t, insert)
	g.saysWhy(t, "source:")
	if took := time.Since(stalled); took > 15*time.Second {
		t.Errorf("said after %s", took)
	}
	p.resume()
	g.agree(t)
	g.inSync(t)
}
