// Package demo shows the whole system at work in one process: a broker in memory, a throwaway
// Postgres, a table of subscribers that keeps changing, a stream of campaigns and the daemon.
//
// Run owns every goroutine. Its one rule: what is shown is measured from outside, by reading the
// output topic and the feedback table as any consumer would; only freshness comes from the
// daemon's metrics.
package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"example.com/tiffin/cmd/internal/daemon"
	"example.com/tiffin/cmd/internal/httpd"
	"example.com/tiffin/internal/devstack"
)

// Options are what the command was told.
type Options struct {
	Out        io.Writer
	Terminal   bool          // the summary refreshes itself in place; otherwise lines are added
	Log        *slog.Logger  // of the daemon
	Version    string        // of this program
	For        time.Duration // how long to run; 0: until ctx ends
	BrokerPort int           // of the broker; 0: any free one
	Campaigns  float64       // campaigns a second, above 0
	Changes    float64       // subscription changes a second besides those that go with campaigns, above 0
}

// drainLimit bounds the wait for what is on its way when the demo ends.
const drainLimit = 15 * time.Second

// ErrDisagree is returned when the demo ends and something promised was not so.
var ErrDisagree = errors.New("what was promised and what was found differ")

// Run shows the system until ctx ends or Options.For has passed, lets it finish what is on its way,
// compares both sinks row for row and removes everything. It returns nil only if they agree.
func Run(ctx context.Context, o Options) (err error) {
	begun := time.Now()
	_, _ = fmt.Fprintln(o.Out, "starting a broker in memory, a throwaway Postgres and the daemon ...") // as in painter.show
	w, err := newWorld(ctx, o)
	if err != nil {
		if ctx.Err() != nil {
			return nil // asked to stop before anything began
		}
		return err
	}
	defer func() { err = errors.Join(err, w.close()) }()
	s := &show{options: o, world: w, begun: begun, promises: newPromises(), registry: httpd.NewRegistry(o.Version)}
	return s.run(ctx)
}

// show is one run of the demo.
type show struct {
	options  Options
	world    *world
	begun    time.Time
	promises *promises
	registry *prometheus.Registry
	topic    *topic
	table    *table
	endpoint string // of the daemon; empty before it is taken
}

// run has three circles, which end from the inside out: those who change and publish, the daemon
// that serves them, and those who watch.
func (s *show) run(ctx context.Context) error {
	outer, stopOuter := context.WithCancel(context.WithoutCancel(ctx))
	defer stopOuter()
	var err error
	if s.topic, err = openTopic(s.world, s.promises); err != nil {
		return err
	}
	defer s.topic.close()
	if s.table, err = openTable(outer, s.world); err != nil {
		return err
	}
	defer s.table.close()

	group, outer := errgroup.WithContext(outer)
	daemonContext, stopDaemon := context.WithCancel(outer)
	defer stopDaemon()
	ready, address := make(chan struct{}), make(chan net.Addr, 1)
	stopped := make(chan struct{})
	group.Go(func() error {
		defer close(stopped)
		return s.serve(daemonContext, ready, address)
	})
	group.Go(func() error { return s.topic.follow(outer) })
	group.Go(func() error {
		defer stopOuter()
		if err := s.perform(ctx, outer, ready, address); err != nil {
			return err
		}
		stopDaemon()
		<-stopped
		return s.verdict(outer)
	})
	return group.Wait()
}

func (s *show) serve(ctx context.Context, ready chan struct{}, address chan<- net.Addr) error {
	err := daemon.Run(ctx, daemon.Options{
		Settings: s.world.settings, Log: s.options.Log, Version: s.options.Version, Registry: s.registry,
		Started: func(a net.Addr) { address <- a }, Ready: func() { close(ready) },
	})
	if err != nil {
		return fmt.Errorf("the daemon: %w", err)
	}
	return nil
}

// perform changes and publishes until asked ends, then waits until all that was published is in
// both sinks. ctx ends when a part has failed.
func (s *show) perform(asked, ctx context.Context, ready <-chan struct{}, address <-chan net.Addr) error {
	select {
	case <-ready:
		s.endpoint = "http://" + (<-address).String()
	case <-asked.Done():
		return nil
	case <-ctx.Done():
		return nil
	}
	acting, stop := context.WithCancel(ctx)
	defer stop()
	defer context.AfterFunc(asked, stop)()
	if s.options.For > 0 {
		timer := time.AfterFunc(s.options.For, stop)
		defer timer.Stop()
	}
	group, inner := errgroup.WithContext(acting)
	group.Go(func() error { return s.publish(inner) })
	group.Go(func() error { return s.change(inner) })
	group.Go(func() error { return s.refresh(inner) })
	if err := group.Wait(); err != nil && acting.Err() == nil {
		return err
	}
	return s.drain(ctx)
}

// drain waits until every campaign in the input topic is handled and both sinks have as many, or
// until nothing has moved for a while: then the verdict will tell.
func (s *show) drain(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, drainLimit)
	defer cancel()
	const pause, patience = 50 * time.Millisecond, 60 // pauses without a movement: 3 s
	ticker := time.NewTicker(pause)
	defer ticker.Stop()
	var last counts
	for quiet := 0; quiet < patience; quiet++ {
		now, err := s.count(ctx)
		if err == nil && now.handled >= now.published && now.records == now.rows {
			return nil
		}
		if err != nil || now != last {
			last, quiet = now, 0
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
	return nil
}

// verdict compares both sinks as they are, with the daemon gone.
func (s *show) verdict(ctx context.Context) error {
	counts, err := s.count(ctx)
	if err != nil {
		return err
	}
	// What the follower has not come to yet counts as well.
	table, topic, err := s.world.fingerprints(ctx, func(d devstack.Delivery) { s.promises.delivered(d.CampaignID, d.Client) })
	if err != nil {
		return err
	}
	kept := s.promises.tally()
	equal := table.Equal(topic) && counts.handled >= counts.published
	_, _ = fmt.Fprint(s.options.Out, farewell(counts, table.Count, topic.Count, equal, kept)) // as in painter.show
	switch {
	case !equal:
		return fmt.Errorf("%w: %d of %d campaigns handled, %d records, %d rows", ErrDisagree, counts.handled, counts.published, topic.Count, table.Count)
	case kept.missed > 0 || kept.stale > 0:
		return fmt.Errorf("%w: %d clients just subscribed were missed, %d just removed were served", ErrDisagree, kept.missed, kept.stale)
	}
	return nil
}
