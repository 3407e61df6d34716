package main

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"example.com/tiffin/internal/devstack"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// Scripts hold on to the exit statuses.
func TestExitStatus(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		args []string
		want int
	}{
		{[]string{"list"}, exitOK},
		{[]string{"--help"}, exitOK},
		{nil, exitUsage},
		{[]string{"no-such"}, exitUsage},
		{[]string{"list", "x"}, exitUsage},
		{[]string{"throughput", "--no-such"}, exitUsage},
		{[]string{"throughput", "--quick", "--dir", "/no/such/directory"}, exitMissed},
	} {
		var out, progress bytes.Buffer
		if got := run(t.Context(), c.args, &out, &progress); got != c.want {
			t.Errorf("bench %q: status %d, want %d\n%s%s", c.args, got, c.want, &out, &progress)
		}
	}
	var out bytes.Buffer
	if run(t.Context(), []string{"list"}, &out, io.Discard); !strings.Contains(out.String(), "throughput ") {
		t.Errorf("bench list: %s", &out)
	}
}

// A figure below the goal is an error and says so; --quick judges none.
func TestGoalIsJudged(t *testing.T) {
	t.Parallel()
	const n = 1_000_000
	f := figures{deliveries: n, limit: time.Second, backlog: n * time.Second / throughputGoal}
	slow := f
	slow.backlog += time.Second
	for _, c := range []struct {
		f     figures
		quick bool
		says  string
		want  error
	}{
		{f, false, "reached", nil}, {slow, false, "MISSED", errMissed}, {slow, true, "not judged", nil},
	} {
		var out bytes.Buffer
		if err := report(options{quick: c.quick, out: &out}, c.f); !errors.Is(err, c.want) || !strings.Contains(out.String(), c.says) {
			t.Errorf("%v: %v, want %v and %q:\n%s", c.f.backlog, err, c.want, c.says, &out)
		}
	}
}

// Sinks count only if they hold exactly what was expected: one lost, doubled or changed delivery in
// one sink or in both, or a campaign with two trigger times, is found.
func TestEveryDifferenceIsFound(t *testing.T) {
	t.Parallel()
	for name, spoil := range map[string]func(rows, records []devstack.Delivery) (r, k []devstack.Delivery){
		"nothing":     nil,
		"row lost":    func(r, k []devstack.Delivery) ([]devstack.Delivery, []devstack.Delivery) { return r[1:], k },
		"record lost": func(r, k []devstack.Delivery) ([]devstack.Delivery, []devstack.Delivery) { return r, k[1:] },
		"both lost":   func(r, k []devstack.Delivery) ([]devstack.Delivery, []devstack.Delivery) { return r[1:], k[1:] },
		"both doubled": func(r, k []devstack.Delivery) ([]devstack.Delivery, []devstack.Delivery) {
			return append(r, r[0]), append(k, k[0])
		},
		"other client": func(r, k []devstack.Delivery) ([]devstack.Delivery, []devstack.Delivery) {
			r[0].Client, k[0].Client = "x", "x"
			return r, k
		},
		"other time in one sink": func(r, k []devstack.Delivery) ([]devstack.Delivery, []devstack.Delivery) {
			r[0].Trigger++
			return r, k
		},
		"two times in one campaign": func(r, k []devstack.Delivery) ([]devstack.Delivery, []devstack.Delivery) {
			r[0].Trigger++
			k[0].Trigger++
			return r, k
		},
	} {
		w, err := newWorkload(5, 10, 8, time.Unix(1_700_000_000, 0))
		if err != nil {
			t.Fatal(err)
		}
		var r, k []devstack.Delivery
		for n := range w.campaigns {
			for _, client := range w.recipients(n) {
				r = append(r, w.campaign(n).Delivery(client, int64(n)))
			}
		}
		k = append(k, r...)
		if spoil != nil {
			r, k = spoil(r, k)
		}
		err = judge(w, each(r), each(k))
		if (err != nil) != (spoil != nil) || err != nil && !errors.Is(err, errDiffer) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func each(list []devstack.Delivery) func(func(devstack.Delivery) error) error {
	return func(do func(devstack.Delivery) error) error {
		for _, d := range list {
			if err := do(d); err != nil {
				return err
			}
		}
		return nil
	}
}
