package daemon

import (
	"slices"
	"sync"
)

// reasoner is a part that can say why it is not ready.
type reasoner interface {
	Reasons() []string // empty: ready; safe for concurrent use
}

// readiness gathers the reasons of all parts. Before the parts exist, and once the daemon
// stops, it has a reason of its own. Safe for concurrent use.
type readiness struct {
	mu       sync.Mutex
	parts    []reasoner
	stopping bool
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

func (r *readiness) of(parts ...reasoner) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.parts = parts
}

func (r *readiness) stop() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.stopping = true
}
