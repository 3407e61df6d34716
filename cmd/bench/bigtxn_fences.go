package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"example.com/tiffin/cache"
	"example.com/tiffin/cdc"
	"example.com/tiffin/cmd/bench/internal/harness"
)

// The phases of a large transaction, as fences meet them.
const (
	beforeIt = iota
	besideOpen
	behindCommit
	bigPhases
)

// fencesEvery is how often a fence is due, fencesBehind how often behind the commit, where all wait
// for the same, and fencesQuiet how long none has anything beside it.
const (
	fencesEvery  = 20 * time.Millisecond
	fencesBehind = 250 * time.Millisecond
	fencesQuiet  = time.Second
)

// bigFences commits small transactions at fixed times, and asks for a fence behind each, however long
// those before take: one that waits for the large transaction holds up no other.
type bigFences struct {
	reader *cdc.Reader
	index  *cache.Index
	small  *pgxpool.Pool

	mu    sync.Mutex
	phase int
	took  [bigPhases][]time.Duration
	err   error
}

// ask goes on until done, and returns when all that were asked for have passed.
func (f *bigFences) ask(ctx context.Context, done <-chan struct{}) error {
	ticker := time.NewTicker(fencesEvery)
	defer ticker.Stop()
	var waiting sync.WaitGroup
	var last time.Time
	for n := 0; ; n++ {
		select {
		case <-done:
			waiting.Wait()
			return f.err
		case due := <-ticker.C:
			if f.behind() && due.Sub(last) < fencesBehind {
				continue
			}
			last = due
			waiting.Go(func() { f.one(ctx, n) })
		}
	}
}

// one counts for the phase in which it ends: what began beside an open transaction and met its
// commit waits for that.
func (f *bigFences) one(ctx context.Context, n int) {
	client := "small client " + strconv.Itoa(n)
	_, err := f.small.Exec(ctx, "INSERT INTO subscribers_restaurants (id, restaurant_id, client_id) VALUES ($1, 'small', $2)", -1-n, client)
	committed := time.Now()
	if err == nil {
		_, err = f.reader.Wait(ctx)
	}
	took := time.Since(committed)
	f.mu.Lock()
	defer f.mu.Unlock()
	if err == nil && f.phase != behindCommit { // which may have changed it
		err = f.holds(ctx, client)
	}
	if err != nil {
		f.err = errors.Join(f.err, fmt.Errorf("a small transaction: %w", err))
		return
	}
	f.took[f.phase] = append(f.took[f.phase], took)
}

// holds asks whether a small transaction is in the index.
func (f *bigFences) holds(ctx context.Context, client string) error {
	recipients, err := f.index.Lookup(ctx, "small")
	if err != nil {
		return err
	}
	defer recipients.Release()
	for c := range recipients.Range(0, recipients.Len()) {
		if string(c) == client {
			return nil
		}
	}
	return fmt.Errorf("%w: %s is not there, though a fence passed behind its commit", harness.ErrDiffer, client)
}

func (f *bigFences) enter(phase int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.phase = phase
}

func (f *bigFences) behind() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.phase == behindCommit
}

// quiet lets fences pass with nothing beside them.
func (f *bigFences) quiet(ctx context.Context) error {
	select {
	case <-time.After(fencesQuiet):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (f *bigFences) add(to *harness.Result, in string) {
	for phase, name := range [bigPhases]string{"small transactions before it", "small transactions beside it, uncommitted", "small transactions behind its commit"} {
		if took := f.took[phase]; len(took) > 0 {
			to.Add(spreadFigures(in, name, spreadOf(took), spread{})...)
		}
	}
}
