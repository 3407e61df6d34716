// Package harness runs scenarios and judges what they measured. Its one rule: a figure is printed,
// stored and drawn the same way whichever scenario it is from, and only the harness says whether a
// goal was reached.
//
// A scenario is a value: name, summary, goals, and a Run that returns its figures. It prints
// nothing but progress (Env.Say, Env.Bar), and gives back what it measured:
//
//	result.Add(harness.Figure{Name: "rows", Unit: harness.PerSecond, Value: 3e6, Limit: 3.6e6})
//
// and state its goal in the Scenario: harness.AtLeast("", "rows", 0.8).OfLimit(). Text, JSON,
// report, medians over --runs, ratios and the exit status follow.
package harness

import (
	"context"
	"fmt"
)

// Scenario is one thing to measure.
type Scenario struct {
	Name    string
	Summary string // one line
	Goals   []Goal
	// Peers says that Run measures Env.Peers too; they are refused elsewhere.
	Peers bool
	// OwnServers says that given servers are not used: it configures, stops or kills what it measures.
	OwnServers bool
	// Run measures once. What it returns beside an error is kept: figures come before faults. An
	// error that wraps ErrDiffer says that no figure counts.
	Run func(context.Context, *Env) (*Result, error)
}

// Goal is what a figure of tiffin must be. A figure that the result lacks misses it.
type Goal struct {
	Case, Figure string
	Bound        float64 // in the figure's unit; of the limit: a ratio, 1 is the limit
	Most         bool    // the bound is the most that is allowed, not the least
	Limit        bool    // the ratio to the limit of the same run is judged
	unit         Unit    // empty: a ratio
}

// AtLeast is a goal for the figure of this name in this case.
func AtLeast(in, figure string, bound float64) Goal {
	return Goal{Case: in, Figure: figure, Bound: bound}
}

// AtMost is a goal for the figure of this name in this case.
func AtMost(in, figure string, bound float64) Goal {
	return Goal{Case: in, Figure: figure, Bound: bound, Most: true}
}

// OfLimit judges the figure's ratio to its limit instead.
func (g Goal) OfLimit() Goal { g.Limit = true; return g }

// In names the unit of the figure, for String.
func (g Goal) In(unit Unit) Goal { g.unit = unit; return g }

// String says what is to be reached.
func (g Goal) String() string { return label(g.Case, g.Figure) + ", " + g.describe(g.unit) }

// describe says the bound; unit is the figure's.
func (g Goal) describe(unit Unit) string {
	word, bound := "at least", unit.Format(g.Bound)
	if g.Most {
		word = "at most"
	}
	if g.Limit {
		bound = fmt.Sprintf("%.2f of the limit", g.Bound)
	}
	return word + " " + bound
}

// reached judges a summary.
func (g Goal) reached(s Summary) bool {
	value := s.Median
	if g.Limit {
		value = s.Ratio
	}
	if g.Most {
		return value <= g.Bound
	}
	return value >= g.Bound
}
