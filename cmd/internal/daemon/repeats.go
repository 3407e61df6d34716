package daemon

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"time"
)

// What is said again and again is said burst times at once, and from then on once every repeatSpan: an
// outage of days leaves a line a minute, not one for each attempt.
const (
	burst      = 5
	repeatSpan = time.Minute
	mostKept   = 1000 // kinds of lines that are remembered; beyond it those that are long past are forgotten
)

// repeats passes log lines on until they repeat too often. The line that follows says how many were
// left out, and has the newest reason, being the newest line itself. Below information nothing is
// left out. Its clock is that of the lines. Safe for concurrent use.
type repeats struct {
	to   slog.Handler
	part string // from With: the same words of another part are another line
	said *said
}

// said is what several handlers of one log have passed on.
type said struct {
	mu    sync.Mutex
	lines map[string]*spoken
}

// spoken is one kind of line: a bucket of burst lines that one more drips into every repeatSpan.
type spoken struct {
	left    float64
	at      time.Time
	skipped int
}

func limitRepeats(log *slog.Logger) *slog.Logger {
	return slog.New(&repeats{to: log.Handler(), said: &said{lines: map[string]*spoken{}}})
}

// Enabled implements slog.Handler.
func (r *repeats) Enabled(ctx context.Context, level slog.Level) bool {
	return r.to.Enabled(ctx, level)
}

// Handle implements slog.Handler.
func (r *repeats) Handle(ctx context.Context, line slog.Record) error {
	if line.Level < slog.LevelInfo {
		return r.to.Handle(ctx, line)
	}
	skipped, pass := r.said.pass(r.kind(line), line.Time)
	if !pass {
		return nil
	}
	if skipped > 0 {
		line = line.Clone()
		line.AddAttrs(slog.Int("repeats", skipped))
	}
	return r.to.Handle(ctx, line)
}

// WithAttrs implements slog.Handler.
func (r *repeats) WithAttrs(attrs []slog.Attr) slog.Handler {
	part := []string{r.part}
	for _, a := range attrs {
		part = append(part, a.Value.String())
	}
	return &repeats{to: r.to.WithAttrs(attrs), part: strings.Join(part, "\x00"), said: r.said}
}

// WithGroup implements slog.Handler.
func (r *repeats) WithGroup(name string) slog.Handler {
	return &repeats{to: r.to.WithGroup(name), part: r.part + "\x00" + name, said: r.said}
}

// kind is what makes a line the same as another one: its words and what it is about. Its reasons,
// counts and times may differ.
func (r *repeats) kind(line slog.Record) string {
	kind := line.Level.String() + "\x00" + line.Message + r.part
	line.Attrs(func(a slog.Attr) bool {
		switch a.Key {
		case "partition", "topic", "table", "process":
			kind += "\x00" + a.Value.String()
		}
		return true
	})
	return kind
}

// pass reports whether a line of this kind may be said now, and how many before it were not.
func (s *said) pass(kind string, now time.Time) (skipped int, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	k := s.lines[kind]
	if k == nil {
		if len(s.lines) >= mostKept {
			s.forget(now)
		}
		k = &spoken{left: burst, at: now}
		s.lines[kind] = k
	}
	k.left = min(burst, k.left+float64(now.Sub(k.at))/float64(repeatSpan))
	k.at = now
	if k.left < 1 {
		k.skipped++
		return 0, false
	}
	k.left--
	skipped, k.skipped = k.skipped, 0
	return skipped, true
}

// forget drops what was not said for so long that it may be said burst times again.
func (s *said) forget(now time.Time) {
	for kind, k := range s.lines {
		if now.Sub(k.at) >= burst*repeatSpan {
			delete(s.lines, kind)
		}
	}
}
