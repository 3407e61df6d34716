// Package daemon wires the parts of tiffin to one process: the source database's reader feeds
// the index, the stream joins campaigns with it, the endpoint tells how they are.
//
// Run starts and ends every goroutine: the reader's, the stream's, the endpoint's and the one
// that logs readiness. Its one rule: the parts stop in the order in which they need each
// other. The stream finishes the batch in hand while the reader still answers its fences.
package daemon

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"example.com/tiffin/cdc"
	"example.com/tiffin/cmd/internal/httpd"
	"example.com/tiffin/cmd/internal/settings"
	"example.com/tiffin/stream"
)

// Options are what one run of the daemon is told.
type Options struct {
	Settings *settings.Settings
	Log      *slog.Logger
	Version  string
	// UntilNow ends Run once everything that the input topic held at the start is handled.
	UntilNow bool
	// LedgerBehind says what to do when Kafka is ahead of the ledger; empty means stop.
	LedgerBehind stream.LedgerBehind
	// InputReset says what to do when the input topic's offsets began anew; empty means stop.
	InputReset stream.InputReset
	// Registry receives the metrics; nil for one of Run's own. It serves one Run.
	Registry *prometheus.Registry
	// Started, if any, is told the endpoint's address once it is taken; nil without endpoint.
	Started func(endpoint net.Addr)
	// Ready, if any, is called once, when the daemon is first ready.
	Ready func()
	// Notify, if any, is told each change of state as a service manager wants it (sd_notify(3)). It
	// must not wait.
	Notify func(state string)

	spoil func(cdc.Index) cdc.Index // a test's way to lose what an audit must find
	now   func() time.Time          // by which one hangs; nil for time.Now
}

// errFinished ends the group when the stream has nothing more to do.
var errFinished = errors.New("the stream has finished")

// Run is the daemon. It returns nil when ctx ended it or, with UntilNow, when all is handled;
// an error names what does not mend by waiting. Until a server answers, Run waits for it, and
// the endpoint says so.
func Run(ctx context.Context, o Options) error {
	o.Log = limitRepeats(o.Log)
	registry := o.Registry
	if registry == nil {
		registry = httpd.NewRegistry(o.Version)
	}
	ready := &readiness{now: o.now}
	if ready.now == nil {
		ready.now = time.Now
	}
	ready.register(registry)
	audits := &audits{}
	sinks, err := newSinks(ctx, o.Settings)
	if err != nil {
		return err
	}
	defer sinks.close()
	endpoint, err := listen(ctx, o, ready, audits, sinks, registry)
	if err != nil {
		return err
	}
	tracing, err := newTracing(ctx, o)
	if err != nil {
		closeEndpoint(endpoint)
		return err
	}
	defer tracing.close(ctx)
	parts, err := build(o, registry, ready, tracing.tracer)
	if err != nil {
		closeEndpoint(endpoint)
		return err
	}
	defer parts.close()
	audits.of.Store(parts)
	o.Log.Info("starting", "version", o.Version)
	o.Log.Debug("settings", "settings", o.Settings)
	return parts.run(ctx, o, endpoint)
}

func listen(ctx context.Context, o Options, ready *readiness, audits *audits, sinks *sinks, registry *prometheus.Registry) (*httpd.Server, error) {
	if o.Settings.HTTP.Listen == "" {
		if o.Started != nil {
			o.Started(nil)
		}
		return nil, nil //nolint:nilnil // no endpoint is asked for
	}
	endpoint, err := httpd.Listen(ctx, httpd.Config{
		Listen: o.Settings.HTTP.Listen, Readiness: ready, Gatherer: registry, Version: o.Version, Log: o.Log,
		Auditor: audits, Manifest: sinks.manifest, Sinks: sinks,
	})
	if err != nil {
		return nil, err
	}
	o.Log.Info("endpoint", "http", endpoint.Addr().String())
	if o.Started != nil {
		o.Started(endpoint.Addr())
	}
	return endpoint, nil
}

func closeEndpoint(endpoint *httpd.Server) {
	if endpoint != nil {
		_ = endpoint.Close() // nothing was served, nothing is lost
	}
}

// run lets the parts work until ctx ends, one of them fails or the stream has finished.
func (p *parts) run(ctx context.Context, o Options, endpoint *httpd.Server) error {
	// What the stream leans on outlives it: a part's own context ends only when the stream
	// is done.
	support, stopSupport := context.WithCancel(context.WithoutCancel(ctx))
	defer stopSupport()
	group, support := errgroup.WithContext(support)

	streaming, stopStream := context.WithCancel(ctx)
	defer stopStream()
	defer context.AfterFunc(support, stopStream)() // a part has failed: stop the stream too

	if endpoint != nil {
		group.Go(func() error { return endpoint.Run(support) })
	}
	group.Go(func() error { return p.reader.Run(support) })
	group.Go(func() error { return p.watch(support, o) })
	group.Go(func() error {
		if err := p.stream(streaming); err != nil {
			return err
		}
		return errFinished
	})
	group.Go(func() error { p.announceStop(ctx, support, o); return nil })
	if err := group.Wait(); err != nil && !errors.Is(err, errFinished) {
		if !p.wasReady {
			err = errors.Join(err, p.reader.Abandon(context.WithoutCancel(ctx)))
		}
		return err
	}
	o.Log.Info("stopped")
	return nil
}

// announceStop says that the daemon was asked to stop, at once: what is in hand takes its time.
func (p *parts) announceStop(asked, support context.Context, o Options) {
	select {
	case <-asked.Done():
		p.ready.stop()
		o.Log.Info("stopping")
		o.noticeStop()
	case <-support.Done():
	}
}

// stream runs the engine until it has finished or ctx ends.
func (p *parts) stream(ctx context.Context) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	p.feedback.stop = stop
	if err := p.engine.Run(ctx); err != nil {
		return err
	}
	return p.feedback.verdict
}

// Readiness is looked at often enough for a log line to be of use, and repeated as rarely as
// everything else.
const (
	watchEvery  = time.Second
	firstAfter  = 10 * time.Second // a start that goes well is over by then
	repeatEvery = repeatSpan
)

// watch logs when readiness is reached and lost, and repeats the reasons while it is missing.
func (p *parts) watch(ctx context.Context, o Options) error {
	ticker := time.NewTicker(watchEvery)
	defer ticker.Stop()
	was := false
	now := time.Now()
	told := now.Add(firstAfter - repeatEvery)
	manager := notices{tell: o.Notify}
	for {
		reasons := p.ready.Reasons()
		hangs := p.ready.Hangs()
		manager.look(reasons, hangs)
		if len(hangs) > 0 {
			o.Log.Error("a part of the daemon hangs: only a restart can help", "hangs", strings.Join(hangs, "; "))
		}
		is := len(reasons) == 0
		switch {
		case is && !was:
			o.Log.Info("ready")
			if !p.wasReady && o.Ready != nil {
				o.Ready()
			}
			p.wasReady = true
		case !is && (was || now.Sub(told) >= repeatEvery) && ctx.Err() == nil:
			o.Log.Warn("not ready", "reasons", strings.Join(reasons, "; "))
			told = now
		}
		was = is
		select {
		case <-ctx.Done():
			return nil
		case now = <-ticker.C:
		}
	}
}
