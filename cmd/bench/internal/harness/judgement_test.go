package harness

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// measuring is a scenario that measures these values in turn.
func measuring(goal Goal, values ...Figure) Scenario {
	next := 0
	return Scenario{Name: "test", Goals: []Goal{goal}, Run: func(context.Context, *Env) (*Result, error) {
		r := &Result{}
		if next < len(values) {
			r.Add(values[next])
		}
		next++
		return r, nil
	}}
}

func rate(value, limit float64) Figure {
	return Figure{Case: "c", Name: "rate", Unit: PerSecond, Value: value, Limit: limit}
}

// A goal is judged by the median of the runs, of the ratio by that of the runs' ratios; one that
// was not measured is missed; --quick judges none.
func TestGoalIsJudged(t *testing.T) {
	t.Parallel()
	half := AtLeast("c", "rate", 0.5).OfLimit()
	for name, c := range map[string]struct {
		scenario Scenario
		options  Options
		missed   bool
		says     string
	}{
		"reached":           {measuring(AtLeast("c", "rate", 100), rate(100, 0)), Options{}, false, "reached"},
		"missed":            {measuring(AtLeast("c", "rate", 100), rate(99, 0)), Options{}, true, "MISSED"},
		"at most":           {measuring(AtMost("c", "rate", 100), rate(101, 0)), Options{}, true, "MISSED"},
		"quick":             {measuring(AtLeast("c", "rate", 100), rate(99, 0)), Options{Quick: true}, false, "not judged"},
		"not measured":      {measuring(half), Options{}, true, "not measured"},
		"not wanted":        {measuring(half), Options{Cases: []string{"other"}}, false, ""},
		"of the limit":      {measuring(half, rate(50, 100)), Options{}, false, "ratio 0.50"},
		"below the limit":   {measuring(half, rate(49, 100)), Options{}, true, "MISSED"},
		"no limit":          {measuring(half, rate(49, 0)), Options{}, true, "MISSED"},
		"a peer's":          {measuring(half, Figure{Case: "c", Name: "rate", Who: "peer", Value: 1, Limit: 1}), Options{}, true, "not measured"},
		"median":            {measuring(half, rate(50, 100), rate(9, 10), rate(1, 100)), Options{Runs: 3}, false, "9/s (1/s to 50/s, 3 runs)"},
		"median of ratios":  {measuring(half, rate(90, 100), rate(4, 10), rate(4, 10)), Options{Runs: 3}, true, "ratio 0.40"},
		"shorter is better": {measuring(half, Figure{Case: "c", Name: "rate", Unit: Seconds, Value: 3, Limit: 1}), Options{}, true, "ratio 0.33"},
	} {
		c.options.Dir, c.options.Progress = t.TempDir(), io.Discard
		e, err := NewEnv(c.options)
		if err != nil {
			t.Fatal(err)
		}
		var text bytes.Buffer
		_, err = Run(t.Context(), e, []Scenario{c.scenario}, func(o *Outcome) error { return WriteText(&text, o) })
		if errors.Is(err, ErrMissed) != c.missed || !strings.Contains(text.String(), c.says) {
			t.Errorf("%s: %v, want missed %t and %q:\n%s", name, err, c.missed, c.says, &text)
		}
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	}
}

