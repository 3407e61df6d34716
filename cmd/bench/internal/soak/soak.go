package soak

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sync/errgroup"
)

// Config says what a soak is to be.
type Config struct {
	Program string        // tiffin
	Dir     string        // where the run's directory is made; empty: the system's for temporary files
	Seed    uint64        // of the changes, the campaigns and the faults
	Kills   int           // after so many it ends; 0: For counts alone
	For     time.Duration // after so long it ends; 0: Kills counts alone
	Pace    time.Duration // from kill to kill, on average; 0: 2 s. More often, and all three brokers are away for minutes
	// Say is told what happens, from several goroutines.
	Say func(format string, args ...any)
}

// roundKills is after how many kills everything is healed, and must be delivered within a bound.
const roundKills = 25

// run is one soak.
type run struct {
	cfg    Config
	world  *world
	random func(part uint64) *rand.Rand
	say    func(format string, args ...any)

	history   *history
	publisher *publisher
	writer    *writer

	begun  time.Time
	kills  atomic.Int64
	others atomic.Int64
	drains []time.Duration
}

// Run soaks, and reports what it found; an error says that it could not be judged. The directory
// with all logs is removed unless something was wrong.
func Run(ctx context.Context, cfg Config) (report *Report, err error) {
	if cfg.Pace == 0 {
		cfg.Pace = 2 * time.Second
	}
	dir, err := os.MkdirTemp(cfg.Dir, "tiffin-soak-")
	if err != nil {
		return nil, fmt.Errorf("make a directory: %w", err)
	}
	if err := os.Chmod(dir, 0o755); err != nil { //nolint:gosec // the servers' accounts must enter it
		return nil, fmt.Errorf("open the directory: %w", err)
	}
	logs, err := os.Create(filepath.Join(dir, "soak.log")) //nolint:gosec // the name is ours
	if err != nil {
		return nil, fmt.Errorf("make a log: %w", err)
	}
	defer func() {
		_ = logs.Close() // a courtesy
		switch {
		case err != nil:
			err = fmt.Errorf("%w\nseed %d; the logs are kept in %s", err, cfg.Seed, dir)
		case !report.OK():
			report.Told = append(report.Told, fmt.Sprintf("seed %d; the logs are kept in %s", cfg.Seed, dir))
		default:
			err = os.RemoveAll(dir)
		}
	}()
	r := newRun(cfg, logs)
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	r.say("seed %d, logs in %s", cfg.Seed, dir)
	if r.world, err = newWorld(ctx, dir, cfg.Program, fail); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, r.world.close()) }()
	report, err = r.soak(ctx)
	if cause := context.Cause(ctx); err != nil && cause != nil {
		err = cause // what came of it says less
	}
	return report, err
}

func newRun(cfg Config, logs io.Writer) *run {
	r := &run{cfg: cfg, history: newHistory(), begun: time.Now()}
	r.random = func(part uint64) *rand.Rand { return rand.New(rand.NewPCG(cfg.Seed, part)) } //nolint:gosec // it must be repeatable
	var mu sync.Mutex
	r.say = func(format string, args ...any) {
		line := fmt.Sprintf(format, args...)
		cfg.Say("%s", line)
		mu.Lock()
		defer mu.Unlock()
		_, _ = fmt.Fprintf(logs, "%s %7.1fs  %s\n", time.Now().UTC().Format(time.RFC3339Nano), time.Since(r.begun).Seconds(), line)
	}
	return r
}

// soak prepares, lets everything run and die, and judges.
func (r *run) soak(ctx context.Context) (*Report, error) {
	if err := r.prepare(ctx); err != nil {
		return nil, err
	}
	defer r.publisher.client.Close()
	if err := r.live(ctx); err != nil {
		return nil, err
	}
	r.say("%d kills and %d other faults are over; everything must be delivered now", r.kills.Load(), r.others.Load())
	if err := r.drain(ctx); err != nil {
		return nil, err
	}
	// Who was frozen until a moment ago may not know yet what it lost: it, too, is well before it is asked to stop.
	if err := r.ready(ctx); err != nil {
		return nil, err
	}
	for _, d := range r.world.daemons {
		if err := d.stop(true); err != nil {
			return nil, err
		}
	}
	return r.judge(ctx)
}

