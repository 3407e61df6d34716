package daemon

import (
	"bytes"
	"context"
	"log/slog"
	"net"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"example.com/tiffin/cmd/internal/settings"
)

// lines is a log that can be read while it is written.
type lines struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *lines) Write(line []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(line)
}

func (l *lines) all() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Split(strings.TrimSuffix(l.text.String(), "\n"), "\n")
}

func (l *lines) with(words string) (found []string) {
	for _, line := range l.all() {
		if strings.Contains(line, words) {
			found = append(found, line)
		}
	}
	return found
}

// An outage of six hours in fake time, of the source, the feedback database and the brokers: each
// part tries again at its own pace, the log has a line a minute, and none of the repeats is uncounted.
func TestLongOutageLeavesFewLines(t *testing.T) {
	t.Parallel()
	refusing := refusingAddress(t)
	s, err := settings.Load(settings.Input{Environ: []string{
		"TIFFIN_SOURCE_DSN=postgres://u@" + refusing + "/db", "TIFFIN_FEEDBACK_DSN=postgres://u@" + refusing + "/db",
		"TIFFIN_KAFKA_BROKERS=" + refusing, "TIFFIN_HTTP_LISTEN=off",
	}})
	if err != nil {
		t.Fatal(err)
	}
	log := &lines{}
	const outage = 6 * time.Hour
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), outage)
		defer cancel()
		if err := Run(ctx, Options{Settings: s, Log: slog.New(slog.NewTextHandler(log, nil)), Version: "test"}); err != nil {
			t.Error(err)
		}
	})
	for _, words := range []string{"session with source database ended", "delivery interrupted", "not ready"} {
		said := log.with(words)
		if most := burst + int(outage/repeatSpan) + 1; len(said) < int(outage/repeatSpan)/2 || len(said) > most {
			t.Errorf("%q: %d lines in %s, want a line a minute", words, len(said), outage)
			continue
		}
		if last := said[len(said)-1]; words != "not ready" && !strings.Contains(last, "connection refused") {
			t.Errorf("a line without the newest reason: %s", last)
		}
		if words == "session with source database ended" && len(said)+repeatsOf(t, said) < int(outage/(15*time.Second)) {
			t.Errorf("%d lines count %d repeats: fewer than there were attempts", len(said), repeatsOf(t, said))
		}
	}
	if all := len(log.all()); all > 4*int(outage/repeatSpan) {
		t.Errorf("%d lines in all", all)
	}
}

func repeatsOf(t *testing.T, said []string) (sum int) {
	t.Helper()
	for _, line := range said {
		if m := regexp.MustCompile(` repeats=(\d+)`).FindStringSubmatch(line); m != nil {
			n, err := strconv.Atoi(m[1])
			if err != nil {
				t.Fatal(err)
			}
			sum += n
		}
	}
	return sum
}

// refusingAddress is a port that nobody listens on.
func refusingAddress(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := listener.Close(); err != nil {
		t.Fatal(err)
	}
	return listener.Addr().String()
}

// What differs in what it is about is not a repeat; what was quiet for long may be said again at once.
func TestRepeatsAreThoseOfTheSameThing(t *testing.T) {
	t.Parallel()
	out := &lines{}
	log := limitRepeats(slog.New(slog.NewTextHandler(out, &slog.HandlerOptions{Level: slog.LevelDebug})))
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	say := func(log *slog.Logger, level slog.Level, message string, args ...any) {
		line := slog.NewRecord(now, level, message, 0)
		line.Add(args...)
		if err := log.Handler().Handle(t.Context(), line); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 20 {
		say(log, slog.LevelInfo, "partition taken", "partition", i)
		say(log.With("part", "one"), slog.LevelWarn, "ended", "err", i)
		say(log.With("part", "two"), slog.LevelWarn, "ended", "err", i)
		say(log, slog.LevelDebug, "detail")
		now = now.Add(time.Second)
	}
	for words, want := range map[string]int{"partition taken": 20, "part=one": burst, "part=two": burst, "detail": 20} {
		if got := len(out.with(words)); got != want {
			t.Errorf("%s: %d lines, want %d", words, got, want)
		}
	}
	now = now.Add(repeatSpan)
	say(log.With("part", "one"), slog.LevelWarn, "ended", "err", "newest")
	if got := out.with("err=newest"); len(got) != 1 || !strings.HasSuffix(got[0], " repeats=15") {
		t.Errorf("after a minute: %q", got)
	}
	now = now.Add(time.Hour)
	for range 20 {
		say(log.With("part", "one"), slog.LevelWarn, "ended", "err", "later")
	}
	if got := out.with("err=later"); len(got) != burst || strings.Contains(got[0], "repeats") {
		t.Errorf("after an hour: %q", got)
	}
}

// A message that is delivered is no event of the daemon's life: the log has not one line of it.
func TestMessagesLeaveNoLines(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	log := &lines{}
	r := start(t, w.environ, func(o *Options) { o.Log = slog.New(slog.NewTextHandler(log, nil)) })
	r.waitReady(t)
	w.publishCampaign(t, campaignOf("r1", "first"))
	w.clients(t, 2)
	before := log.all()
	var many [][]byte
	for range 300 {
		many = append(many, campaignOf("r1", "many"), campaignOf("nobody's", "many"), []byte("malformed"))
	}
	w.publishCampaign(t, many...)
	w.clients(t, 602)
	if after := log.all(); len(after) != len(before) {
		t.Errorf("%d lines for 900 messages: %q", len(after)-len(before), after[len(before):])
	}
	r.stop()
	if err := r.end(t); err != nil {
		t.Error(err)
	}
}
