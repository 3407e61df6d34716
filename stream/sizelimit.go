package stream

import (
	"context"
	"fmt"
	"time"
)

// What a topic takes (max.message.bytes) may change under a session. Three things keep rows of which
// the record is refused from being left behind:
//
//   - the probe asks for the limits, and a session that knows others than there are ends: the next
//     one plans by the new ones, and what is too large becomes a dead letter;
//   - with bulky records the limits are asked for, or the records themselves acknowledged, before
//     Postgres commits (mayCommit);
//   - what was committed all the same, because the limit sank in between, waits for the limit to be
//     raised: its rows are there for others to read, so its records must follow. Only its partition
//     waits, and readiness says why.

// limitsStand returns an error when a topic's limit is no longer what the session plans by. Limits that
// cannot be read have not changed: that was said when the session began.
func (s *session) limitsStand(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	names := []string{s.topics.output.name, s.topics.deadLetter.name}
	sizes, err := messageLimits(ctx, s.cl, names...)
	if err != nil {
		return nil // what keeps the brokers from answering is the probe's to say
	}
	for i, name := range names {
		if known := s.limits.told[name]; known != sizes[i] {
			return fmt.Errorf("topic %s takes records of %d bytes by now, not of %d (max.message.bytes): beginning anew with that", name, sizes[i], known)
		}
	}
	return nil
}

// onceLimitsStand is closed when the batch's rows are in the table, not committed yet, and the limits
// that it was planned by still hold. Otherwise the session ends.
func (s *session) onceLimitsStand(ctx context.Context, b *batch) <-chan struct{} {
	stand := make(chan struct{})
	s.spawn(func() error {
		select {
		case <-b.taken:
		case <-ctx.Done(): // the writer says why
			return nil
		}
		if err := s.limitsStand(ctx); err != nil {
			return err
		}
		close(stand)
		return nil
	})
	return stand
}

// oversizeError says that a record cannot be sent although its row is committed.
type oversizeError struct {
	topic, trigger string
	size, limit    int
}

func (e *oversizeError) Error() string {
	return fmt.Sprintf("a record of %s is in the feedback table, but with %d bytes larger than topic %s takes since max.message.bytes was lowered to %d: "+
		"it waits, and what comes behind it in its partition; raise max.message.bytes to %d or more", e.trigger, e.size, e.topic, e.limit, e.size)
}

// guessAgain is when a limit that nobody tells, but that was learned of refusals, is tried anew.
const guessAgain = 10 * time.Minute

// awaitLimit holds a partition back until the probe sees another limit, which ends the session. The
// recoveries and large campaigns of other partitions have their turn meanwhile.
func (s *session) awaitLimit(l *lane, e *oversizeError) error {
	s.lanes.rest(l.held)
	l.pulse.Rest()                                 // readiness tells of it
	s.log.Error("a partition waits: " + e.Error()) //nolint:sloglint // the words of readiness
	s.state.stuck(l.claim.partition, e.Error())
	defer s.state.stuck(l.claim.partition, "")
	again := time.NewTimer(guessAgain)
	defer again.Stop()
	for {
		select {
		case <-l.cut.Done():
			return errCut
		case <-again.C:
			if int(s.limits.told[e.topic]) != e.limit {
				return e
			}
			again.Reset(guessAgain) // it is told, and the probe looks
		}
	}
}
