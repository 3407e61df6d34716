package pulse

import (
	"strings"
	"testing"
	"time"
)

// Only who is silent beyond its bound hangs: not who beats, waits within a bound or has nothing to do.
func TestOnlyTheSilentHang(t *testing.T) {
	t.Parallel()
	var all Pulses
	busy, waiting, idle, dead := all.New("busy"), all.New("waiting"), all.New("idle"), all.New("dead")
	waiting.Await(3 * Limit)
	idle.Beat()
	idle.Rest()
	dead.Beat()
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	look := func(passed time.Duration) string {
		busy.Beat()
		now = now.Add(passed)
		return strings.Join(all.Hangs(now), "; ")
	}
	for range 60 {
		if got := look(Limit / 60); got != "" {
			t.Fatalf("within the limit: %s", got)
		}
	}
	if got := look(10 * time.Second); got != "dead hangs: no sign of life for 5m5s" {
		t.Errorf("beyond the limit: %q", got)
	}
	if got := look(2 * Limit); got != "waiting hangs: no sign of life for 15m5s; dead hangs: no sign of life for 15m5s" {
		t.Errorf("beyond its bound: %q", got)
	}
	dead.Beat()
	waiting.Rest()
	if got := look(time.Second); got != "" {
		t.Errorf("alive again: %q", got)
	}
	all.Remove(dead)
	if got := look(2 * Limit); got != "" {
		t.Errorf("gone: %q", got)
	}
}

func BenchmarkBeat(b *testing.B) {
	var all Pulses
	p := all.New("a")
	b.ReportAllocs()
	for b.Loop() {
		p.Beat()
	}
}
