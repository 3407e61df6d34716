package harness

import (
	"context"
	"errors"
	"fmt"
	"strings"
)

// Run runs every scenario as often as the options say, and returns an outcome for each that was
// begun. A fault ends its scenario; the others are measured all the same, unless ctx is done. told
// is called with each outcome as soon as it is known.
func Run(ctx context.Context, e *Env, scenarios []Scenario, told func(*Outcome) error) ([]*Outcome, error) {
	var outcomes []*Outcome
	for _, s := range scenarios {
		o := runOne(ctx, e, s)
		outcomes = append(outcomes, o)
		if err := told(o); err != nil {
			return outcomes, err
		}
		if err := ctx.Err(); err != nil {
			return outcomes, err
		}
	}
	return outcomes, verdictOf(outcomes)
}

// runOne repeats a scenario: with peers each run is of all of them, so that they take turns.
func runOne(ctx context.Context, e *Env, s Scenario) *Outcome {
	runs := max(e.Runs, 1)
	var results []*Result
	for n := range runs {
		e.begin(s, n+1, runs)
		r, err := s.Run(ctx, e)
		if r != nil {
			results = append(results, r)
		}
		if err != nil {
			return conclude(s, e.Options, results, err)
		}
	}
	return conclude(s, e.Options, results, nil)
}

// verdictOf is an error unless every outcome is as it should be.
func verdictOf(outcomes []*Outcome) error {
	var faults []error
	for _, o := range outcomes {
		if o.Err != nil {
			faults = append(faults, fmt.Errorf("%s: %w", o.Scenario.Name, o.Err))
		}
		if missed := o.Missed(); len(missed) > 0 {
			faults = append(faults, fmt.Errorf("%s: %w: %s", o.Scenario.Name, ErrMissed, strings.Join(missed, "; ")))
		}
	}
	return errors.Join(faults...)
}

// ErrMissed is wrapped by Run's error when a goal was missed.
var ErrMissed = errors.New("goal missed")
