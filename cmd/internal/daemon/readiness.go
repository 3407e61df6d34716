package daemon

import (
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// reasoner is a part that can say why it is not ready.
type reasoner interface {
	Reasons() []string            // empty: ready; safe for concurrent use
	Hangs(now time.Time) []string // what shows no sign of life; likewise
}

// readiness gathers the reasons of all parts. Before the parts exist, and once the daemon
// stops, it has a reason of its own. Safe for concurrent use.
type readiness struct {
	now      func() time.Time
	mu       sync.Mutex
	parts    []reasoner
	stopping bool
	progress func() []string
}

// Reasons returns why the daemon is not ready; empty when it is.
func (r *readiness) Reasons() []string {
	r.mu.Lock()
	parts, stopping := r.parts, r.stopping
	r.mu.Unlock()
	switch {
	case stopping:
		return []string{"stopping"}
	case len(parts) == 0:
		return []string{"starting"}
	}
	var reasons []string
	for _, part := range parts {
		reasons = append(reasons, part.Reasons()...)
	}
	return slices.Compact(reasons)
}

// Hangs returns what shows no sign of life: only a restart can help. It must be asked for every few
// seconds (watch does).
func (r *readiness) Hangs() (hangs []string) {
	r.mu.Lock()
	parts := r.parts
	r.mu.Unlock()
	for _, part := range parts {
		hangs = append(hangs, part.Hangs(r.now())...)
	}
	return hangs
}

// register makes readiness a metric: an alert needs no second way to ask.
func (r *readiness) register(reg prometheus.Registerer) {
	reg.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "tiffin_ready", Help: "1 while /readyz answers 200, else 0.",
	}, func() float64 {
		if len(r.Reasons()) == 0 {
			return 1
		}
		return 0
	}))
}

// Progress returns what takes its time, a line each: large campaigns, recoveries.
func (r *readiness) Progress() []string {
	r.mu.Lock()
	progress := r.progress
	r.mu.Unlock()
	if progress == nil {
		return nil
	}
	return progress()
}

func (r *readiness) of(progress func() []string, parts ...reasoner) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.progress, r.parts = progress, parts
}

func (r *readiness) stop() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.stopping = true
}
