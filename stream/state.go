package stream

import (
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"example.com/tiffin/internal/pulse"
)

// slowStep is how long a step may take before it is a reason not to be ready.
const slowStep = 10 * time.Second

// state is what the engine is at, for people and probes. Safe for concurrent use.
type state struct {
	now func() time.Time

	mu     sync.Mutex
	phase  string            // why not ready; empty when delivering
	fault  string            // what ended the last session, while there is no new one
	steps  [5]step           // by goroutine
	counts [4]int            // of the batches that are at storing and publishing
	probes map[string]string // sink -> what its probe says
	served bool              // ready at least once
	large  []*progress       // of what is on a lane
	waits  map[int32]string  // partition -> why it waits while others go on
	moved  bool              // something was delivered since the last fault

	pulses pulse.Pulses
	// session is the pulse of what opens and ends sessions, planner of what plans batches, writer of
	// what brings them to Postgres, publisher of what brings them to the brokers.
	session, planner, writer, publisher *pulse.Pulse
}

// step is what a goroutine waits for, and since when.
type step struct {
	what  string
	since time.Time
}

// The goroutines whose steps are told.
const (
	polling = iota
	planning
	storing
	publishing
	joining // the group
)

func newState(now func() time.Time) *state {
	s := &state{now: now, phase: "starting", probes: map[string]string{}, waits: map[int32]string{}}
	s.session, s.planner = s.pulses.New("stream: the session"), s.pulses.New("stream: the planner")
	s.writer, s.publisher = s.pulses.New("stream: a writer"), s.pulses.New("stream: a publisher")
	return s
}

// enter says what the session is at before it delivers.
func (s *state) enter(phase string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.phase = phase
}

// ready says that the group has assigned partitions and that they were taken over.
func (s *state) ready() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.phase, s.fault, s.served = "", "", true
}

// ended says why a session is over.
func (s *state) ended(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fault, s.phase = err.Error(), ""
	clear(s.steps[:])
	clear(s.probes)
	clear(s.waits)
	clear(s.counts[:])
	s.planner.Rest()
	s.writer.Rest()
	s.publisher.Rest()
}

// doing says what a goroutine waits for; empty for messages.
func (s *state) doing(who int, what string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case who != planning:
	case what == "":
		s.planner.Rest()
	default:
		s.planner.Beat()
	}
	if s.steps[who].what != what {
		s.steps[who] = step{what, s.now()}
	}
}

// writing says that a batch is on its way into Postgres, which may take as long as the limit.
func (s *state) writing(limit time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.writer.Await(limit)
	s.arrives(storing, "waiting for the feedback database")
}

// stored says that Postgres has committed a batch: the brokers' turn. Another may still be on its
// way, within the limit.
func (s *state) stored(limit time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.writer.Await(limit)
	s.leaves(storing, s.writer)
	s.publisher.Beat()
	s.arrives(publishing, "waiting for the brokers to commit")
}

// arrives counts a batch in at a step that several may be at; mu is held.
func (s *state) arrives(at int, what string) {
	if s.counts[at]++; s.counts[at] == 1 {
		s.steps[at] = step{what, s.now()}
	}
}

// leaves counts it out: whoever is left waits anew, and without any the goroutine rests.
func (s *state) leaves(at int, p *pulse.Pulse) {
	if s.counts[at]--; s.counts[at] == 0 {
		p.Rest()
		s.steps[at].what = ""
	}
	s.steps[at].since = s.now()
}

// chunkOut says that a part of a large campaign is in both sinks.
func (s *state) chunkOut() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.moved = true
}

// published says that a batch is in both sinks.
func (s *state) published() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.moved = true
	s.publisher.Beat()
	s.leaves(publishing, s.publisher)
}

// progressed reports whether a batch was delivered since it was last asked.
func (s *state) progressed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	moved := s.moved
	s.moved = false
	return moved
}

// probed keeps what the probe of a sink says; empty for well.
func (s *state) probed(sink, reason string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.probes[sink] = reason
}

// everReady reports whether any session got as far as delivering.
func (s *state) everReady() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.served
}

// reasons lists why nothing is being delivered; nil when all is well.
func (s *state) reasons() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var why []string
	if s.fault != "" {
		why = append(why, s.fault)
	}
	if s.phase != "" {
		why = append(why, "stream: "+s.phase)
	}
	for _, step := range s.steps {
		if step.what == "" {
			continue
		}
		if d := s.now().Sub(step.since); d >= slowStep {
			why = append(why, fmt.Sprintf("stream: %s for %s", step.what, d.Round(time.Second)))
		}
	}
	for _, sink := range []string{sinkPostgres, sinkKafka} {
		if p := s.probes[sink]; p != "" {
			why = append(why, p)
		}
	}
	for _, partition := range slices.Sorted(maps.Keys(s.waits)) {
		why = append(why, fmt.Sprintf("partition %d: %s", partition, s.waits[partition]))
	}
	return why
}

// stuck says why one partition waits; empty when it no longer does.
func (s *state) stuck(partition int32, why string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if why == "" {
		delete(s.waits, partition)
		return
	}
	s.waits[partition] = why
}
