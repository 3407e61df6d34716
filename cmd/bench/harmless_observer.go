package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
)

// observeEvery is often enough for the locks of a snapshot read of a second.
const observeEvery = 100 * time.Millisecond

// observer looks at the source server from outside until it is closed. Its goroutine owns the
// connection.
type observer struct {
	conn   *pgx.Conn
	begun  time.Time
	frozen atomic.Bool // what is held back now is not the daemon's doing
	stop   context.CancelFunc
	done   chan error

	mu  sync.Mutex
	saw observed

	// Of the goroutine.
	holding map[int32]time.Time // since when a session has a lock on the table
	copying time.Time           // since when a snapshot is read; zero: none is
	idle    map[int32]bool      // had a lock at the last look, when no snapshot was read
}

// observed is the account.
type observed struct {
	looks            int
	points           [][2]float64 // seconds, bytes
	running, frozen  int64        // most bytes held back
	strong, late     int
	longest, reading time.Duration
}

func observe(ctx context.Context, dsn string, begun time.Time) (*observer, error) {
	conn, err := pgx.Connect(ctx, dsn)
	if err != nil {
		return nil, fmt.Errorf("connect to observe the source: %w", err)
	}
	ctx, stop := context.WithCancel(ctx)
	o := &observer{conn: conn, begun: begun, stop: stop, done: make(chan error, 1), holding: map[int32]time.Time{}, idle: map[int32]bool{}}
	go func() { o.done <- o.watch(ctx) }()
	return o, nil
}

func (o *observer) close(ctx context.Context) error {
	o.stop()
	return errors.Join(<-o.done, o.conn.Close(ctx))
}

// account may be asked for at any time.
func (o *observer) account() observed {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.saw
}

func (o *observer) watch(ctx context.Context) error {
	ticker := time.NewTicker(observeEvery)
	defer ticker.Stop()
	for {
		if err := o.look(ctx); err != nil && ctx.Err() == nil {
			return fmt.Errorf("observe the source: %w", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

// What every slot of the server holds back, whether the daemon's role reads a snapshot, and which
// locks on the table its sessions hold. A lost slot holds back nothing: its restart_lsn is null.
const (
	slotsSQL   = "SELECT coalesce(max(pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn)), 0)::bigint FROM pg_replication_slots"
	copyingSQL = "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE usename = '" + sourceRole + "' AND state = 'active' AND query LIKE 'COPY%')"
	locksSQL   = `SELECT l.pid, l.mode FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid
		WHERE a.usename = '` + sourceRole + `' AND l.relation = 'subscribers_restaurants'::regclass`
)

func (o *observer) look(ctx context.Context) error {
	now := time.Now()
	var retained int64
	var copying bool
	if err := o.conn.QueryRow(ctx, slotsSQL).Scan(&retained); err != nil {
		return err
	}
	rows, err := o.conn.Query(ctx, locksSQL)
	if err != nil {
		return err
	}
	locks := map[int32]string{}
	var pid int32
	var mode string
	if _, err := pgx.ForEachRow(rows, []any{&pid, &mode}, func() error { locks[pid] = mode; return nil }); err != nil {
		return err
	}
	if err := o.conn.QueryRow(ctx, copyingSQL).Scan(&copying); err != nil {
		return err
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.saw.looks++
	o.saw.points = append(o.saw.points, [2]float64{now.Sub(o.begun).Seconds(), float64(retained)})
	if o.frozen.Load() {
		o.saw.frozen = max(o.saw.frozen, retained)
	} else {
		o.saw.running = max(o.saw.running, retained)
	}
	o.noteLocks(now, locks, copying)
	return nil
}

// noteLocks keeps account of one look. A lock at one look alone may be a catalog question's, which
// takes microseconds.
func (o *observer) noteLocks(now time.Time, locks map[int32]string, copying bool) {
	switch {
	case copying && o.copying.IsZero():
		o.copying = now
	case !copying:
		o.copying = time.Time{}
	}
	if copying {
		o.saw.reading = max(o.saw.reading, now.Sub(o.copying)+observeEvery)
	}
	idle := map[int32]bool{}
	for pid, mode := range locks {
		if mode != "AccessShareLock" {
			o.saw.strong++
		}
		since, held := o.holding[pid]
		if !held {
			since = now
			o.holding[pid] = now
		}
		o.saw.longest = max(o.saw.longest, now.Sub(since)+observeEvery)
		if !copying {
			idle[pid] = true
			if o.idle[pid] {
				o.saw.late++
			}
		}
	}
	for pid := range o.holding {
		if _, still := locks[pid]; !still {
			delete(o.holding, pid)
		}
	}
	o.idle = idle
}

// mostBetween is the most that was held back between two moments since the beginning.
func (s observed) mostBetween(from, to time.Duration) (most float64) {
	for _, p := range s.points {
		if p[0] >= from.Seconds() && p[0] < to.Seconds() {
			most = max(most, p[1])
		}
	}
	return most
}

// thinned keeps the highest point of each of n stretches of time.
func thinned(points [][2]float64, n int) [][2]float64 {
	if len(points) == 0 {
		return nil
	}
	width := (points[len(points)-1][0] + 1e-9) / float64(n)
	var kept [][2]float64
	last := -1
	for _, p := range points {
		if at := min(int(p[0]/width), n-1); at != last {
			last = at
			kept = append(kept, p)
		} else if p[1] > kept[len(kept)-1][1] {
			kept[len(kept)-1] = p
		}
	}
	return kept
}

// textPlot draws points over time with a line at the budget.
func textPlot(points [][2]float64, budget float64) []string {
	const wide, high = 96, 10
	top := budget
	for _, p := range points {
		top = max(top, p[1])
	}
	columns := make([]float64, wide)
	end := points[len(points)-1][0] + 1e-9
	for _, p := range points {
		at := int(p[0] / end * wide)
		columns[at] = max(columns[at], p[1])
	}
	var lines []string
	for row := high; row >= 1; row-- {
		floor, above := top*(float64(row)-0.5)/high, top*(float64(row)+0.5)/high
		var line strings.Builder
		for _, v := range columns {
			switch {
			case v >= floor:
				line.WriteByte('#')
			case budget >= floor && budget < above:
				line.WriteByte('-')
			default:
				line.WriteByte(' ')
			}
		}
		lines = append(lines, fmt.Sprintf("%6.0f MiB |%s", top*float64(row)/high/(1<<20), strings.TrimRight(line.String(), " ")))
	}
	return append(lines, fmt.Sprintf("           +%s %.0f s; - is the budget", strings.Repeat("-", wide), end))
}
