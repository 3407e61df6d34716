package cdc

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"
)

const (
	rebuildsPerHour = 3
	rebuildWindow   = time.Hour
)

// errTooManyRebuilds is final, also while running.
var errTooManyRebuilds = errors.New("too many rebuilds")

// rebuilds counts the last hour's. More than a few mean that the cause is not what a rebuild
// mends, and each costs the source a read of the whole table.
type rebuilds struct{ at []time.Time }

// allow counts one more, or says that it is one too many.
func (r *rebuilds) allow(now time.Time, reason string) error {
	kept := r.at[:0]
	for _, at := range r.at {
		if now.Sub(at) < rebuildWindow {
			kept = append(kept, at)
		}
	}
	r.at = kept
	if len(r.at) >= rebuildsPerHour {
		return &Error{
			Op: "rebuild the index", Permanent: true,
			Err: fmt.Errorf("%w: %d within an hour already, now for: %s", errTooManyRebuilds, len(r.at), reason),
			Fix: "mend the cause, then start again",
		}
	}
	r.at = append(r.at, now)
	return nil
}

// backoff doubles from least up to most, and takes off up to half by chance, so that many
// processes do not come back at once.
func backoff(attempt int, least, most time.Duration, chance func() float64) time.Duration {
	d := min(float64(most), float64(least)*math.Pow(2, float64(min(attempt, 30))))
	return time.Duration(d * (1 - chance()/2))
}

// pause waits; false when ctx ended first.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
