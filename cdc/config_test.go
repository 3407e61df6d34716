package cdc

import (
	"errors"
	"strings"
	"testing"
	"time"
)

// Every fault is listed at once, with its key.
func TestConfigListsEveryFault(t *testing.T) {
	t.Parallel()
	cfg := Config{DSN: "postgres://%zz", Table: "a.b.c", Slot: "Upper", Setup: "maybe", Fence: "wall", MaxStaleness: -1, MaxRetainedWAL: -1}
	_, err := New(cfg, nil, nil)
	for _, key := range []string{"source.dsn", "source.table", "source.publication", "source.slot", "source.setup", "source.fence", "source.max_staleness", "source.max_retained_wal"} {
		if err == nil || !strings.Contains(err.Error(), key) {
			t.Errorf("%v does not name %s", err, key)
		}
	}
	if _, err := NewSource(cfg); err == nil {
		t.Error("NewSource took it")
	}
}

// A password in a setting is never in an error.
func TestConfigErrorsHideThePassword(t *testing.T) {
	t.Parallel()
	cfg := Config{DSN: "postgres://u:sesame@host:notaport/db", Table: "t", Publication: "p", Slot: "s"}
	if _, err := NewSource(cfg); err == nil || strings.Contains(err.Error(), "sesame") {
		t.Errorf("error: %v", err)
	}
}

func TestSynchronousStandbyIsRecognised(t *testing.T) {
	t.Parallel()
	for names, want := range map[string]bool{
		"": false, "*": true, "FIRST 1 (a, b)": false, `ANY 1 (a, "*")`: true, `"tiffin/s", a`: true, "TIFFIN/S": true, "tiffin": false,
	} {
		if got := chosenAsStandby(names, "tiffin/s"); got != want {
			t.Errorf("%q: %v, want %v", names, got, want)
		}
	}
}

// A fourth rebuild within an hour is refused, for good; an hour later one is allowed again.
func TestRebuildsPerHour(t *testing.T) {
	t.Parallel()
	var r rebuilds
	at := time.Unix(1e9, 0)
	for range rebuildsPerHour {
		if err := r.allow(at, "x"); err != nil {
			t.Fatal(err)
		}
		at = at.Add(time.Minute)
	}
	if err := r.allow(at, "the reason"); !permanent(err) || !errors.Is(err, errTooManyRebuilds) || !strings.Contains(err.Error(), "the reason") {
		t.Errorf("fourth: %v", err)
	}
	if err := r.allow(at.Add(time.Hour), "x"); err != nil {
		t.Errorf("an hour later: %v", err)
	}
}

func TestBackoffGrowsToItsBound(t *testing.T) {
	t.Parallel()
	never := func() float64 { return 0 }
	for attempt, want := range map[int]time.Duration{0: 100 * time.Millisecond, 3: 800 * time.Millisecond, 7: 10 * time.Second, 1000: 10 * time.Second} {
		if got := backoff(attempt, retryLeast, retryMost, never); got != want {
			t.Errorf("attempt %d: %s, want %s", attempt, got, want)
		}
	}
	if got := backoff(3, retryLeast, retryMost, func() float64 { return 0.999 }); got >= 800*time.Millisecond || got < 400*time.Millisecond {
		t.Errorf("with chance: %s", got)
	}
}

func TestTableNames(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]tableName{
		"t": {"public", "t"}, "s.T": {"s", "T"}, `"a.b"."c""d"`: {"a.b", `c"d`}, `s."t"`: {"s", "t"},
	} {
		if got, err := parseTable(text); err != nil || got != want {
			t.Errorf("%s: %v, %v", text, got, err)
		}
	}
	for _, text := range []string{"", ".", "a.", ".b", "a.b.c", `"a`, `a"b`, `"a"b`, `""`, "a\x00b"} {
		if got, err := parseTable(text); err == nil {
			t.Errorf("%q is %v", text, got)
		}
	}
}
