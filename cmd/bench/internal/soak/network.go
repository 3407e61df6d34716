package soak

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"syscall"
	"time"

	toxiproxy "github.com/Shopify/toxiproxy/v2"
	"github.com/rs/zerolog"
)

// network is every connection between daemons and servers: one proxy for each pair.
type network struct {
	api   *toxiproxy.ApiServer
	ways  [][]*way // of daemon, server
	names []string // of the servers
}

// way is one pair's proxy. One fault at a time harms it (targets).
type way struct {
	api   *toxiproxy.ApiServer
	mu    sync.Mutex
	proxy *toxiproxy.Proxy
}

func newNetwork() *network {
	logger := zerolog.Nop()
	return &network{api: toxiproxy.NewServer(toxiproxy.NewMetricsContainer(nil), logger)}
}

// lead opens a proxy from listen (HOST:PORT; port 0 for any) to upstream and returns where it listens.
func (n *network) lead(daemon int, server, listen, upstream string) (string, error) {
	for len(n.ways) <= daemon {
		n.ways = append(n.ways, nil)
	}
	p := toxiproxy.NewProxy(n.api, fmt.Sprintf("%d-%s", daemon, server), listen, upstream)
	if err := p.Start(); err != nil {
		return "", fmt.Errorf("open a proxy to %s: %w", server, err)
	}
	n.ways[daemon] = append(n.ways[daemon], &way{api: n.api, proxy: p})
	if daemon == 0 {
		n.names = append(n.names, server)
	}
	return p.Listen, nil
}

// current is the proxy that serves now.
func (w *way) current() *toxiproxy.Proxy {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.proxy
}

// cut closes the connections and refuses new ones.
func (w *way) cut() { w.current().Stop() }

// reset closes the connections; new ones are welcome.
func (w *way) reset() error {
	w.cut()
	return w.restore()
}

// restore takes connections again. While the proxy did not listen, another program on this machine
// may have been given its port: it is waited for.
func (w *way) restore() error {
	for deadline := time.Now().Add(portPatience); ; {
		err := w.current().Start()
		switch {
		case err == nil, errors.Is(err, toxiproxy.ErrProxyAlreadyStarted):
			return nil
		case !errors.Is(err, syscall.EADDRINUSE) || time.Now().After(deadline):
			return fmt.Errorf("open the proxy again: %w", err)
		}
		<-time.After(portPatience / 600)
	}
}

// portPatience is how long a port of ours may be somebody else's: a test's server lives for seconds.
const portPatience = time.Minute

// silence lets nothing through, in the directions named, and closes nothing.
func (w *way) silence(streams ...string) error {
	return w.add(streams, `"type":"timeout","attributes":{"timeout":0}`)
}

// delay holds back what passes, both ways.
func (w *way) delay(d, jitter time.Duration) error {
	return w.add([]string{"upstream", "downstream"},
		fmt.Sprintf(`"type":"latency","attributes":{"latency":%d,"jitter":%d}`, d.Milliseconds(), jitter.Milliseconds()))
}

// truncate closes connections after so many bytes from the server: in the middle of an answer.
func (w *way) truncate(bytes int) error {
	return w.add([]string{"downstream"}, fmt.Sprintf(`"type":"limit_data","attributes":{"bytes":%d}`, bytes))
}

func (w *way) add(streams []string, toxic string) error {
	for _, stream := range streams {
		if _, err := w.current().Toxics.AddToxicJson(strings.NewReader(fmt.Sprintf(`{"name":%q,"stream":%q,"toxicity":1,%s}`, stream, stream, toxic))); err != nil {
			return fmt.Errorf("add a network fault: %w", err)
		}
	}
	return nil
}

// heal begins anew with a proxy that has no toxic. To take one out of the old proxy may take
// minutes: a connection lets go of it only when it has room for what was held back.
func (w *way) heal() error {
	w.cut()
	w.mu.Lock()
	old := w.proxy
	w.proxy = toxiproxy.NewProxy(w.api, old.Name, old.Listen, old.Upstream)
	w.mu.Unlock()
	return w.restore()
}

func (n *network) close() {
	for _, ways := range n.ways {
		for _, w := range ways {
			w.cut()
		}
	}
}
