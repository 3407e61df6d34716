package checkup

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// What could not be judged is no fault, and a warning stands in nobody's way.
func TestCheckThatNeedsAFailedOneIsSkipped(t *testing.T) {
	t.Parallel()
	var verdicts []Verdict
	s := NewSheet(func(l Line) { verdicts = append(verdicts, l.Verdict) })
	say := func(f Finding) func(context.Context) Finding { return func(context.Context) Finding { return f } }
	s.Area("a")
	s.Check(t.Context(), "good", nil, say(Good("")))
	s.Check(t.Context(), "odd", []string{"good"}, say(Odd("", "")))
	s.Check(t.Context(), "bad", []string{"odd"}, say(Bad("", "")))
	s.Check(t.Context(), "after bad", []string{"good", "bad"}, say(Bad("", "")))
	s.Check(t.Context(), "after that", []string{"after bad"}, say(Bad("", "")))
	s.Area("b")
	s.Check(t.Context(), "elsewhere", []string{"good"}, say(Good("")))
	if want := []Verdict{OK, Warn, Fail, Skip, Skip, Skip}; !slices.Equal(verdicts, want) || s.Fails != 1 || s.Warns != 1 {
		t.Errorf("%v, %d fails, %d warnings: want %v, 1, 1", verdicts, s.Fails, s.Warns, want)
	}
}

func TestClocksMayDifferByWhatNobodyNotices(t *testing.T) {
	t.Parallel()
	begin := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for _, c := range []struct {
		there, took time.Duration
		want        Verdict
	}{
		{0, 0, OK},
		{900 * time.Millisecond, 0, OK},
		{-900 * time.Millisecond, 0, OK},
		{1100 * time.Millisecond, 0, Warn},
		{-3 * time.Hour, 0, Warn},
		{2 * time.Second, 4 * time.Second, OK}, // in the middle of a slow question
		{6 * time.Second, 4 * time.Second, Warn},
	} {
		if got := skew(begin, begin.Add(c.there), begin.Add(c.took)); got.Verdict != c.want {
			t.Errorf("%s within %s: %+v, want %s", c.there, c.took, got, c.want)
		}
	}
}

// A pooler that does not know what a session asks for may stand before the feedback database, and nowhere else.
func TestPoolerIsForTheFeedbackDatabase(t *testing.T) {
	t.Parallel()
	for setting, want := range map[string]string{"feedback.dsn": "pool_mode = session", "source.dsn": "do not speak replication", "setup.dsn": "the server itself in setup.dsn"} {
		if fix := Admission(refused("unsupported startup parameter: row_security"), &pgconn.Config{}, setting); !strings.Contains(fix, want) {
			t.Errorf("%s: %q, want %q", setting, fix, want)
		}
	}
	for words, want := range map[string]string{
		"no such database: feedbak": "[databases]", "database does not exist": "[databases]",
		"no more connections allowed (max_client_conn)": "max_client_conn",
	} {
		if fix := Admission(refused(words), &pgconn.Config{}, "feedback.dsn"); !strings.Contains(fix, want) {
			t.Errorf("%s: %q, want %q", words, fix, want)
		}
	}
	if fix := Admission(refused(`database "feedback" is disabled`), &pgconn.Config{}, "feedback.dsn"); fix != "" {
		t.Errorf("whoever switched it off knows: %q", fix)
	}
}

func refused(words string) *pgconn.PgError { return &pgconn.PgError{Code: "08P01", Message: words} }