// prepare fills the table, starts the daemons and waits for them.
func (r *run) prepare(ctx context.Context) error {
	book, large := newBook(r.random(1))
	log := slog.New(slog.NewTextHandler(&sayWriter{r.say}, nil))
	r.writer = &writer{
		dsn: r.world.source.DSN(sourceDatabase), random: r.random(2), book: book, history: r.history, pause: 15 * time.Millisecond, log: log,
	}
	client, err := kgo.NewClient(kgo.SeedBrokers(r.world.kafka.PlainBrokers()...), kgo.DefaultProduceTopic(inputTopic), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		return fmt.Errorf("publish: %w", err)
	}
	r.publisher = &publisher{
		client: client, random: r.random(3), pause: 80 * time.Millisecond, partitions: partitions, book: book.restaurants[2:], large: large, log: r.say,
	}
	if err := r.writer.transact(ctx, book.fill(r.random(4))); err != nil {
		return err
	}
	if err := r.world.startDaemons(); err != nil {
		return err
	}
	if err := r.ready(ctx); err != nil {
		return err
	}
	r.say("%d brokers, two Postgres servers and %d daemons are ready", brokers, daemons)
	return nil
}

// live lets changes, campaigns and faults go on until there were enough faults.
func (r *run) live(ctx context.Context) error {
	traffic, stop := context.WithCancel(ctx)
	defer stop()
	parts, traffic := errgroup.WithContext(traffic)
	parts.Go(func() error { return r.writer.run(traffic) })
	parts.Go(func() error { return r.publisher.run(traffic) })
	parts.Go(func() error { r.users(traffic); return nil })
	parts.Go(func() error { r.progress(traffic); return nil })
	parts.Go(func() error {
		defer stop()
		return r.harm(traffic)
	})
	return parts.Wait()
}

// harm makes faults in rounds; after each everything is healed and must come through.
func (r *run) harm(ctx context.Context) error {
	c := &chaos{random: r.random(5), pace: r.cfg.Pace}
	for !r.enough() {
		if err := r.round(ctx, c); err != nil {
			return err
		}
		if err := r.drain(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (r *run) enough() bool {
	kills := int(r.kills.Load())
	return r.cfg.Kills > 0 && kills >= r.cfg.Kills || r.cfg.For > 0 && time.Since(r.begun) >= r.cfg.For
}

func (r *run) round(ctx context.Context, c *chaos) error {
	t := &targets{busy: map[string]chan struct{}{}}
	faults, ctx := errgroup.WithContext(ctx)
	until := r.kills.Load() + roundKills
	for r.kills.Load() < until && !r.enough() && ctx.Err() == nil {
		f := c.next()
		if !wait(ctx, f.after) {
			break
		}
		release, ok := t.take(ctx, f.target)
		if !ok {
			break
		}
		r.say("%s, for %v", f.what, f.last.Round(time.Millisecond))
		end, err := f.begin(ctx, r.world)
		if err != nil {
			release()
			faults.Go(func() error { return fmt.Errorf("%s: %w", f.what, err) })
			break
		}
		if f.kill {
			r.kills.Add(1)
		} else {
			r.others.Add(1)
		}
		faults.Go(func() error {
			defer release()
			wait(ctx, f.last)
			if err := end(context.WithoutCancel(ctx)); err != nil {
				return fmt.Errorf("end of: %s: %w", f.what, err)
			}
			return nil
		})
	}
	return faults.Wait()
}

type sayWriter struct{ say func(string, ...any) }

func (w *sayWriter) Write(b []byte) (int, error) {
	w.say("%s", string(b[:max(0, len(b)-1)]))
	return len(b), nil
}
