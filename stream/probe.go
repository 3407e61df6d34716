package stream

import (
	"context"
	"fmt"
	"time"
)

const (
	// probeEvery and probeTimeout see to it that a lost sink is known within 15 s also when
	// there is nothing to deliver.
	probeEvery   = 5 * time.Second
	probeTimeout = 4 * time.Second
)

// probe asks both sinks for a sign of life. That ends no session: what is in flight may still
// succeed, and what fails says so itself. Limits that have changed do, another input topic of the name,
// and a feedback table that was altered.
func (s *session) probe(ctx context.Context) error {
	tick := time.NewTicker(probeEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
		s.state.probed(sinkPostgres, ask(ctx, "feedback database", s.store.ping))
		var input [16]byte
		s.state.probed(sinkKafka, ask(ctx, "kafka", func(ctx context.Context) (err error) {
			input, err = topicsTake(ctx, s.cl, &s.cfg.Kafka)
			return err
		}))
		if err := s.inputStands(input); err != nil {
			return err
		}
		if err := s.limitsStand(ctx); err != nil {
			return err
		}
		if err := s.store.stands(ctx); err != nil {
			return sinkFault(sinkPostgres, err)
		}
	}
}

func ask(ctx context.Context, whom string, ping func(context.Context) error) string {
	ctx, cancel := context.WithTimeoutCause(ctx, probeTimeout, fmt.Errorf("no sign of life within %s", probeTimeout))
	defer cancel()
	if err := ping(ctx); err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx) // why time was up says more than that it was
		}
		return fmt.Sprintf("%s: %v", whom, err)
	}
	return ""
}
