package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"example.com/tiffin/cache"
	"example.com/tiffin/cdc"
	"example.com/tiffin/cmd/bench/internal/harness"
	"example.com/tiffin/cmd/bench/internal/testbed"
	"example.com/tiffin/internal/devstack"
)

// What the scenarios have in common whose source is a server of their own.
const (
	sourceDatabase = "source"
	maxWAL         = testbed.MaxWAL
)

func startSource(ctx context.Context, e *harness.Env, settings map[string]string) (*devstack.Postgres, error) {
	server, err := testbed.StartPostgres(ctx, e.Dir, settings)
	if err != nil {
		return nil, err
	}
	if err := server.CreateDatabase(ctx, sourceDatabase); err != nil {
		return nil, errors.Join(err, server.Close())
	}
	return server, nil
}

// follower is the daemon's side of the source database in this process: index and reader.
type follower struct {
	source *cdc.Source
	index  *cache.Index
	reader *cdc.Reader
	stop   context.CancelFunc
	done   chan error
}

// follow starts and waits until everything is in sync.
func follow(ctx context.Context, server *devstack.Postgres, slot string, budget int64) (*follower, error) {
	cfg := cdc.Config{
		DSN: server.DSN(sourceDatabase), Table: "public.subscribers_restaurants", Publication: "tiffin", Slot: slot,
		Log: slog.New(slog.DiscardHandler),
	}
	f := &follower{done: make(chan error, 1)}
	var err error
	if f.source, err = cdc.NewSource(cfg); err != nil {
		return nil, err
	}
	if f.index, err = cache.New(cache.Config{Budget: budget}, f.source); err != nil {
		return nil, err
	}
	if f.reader, err = cdc.New(cfg, f.source, f.index); err != nil {
		return nil, err
	}
	running, stop := context.WithCancel(ctx)
	f.stop = stop
	go func() { f.done <- f.reader.Run(running) }()
	return f, f.ready(ctx)
}

// ready waits until there is no reason not to be in sync.
func (f *follower) ready(ctx context.Context) error {
	ticker := time.NewTicker(time.Millisecond)
	defer ticker.Stop()
	timer := time.NewTimer(harness.Patience)
	defer timer.Stop()
	for len(f.reader.Reasons()) > 0 {
		select {
		case err := <-f.done:
			f.done <- nil
			return fmt.Errorf("the reader ended: %w", err)
		case <-timer.C:
			return fmt.Errorf("not in sync after %v: %v", harness.Patience, f.reader.Reasons())
		case <-ctx.Done():
			return errors.Join(ctx.Err(), fmt.Errorf("not in sync: %v", f.reader.Reasons()))
		case <-ticker.C:
		}
	}
	return nil
}

func (f *follower) close() error {
	f.stop()
	err := <-f.done
	f.index.Close()
	f.source.Close()
	return err
}
