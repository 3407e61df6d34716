// Package httpd serves the daemon's probes and metrics. It answers from the moment Listen
// returns, so that a daemon that still waits for a server can be asked what for.
//
// Run owns the goroutine that accepts and the page's; the handlers run on goroutines of net/http,
// all of which have ended when Run returns.
package httpd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"example.com/tiffin/cmd/internal/livepage"
)

// Readiness tells why the daemon is not ready; it is called for every probe, from several
// goroutines at once, and must not wait.
type Readiness interface {
	Reasons() []string  // empty: ready
	Progress() []string // what takes its time, a line each
	Hangs() []string    // what shows no sign of life; empty: the process works
}

// Config is what a Server serves, and where.
type Config struct {
	// Listen is HOST:PORT; port 0 takes a free one.
	Listen    string
	Readiness Readiness
	Gatherer  prometheus.Gatherer
	Version   string
	Log       *slog.Logger
	// Auditor answers POST /audit; nil for no such endpoint.
	Auditor Auditor
	// Manifest answers the page's questions about campaigns; nil for a page without any.
	Manifest livepage.Manifest
	// Sinks tells the page how far both sinks are; nil for a page that does not say.
	Sinks livepage.Sinks
}

// Server is the endpoint of one daemon.
type Server struct {
	cfg      Config
	page     *livepage.Page
	listener net.Listener
	server   *http.Server
	auditing atomic.Bool // one at a time
}

// The limits keep a stalled client from holding a connection for ever. Nobody sends a body;
// the slowest answer is /metrics, a few hundred lines.
const (
	headerLimit = 5 * time.Second
	answerLimit = 30 * time.Second
	idleLimit   = 2 * time.Minute
	stopLimit   = 3 * time.Second // for answers under way when asked to stop
)

// Listen takes the address, so that a daemon whose address is in use ends before it touches
// anything. Close or Run must follow.
func Listen(ctx context.Context, cfg Config) (*Server, error) {
	if cfg.Readiness == nil || cfg.Gatherer == nil || cfg.Log == nil {
		return nil, errors.New("http endpoint: readiness, gatherer and logger are needed")
	}
	page, err := livepage.New(livepage.Config{
		Readiness: cfg.Readiness, Gatherer: cfg.Gatherer, Version: cfg.Version, Log: cfg.Log, Manifest: cfg.Manifest, Sinks: cfg.Sinks,
		Private: private,
	})
	if err != nil {
		return nil, err
	}
	var lc net.ListenConfig
	listener, err := lc.Listen(ctx, "tcp", cfg.Listen)
	if err != nil {
		return nil, fmt.Errorf("http endpoint: %w: set http.listen to a free address, or to off", err)
	}
	s := &Server{cfg: cfg, page: page, listener: listener}
	routes, err := s.routes()
	if err != nil {
		return nil, errors.Join(err, listener.Close())
	}
	s.server = &http.Server{
		Handler:           routes,
		ReadHeaderTimeout: headerLimit,
		ReadTimeout:       answerLimit,
		WriteTimeout:      answerLimit,
		IdleTimeout:       idleLimit,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(cfg.Log.Handler(), slog.LevelDebug),
	}
	return s, nil
}

// Addr is the address that was taken.
func (s *Server) Addr() net.Addr { return s.listener.Addr() }

// Close gives the address back without having served.
func (s *Server) Close() error { return s.listener.Close() }

// Run serves until ctx is done, lets the answers under way finish, and returns nil.
func (s *Server) Run(ctx context.Context) error {
	// An audit ends when the daemon is asked to stop, and so does the page's stream of events;
	// other answers may finish.
	s.server.BaseContext = func(net.Listener) context.Context { return ctx }
	figures, stopFigures := context.WithCancel(ctx)
	drawn := make(chan struct{})
	go func() { defer close(drawn); s.page.Run(figures) }()
	defer func() { stopFigures(); <-drawn }()
	served := make(chan error, 1)
	go func() { served <- s.server.Serve(s.listener) }()
	select {
	case err := <-served:
		return fmt.Errorf("http endpoint %s: %w", s.Addr(), err)
	case <-ctx.Done():
	}
	stopping, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopLimit)
	defer cancel()
	if err := s.server.Shutdown(stopping); err != nil {
		s.cfg.Log.Debug("http endpoint stopped with answers under way", "err", err)
		_ = s.server.Close() // its error is Shutdown's
	}
	if err := <-served; !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("http endpoint %s: %w", s.Addr(), err)
	}
	return nil
}

func (s *Server) routes() (http.Handler, error) {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /livez", s.livez)
	mux.HandleFunc("GET /readyz", s.readyz)
	mux.Handle("GET /metrics", promhttp.HandlerFor(s.cfg.Gatherer, promhttp.HandlerOpts{
		ErrorHandling:       promhttp.ContinueOnError,
		MaxRequestsInFlight: 4,
		Timeout:             answerLimit / 2,
	}))
	s.profiles(mux)
	if err := s.page.Routes(mux); err != nil {
		return nil, err
	}
	if s.cfg.Auditor != nil {
		mux.Handle("POST /audit", http.NewCrossOriginProtection().Handler(http.HandlerFunc(s.audit)))
	}
	return mux, nil
}

// state is the body of both probes (INTERFACE: Endpoints).
type state struct {
	Ready    bool     `json:"ready"`
	Reasons  []string `json:"reasons"`
	Progress []string `json:"progress,omitempty"`
}

// livez answers 503 when something hangs, which only a restart can help: its reasons are then what
// hangs. Not being ready is no fault of the process.
func (s *Server) livez(w http.ResponseWriter, _ *http.Request) {
	if hangs := s.cfg.Readiness.Hangs(); len(hangs) > 0 {
		s.answer(w, http.StatusServiceUnavailable, hangs)
		return
	}
	s.answer(w, http.StatusOK, s.cfg.Readiness.Reasons())
}

func (s *Server) readyz(w http.ResponseWriter, _ *http.Request) {
	s.answer(w, http.StatusServiceUnavailable, s.cfg.Readiness.Reasons())
}

// answer writes the state; unready is the status when there are reasons.
func (s *Server) answer(w http.ResponseWriter, unready int, reasons []string) {
	status := http.StatusOK
	if len(reasons) > 0 {
		status = unready
	} else {
		reasons = []string{} // [], not null
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	encoder := json.NewEncoder(w)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(state{Ready: len(reasons) == 0, Reasons: reasons, Progress: s.cfg.Readiness.Progress()}); err != nil {
		s.cfg.Log.Debug("probe not answered", "err", err)
	}
}
