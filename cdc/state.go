package cdc

import (
	"fmt"
	"sync"
	"time"
)

// state is what is said about the reader: why it is not in sync. Safe for concurrent use.
type state struct {
	mu      sync.Mutex
	reason  string // why the session does not follow, or is not caught up; "" when it is
	silence time.Duration
	loaded  bool // the index holds a load
}

func (s *state) say(reason string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reason, s.silence = reason, 0
}

// silent says for how long nothing was heard from the server, when that is worth saying.
func (s *state) silent(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.silence = d
}

func (s *state) setLoaded(loaded bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.loaded = loaded
}

func (s *state) isLoaded() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.loaded
}

func (s *state) inSync() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.reason == "" && s.silence == 0
}

func (s *state) reasons() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []string
	if s.reason != "" {
		all = append(all, "source: "+s.reason)
	}
	if s.silence > 0 {
		all = append(all, fmt.Sprintf("source: nothing heard from its walsender for %s", s.silence.Round(time.Second)))
	}
	return all
}