// What delivers something else than was expected reaches no goal, however fast; and the verdict
// stands in the figure's row, with what was promised.
func TestNoGoalIsReachedBySinksThatDiffer(t *testing.T) {
	t.Parallel()
	goal := AtLeast("c", "rate", 1)
	for name, c := range map[string]struct {
		verdict Verdict
		err     error
		missed  bool
		says    string
	}{
		"exact":                   {Verdict{Case: "c", Exact: true, Guarantee: "exactly once: always"}, nil, false, "exact, promised: exactly once  "},
		"promised in part":        {Verdict{Case: "c", Exact: true, Guarantee: "exactly once into Kafka (at checkpoints), not into Postgres (rows): a crash"}, nil, false, "promised: exactly once into Kafka, not into Postgres  "},
		"of the case":             {Verdict{Case: "c", Text: "one is missing"}, nil, true, "NOT EXACT"},
		"of no figure's case":     {Verdict{Case: "before", Text: "one is missing"}, nil, true, "NOT EXACT"},
		"of another case":         {Verdict{Case: "d", Text: "one is missing"}, nil, false, "reached"},
		"of another":              {Verdict{Case: "c", Who: "peer", Text: "one is missing"}, nil, false, "reached"},
		"answers, not sinks":      {Verdict{Case: "c", Exact: true}, fmt.Errorf("%w: an answer", ErrDiffer), true, "MISSED"},
		"a fault of another kind": {Verdict{Case: "c", Exact: true}, errors.New("away"), false, "reached"},
	} {
		s := Scenario{Name: "test", Goals: []Goal{goal}, Run: func(context.Context, *Env) (*Result, error) {
			r := &Result{}
			r.Add(rate(5, 0), Figure{Case: "d", Name: "rate", Unit: PerSecond, Value: 1})
			_ = r.Judge(c.verdict) // the summary is what is tested
			return r, c.err
		}}
		o := runOne(t.Context(), &Env{voice: newVoice(io.Discard)}, s)
		var text bytes.Buffer
		if err := WriteText(&text, o); err != nil {
			t.Fatal(err)
		}
		if (len(o.Missed()) > 0) != c.missed || o.Summaries[0].Passed == c.missed || !strings.Contains(text.String(), c.says) {
			t.Errorf("%s: missed %q, want %t and %q:\n%s", name, o.Missed(), c.missed, c.says, &text)
		}
	}
}

// Every run is drawn, the lines of one name together; points of one run and name are one line.
func TestPlotsAreOfAllRuns(t *testing.T) {
	t.Parallel()
	x := 0.0
	s := Scenario{Name: "test", Run: func(context.Context, *Env) (*Result, error) {
		r := &Result{}
		for range 2 {
			x++
			r.Plot(Series{Title: "p", Lines: []Line{{Name: "a", Points: [][2]float64{{x, x}}}}})
		}
		return r, nil
	}}
	o := runOne(t.Context(), &Env{Options: Options{Runs: 2}, voice: newVoice(io.Discard)}, s)
	want := []Line{{"a", [][2]float64{{1, 1}, {2, 2}}, 0}, {"a", [][2]float64{{3, 3}, {4, 4}}, 1}}
	if len(o.Series) != 1 || !reflect.DeepEqual(o.Series[0].Lines, want) {
		t.Errorf("drawn: %+v", o.Series)
	}
}

// A scenario that fails does not keep the others from being measured, and what it measured before
// is shown; sinks that differ are a fault of tiffin, of a peer only a verdict.
func TestFaultsAndVerdicts(t *testing.T) {
	t.Parallel()
	fails := Scenario{Name: "fails", Run: func(context.Context, *Env) (*Result, error) {
		r := &Result{}
		r.Add(rate(7, 0))
		return r, r.Judge(Verdict{Text: "one is missing"})
	}}
	peer := Scenario{Name: "peer", Run: func(context.Context, *Env) (*Result, error) {
		r := &Result{}
		return r, r.Judge(Verdict{Who: "other", Text: "two are missing"})
	}}
	e, err := NewEnv(Options{Dir: t.TempDir(), Progress: io.Discard})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	}()
	outcomes, err := Run(t.Context(), e, []Scenario{fails, peer}, func(*Outcome) error { return nil })
	if !errors.Is(err, ErrDiffer) || !strings.Contains(err.Error(), "fails: ") || strings.Contains(err.Error(), "peer: ") {
		t.Errorf("run: %v", err)
	}
	if len(outcomes) != 2 || len(outcomes[0].Summaries) != 1 || outcomes[0].OK() || !outcomes[1].OK() {
		t.Errorf("outcomes: %+v", outcomes)
	}
	var lines bytes.Buffer
	if err := WriteJSON(&lines, struct{}{}, outcomes); err != nil {
		t.Fatal(err)
	}
	var last struct {
		Kind string
		OK   bool
	}
	all := bytes.Split(bytes.TrimSpace(lines.Bytes()), []byte("\n"))
	if err := json.Unmarshal(all[len(all)-1], &last); err != nil || last.Kind != "summary" || last.OK {
		t.Errorf("last line: %+v, %v\n%s", last, err, &lines)
	}
	for _, want := range []string{`"text":"one is missing"`, `"who":"other","exact":false`, `"kind":"fault"`, `"figure":"rate"`} {
		if !strings.Contains(lines.String(), want) {
			t.Errorf("no %s in\n%s", want, &lines)
		}
	}
}
