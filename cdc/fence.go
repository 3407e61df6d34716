package cdc

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"example.com/tiffin/cache"
)

const (
	// replyAfter is how often a waiting fence asks for a keepalive. The one that comes by
	// itself takes 60 µs; asking in a tight loop starves the decoding (p99 85 ms).
	replyAfter = 5 * time.Millisecond
	// nudgeAfter is when a waiting fence writes a message into the log. The flushed position
	// may lie within a record whose end nobody flushes for a while; what flushes a commit
	// flushes that.
	nudgeAfter = 250 * time.Millisecond
	// patience is how long a fence asks every replyAfter; then a tenth as often.
	patience = time.Second
	// footingWait is how often a fence looks whether the index stands again: while there is
	// none, that asks the source nothing.
	footingWait = 50 * time.Millisecond
)

// Wait is the fence: when it returns, the index holds every transaction that the source had
// acknowledged before the call. It waits for as long as that takes, through reconnections
// and rebuilds; its error is ctx's, with the reason. With MaxStaleness it may return a mark
// that says Stale instead, while the source is unreachable. Safe for concurrent use; callers
// at the same time share one question to the source.
func (r *Reader) Wait(ctx context.Context) (cache.Mark, error) {
	if r.cfg.Fence == FenceOff {
		return cache.Mark{}, nil
	}
	started := r.cfg.Now()
	for attempt := 0; ; attempt++ {
		mark, err := r.raise(ctx)
		if err == nil {
			r.cfg.Metrics.fence.Observe(r.cfg.Now().Sub(started).Seconds())
			return mark, nil
		}
		if ctx.Err() != nil {
			return cache.Mark{}, fmt.Errorf("wait for the index to reach the source%s: %w", r.because(), ctx.Err())
		}
		if mark, ok := r.staleMark(); ok {
			return mark, nil
		}
		most := time.Second
		if errors.Is(err, errFooting) {
			most = footingWait
		}
		if !pause(ctx, backoff(attempt, 20*time.Millisecond, most, r.cfg.Rand)) {
			return cache.Mark{}, fmt.Errorf("wait for the index to reach the source (%w): %w", err, ctx.Err())
		}
	}
}

func (r *Reader) because() string {
	if reasons := r.Reasons(); len(reasons) > 0 {
		return " (" + strings.Join(reasons, "; ") + ")"
	}
	return ""
}

// errShut says that the index was forgotten while a fence waited: its position may be one of
// another history.
var errShut = errors.New("the index is loaded again")

// raise asks for the source's position and waits until the index is there.
func (r *Reader) raise(ctx context.Context) (cache.Mark, error) {
	asked, history, least := r.cfg.Now(), r.gate.history(), r.gate.position()
	lsn, err := r.asks.ask(ctx)
	if err != nil {
		if errors.Is(err, errFooting) {
			r.askWarden()
		}
		return cache.Mark{}, err
	}
	if lsn < least { // of another history: the next session sees it, too
		return cache.Mark{}, errShut
	}
	w := r.gate.enter(lsn, history)
	defer r.gate.leave(w)
	wait := time.NewTimer(replyAfter)
	defer wait.Stop()
	for nudged := false; ; {
		select {
		case <-w.passed:
			if w.shut {
				return cache.Mark{}, errShut
			}
			r.fresh(asked)
			return cache.Mark{LSN: lsn}, nil
		case <-ctx.Done():
			return cache.Mark{}, ctx.Err()
		case <-wait.C:
		}
		waited := r.cfg.Now().Sub(asked)
		if mark, ok := r.staleMark(); ok {
			return mark, nil
		}
		r.askReply()
		if waited > nudgeAfter && !nudged && r.state.inSync() {
			nudged = true
			if _, err := r.src.emitted(ctx); err != nil {
				return cache.Mark{}, err
			}
		}
		every := replyAfter
		if waited > patience {
			every *= 10
		}
		wait.Reset(every)
	}
}

// staleMark gives the mark of an index of bounded age when the operator chose that and the
// source is not there.
func (r *Reader) staleMark() (cache.Mark, bool) {
	if r.cfg.MaxStaleness <= 0 || r.state.inSync() || !r.state.isLoaded() {
		return cache.Mark{}, false
	}
	if r.cfg.Now().Sub(time.Unix(0, r.freshAt.Load())) > r.cfg.MaxStaleness {
		return cache.Mark{}, false
	}
	return cache.Mark{LSN: r.gate.position(), Stale: true}, true
}

// fresh records that the index had, at this time, all that was acknowledged.
func (r *Reader) fresh(at time.Time) {
	for nanos := at.UnixNano(); ; {
		was := r.freshAt.Load()
		if nanos <= was || r.freshAt.CompareAndSwap(was, nanos) {
			return
		}
	}
}

// asks shares questions for the position: all who come while one is out share the next, for
// that one's answer may be older than they are.
type asks struct {
	question func(context.Context) (cache.LSN, error)

	mu   sync.Mutex
	next *asked
	busy bool
}

type asked struct {
	answered chan struct{}
	lsn      cache.LSN
	err      error
}

func (a *asks) ask(ctx context.Context) (cache.LSN, error) {
	a.mu.Lock()
	if a.next == nil {
		a.next = &asked{answered: make(chan struct{})}
	}
	mine := a.next
	if !a.busy {
		a.busy = true
		go a.serve(context.WithoutCancel(ctx)) // one caller's end is not the others'
	}
	a.mu.Unlock()
	select {
	case <-mine.answered:
		return mine.lsn, mine.err
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

// serve asks until nobody waits. Each question is bounded by askLimit.
func (a *asks) serve(ctx context.Context) {
	for {
		a.mu.Lock()
		out := a.next
		a.next = nil
		a.busy = out != nil
		a.mu.Unlock()
		if out == nil {
			return
		}
		out.lsn, out.err = a.question(ctx)
		close(out.answered)
	}
}
