package main

import (
	"cmp"
	"slices"
	"strings"
	"testing"
	"time"

	"example.com/tiffin/cmd/bench/internal/harness"
)

// Locks count as what they are: strong ones always, weak ones when they outlast the snapshot
// read by more than one look.
func TestHarmlessCountsLocks(t *testing.T) {
	t.Parallel()
	type look struct {
		locks   map[int32]string
		copying bool
	}
	weak, none := map[int32]string{7: "AccessShareLock"}, map[int32]string{}
	for name, c := range map[string]struct {
		looks        []look
		strong, late int
	}{
		"a snapshot read":         {[]look{{weak, true}, {weak, true}, {weak, false}, {none, false}}, 0, 0},
		"a catalog question":      {[]look{{weak, false}, {none, false}, {weak, false}}, 0, 0},
		"held after the read":     {[]look{{weak, true}, {weak, false}, {weak, false}, {weak, false}}, 0, 2},
		"a lock that stops DDL":   {[]look{{map[int32]string{7: "AccessExclusiveLock"}, false}}, 1, 0},
		"two sessions' questions": {[]look{{weak, false}, {map[int32]string{8: "AccessShareLock"}, false}}, 0, 0},
	} {
		o := &observer{holding: map[int32]time.Time{}, idle: map[int32]bool{}}
		at := time.Unix(0, 0)
		for _, l := range c.looks {
			at = at.Add(observeEvery)
			o.noteLocks(at, l.locks, l.copying)
		}
		if o.saw.strong != c.strong || o.saw.late != c.late {
			t.Errorf("%s: %d strong and %d late locks, want %d and %d", name, o.saw.strong, o.saw.late, c.strong, c.late)
		}
	}
}

// A plot never hides the highest point.
func TestHarmlessPlotsKeepTheHighest(t *testing.T) {
	t.Parallel()
	var points [][2]float64
	for i := range 10_000 {
		points = append(points, [2]float64{float64(i) / 10, float64(i % 100)})
	}
	points[5_003][1] = 1 << 30
	var most float64
	kept := thinned(points, 500)
	for _, p := range kept {
		most = max(most, p[1])
	}
	if len(kept) != 500 || most != 1<<30 {
		t.Errorf("%d points, the highest %v", len(kept), most)
	}
	if top := textPlot(points, 1<<20)[0]; !strings.Contains(top, "1024 MiB |") || !strings.Contains(top, "#") {
		t.Errorf("first line of the plot: %q", top)
	}
	if got := (observed{points: points}).mostBetween(0, 500*time.Second); got != 99 {
		t.Errorf("most before the peak: %v", got)
	}
}

// The report shows what was retained over time, in bytes, beside the budget from end to end, and
// which phase began when.
func TestHarmlessPlotsTheRetainedLog(t *testing.T) {
	t.Parallel()
	var points [][2]float64
	for i := range 2_000 {
		points = append(points, [2]float64{0.5 + float64(i)/10, float64(i % 100)})
	}
	points[1_234][1] = 60 << 20
	h := &harmlessRun{
		budget: 64 << 20, observer: &observer{saw: observed{points: points}},
		marks: []phaseMark{{"the daemon loads", 0}, {"the daemon is frozen", 120 * time.Second}},
	}
	r := h.result()
	if len(r.Series) != 1 || len(r.Series[0].Lines) != 2 {
		t.Fatalf("series %+v, want one of two lines", r.Series)
	}
	s := r.Series[0]
	if s.Y != "bytes" || s.Kind != harness.Linear || !strings.Contains(s.Detail, "120 s: the daemon is frozen") {
		t.Errorf("a plot of %q, %s, %q", s.Y, s.Kind, s.Detail)
	}
	retained, budget := s.Lines[0].Points, s.Lines[1].Points
	highest := slices.MaxFunc(retained, func(a, b [2]float64) int { return cmp.Compare(a[1], b[1]) })
	if highest != points[1_234] || len(retained) > 500 {
		t.Errorf("%d points, the highest %v, want %v", len(retained), highest, points[1_234])
	}
	if want := [][2]float64{{0.5, 64 << 20}, {200.4, 64 << 20}}; !slices.Equal(budget, want) {
		t.Errorf("the budget is drawn as %v, want %v", budget, want)
	}
}
