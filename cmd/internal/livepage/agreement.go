package livepage

import (
	"context"
	"slices"
	"sync"
	"time"

	"example.com/tiffin/stream"
)

// Sinks tells how far both sinks are, partition by partition. It is asked by one goroutine, each
// time with a deadline; its errors name no secret.
type Sinks interface {
	Compare(ctx context.Context) ([]stream.Standing, error)
}

const (
	compareLimit = 5 * time.Second // of one question to both sinks
	apartAtMost  = 12              // partitions that are named
)

// Agreement is how far both sinks are, as they said themselves: what the ledger has in the
// feedback database beside what the group has committed in Kafka.
type Agreement struct {
	At int64 `json:"at"` // Unix milliseconds of the answer
	// Level says that neither sink lacks anything of what is handled. Since is, in Unix
	// milliseconds, from when on it is so, or from when on one lacks something that it had lacked
	// at each look since: what comes and goes in flight is not apart for long.
	Level bool  `json:"level"`
	Since int64 `json:"since"`
	// Ledger and Group are offsets, summed over the partitions; Messages lie between them.
	Ledger   int64 `json:"ledger"`
	Group    int64 `json:"group"`
	Messages int64 `json:"messages"`
	Owed     int64 `json:"owed"`    // records that Kafka lacks
	Missing  int64 `json:"missing"` // messages that the feedback database lacks
	// Apart are the partitions that differ, the furthest first, at most apartAtMost of Differ.
	Apart  []Apart `json:"apart"`
	Differ int     `json:"differ"`
	// Error says why there was no answer at the last look; the rest is then that of At.
	Error string `json:"error,omitempty"`
}

// Apart is a partition of which one sink lacks something.
type Apart struct {
	Partition int32 `json:"partition"`
	Ledger    int64 `json:"ledger"`
	Group     int64 `json:"group"`
	Owed      int64 `json:"owed"`
	Since     int64 `json:"since"` // as that of Agreement
}

// comparison asks both sinks, on a goroutine of its own: neither a slow database nor a broker
// holds up the figures.
type comparison struct {
	sinks   Sinks
	watched func() bool

	asked   time.Time         // of the goroutine
	level   time.Time         // since when; zero while they are not
	pending map[int32]pending // partitions that differ

	mu   sync.Mutex
	last *Agreement
}

// pending is what one partition has to reach: when both sinks are there it starts anew, from what
// has come since.
type pending struct {
	ledger, group int64
	since         time.Time
}

func (p pending) reached(s stream.Standing) bool {
	return s.Group >= p.ledger && s.Ledger >= p.group
}

// run asks once a second while there are viewers, otherwise every pointSpan.
func (c *comparison) run(ctx context.Context) {
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	for {
		if now := time.Now(); c.watched() || c.asked.IsZero() || now.Sub(c.asked) >= pointSpan-tick/2 {
			c.asked = now
			c.ask(ctx)
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

func (c *comparison) ask(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, compareLimit)
	defer cancel()
	standings, err := c.sinks.Compare(ctx)
	if err != nil {
		c.mu.Lock()
		defer c.mu.Unlock()
		var failed Agreement
		if c.last != nil {
			failed = *c.last
		}
		failed.Error = err.Error()
		c.last = &failed
		return
	}
	a := c.judge(time.Now(), standings)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.last = a
}

// judge lays the standings beside those before them.
func (c *comparison) judge(now time.Time, standings []stream.Standing) *Agreement {
	a := &Agreement{At: now.UnixMilli(), Apart: []Apart{}}
	still := map[int32]pending{}
	for _, s := range standings {
		a.Ledger += s.Ledger
		a.Group += s.Group
		a.Messages += max(0, s.Ledger-s.Group)
		a.Missing += max(0, s.Group-s.Ledger)
		a.Owed += s.Owed
		if s.Ledger == s.Group {
			continue
		}
		p, was := c.pending[s.Partition]
		if !was || p.reached(s) {
			p = pending{s.Ledger, s.Group, now}
		}
		still[s.Partition] = p
		a.Apart = append(a.Apart, Apart{s.Partition, s.Ledger, s.Group, s.Owed, p.since.UnixMilli()})
	}
	c.pending = still
	if a.Level = len(still) == 0; !a.Level {
		c.level = time.Time{}
		a.apart()
		return a
	}
	if c.level.IsZero() {
		c.level = now
	}
	a.Since = c.level.UnixMilli()
	return a
}

// apart orders the partitions that differ and keeps the worst.
func (a *Agreement) apart() {
	slices.SortFunc(a.Apart, func(x, y Apart) int { return int(distance(y) - distance(x)) })
	a.Differ = len(a.Apart)
	a.Since = a.Apart[0].Since
	for _, p := range a.Apart {
		a.Since = min(a.Since, p.Since)
	}
	a.Apart = a.Apart[:min(len(a.Apart), apartAtMost)]
}

func distance(p Apart) int64 { return max(p.Ledger-p.Group, p.Group-p.Ledger) }

// now is the last answer; nil before there is one, and without anybody to ask.
func (c *comparison) now() *Agreement {
	if c == nil {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.last
}
