package stream

import (
	"context"

	"github.com/twmb/franz-go/pkg/kgo"

	"example.com/tiffin/cache"
)

const (
	// batchDeliveries is how many rows and records a batch gathers: beyond it neither sink
	// gets faster (FACTS: 10,000 saturate the machine), and a crash costs less to repeat.
	batchDeliveries = 10_000
	// batchTriggers bounds a batch of messages that deliver little or nothing.
	batchTriggers = 2_000
)

// deliverAll plans what was polled and writes it to Postgres, batch after batch, while the
// publishers bring earlier batches to Kafka.
func (s *session) deliverAll(ctx context.Context, polled <-chan poll) error {
	for {
		s.state.doing(delivering, "")
		select {
		case p, ok := <-polled:
			if !ok {
				return nil
			}
			if err := s.handle(ctx, p); err != nil {
				if ctx.Err() != nil && s.work.Err() == nil {
					return nil // asked to stop: what was not admitted stays for the next time
				}
				return err
			}
		case <-ctx.Done():
			return nil
		}
	}
}

// handle delivers one poll's messages.
func (s *session) handle(ctx context.Context, p poll) (err error) {
	b := newBatch()
	defer func() { b.abandon() }() // only what is not on its way is left in b
	last := map[int32]int64{}
	for _, r := range p.records {
		last[r.Partition] = r.Offset + 1
		t, err := s.planNext(ctx, r, p.mark)
		if err != nil {
			return err
		}
		if t == nil {
			continue
		}
		if !s.fits(b, t) {
			if b, err = s.send(b); err != nil {
				t.release()
				return err
			}
		}
		b.add(t)
		if b.deliveries >= s.batchTarget() || len(b.triggers) >= batchTriggers {
			if b, err = s.send(b); err != nil {
				return err
			}
		}
	}
	if b, err = s.send(b); err != nil {
		return err
	}
	for partition, next := range last {
		s.claims.saw(partition, next)
	}
	return nil
}

func (s *session) batchTarget() int { return min(batchDeliveries, s.cfg.MaxTransactionRecords) }

// mayCommit says when Postgres may commit a batch: with bulky records once the brokers have
// taken them. A transaction that is not committed takes them back; what is visible at once
// (at_least_once) or comes in several transactions must be stored first all the same.
func (s *session) mayCommit(b *batch) <-chan struct{} {
	if b.bulky && s.cfg.Mode == ExactlyOnce && b.deliveries <= s.cfg.MaxTransactionRecords {
		return b.produced
	}
	now := make(chan struct{})
	close(now)
	return now
}

// fits reports whether a trigger may join a batch. A campaign that takes several Kafka
// transactions is alone in its batch.
func (s *session) fits(b *batch, t *trigger) bool {
	if t.deliveries() > s.cfg.MaxTransactionRecords {
		return len(b.triggers) == 0
	}
	return b.deliveries == 0 || b.deliveries+t.deliveries() <= s.batchTarget()
}

// planNext plans a message that is ours to handle; nil for all others: transaction markers,
// and what was read before a partition changed hands.
func (s *session) planNext(ctx context.Context, r *kgo.Record, mark cache.Mark) (*trigger, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if r.Attrs.IsControl() {
		return nil, nil
	}
	next, ours := s.claims.position(r.Partition)
	if !ours || r.Offset < next {
		return nil, nil
	}
	s.state.doing(delivering, "looking up subscribers (index)")
	return s.planner.plan(ctx, r, mark)
}

// send takes a batch into delivery and returns an empty one. It blocks until Postgres has
// committed the batch, and before that while too many are in flight; an error ends the
// session.
func (s *session) send(b *batch) (*batch, error) {
	if len(b.triggers) == 0 {
		return b, nil
	}
	s.state.doing(delivering, "waiting for the brokers to commit earlier batches")
	select {
	case s.slots <- struct{}{}:
	case <-s.work.Done():
		return b, context.Cause(s.work)
	}
	s.claims.admit(b)
	if len(b.triggers) == 0 {
		<-s.slots
		return newBatch(), nil
	}
	prev := s.last
	s.last = b
	s.spawn(func() error {
		defer func() { <-s.slots }()
		defer b.leave()
		return sinkFault(sinkKafka, s.publish(s.work, b, prev))
	})
	s.state.doing(delivering, "waiting for the feedback database")
	err := s.store.deliver(s.work, b, s.mayCommit(b))
	b.leave()
	if err != nil {
		return newBatch(), sinkFault(sinkPostgres, err)
	}
	close(b.stored)
	return newBatch(), nil
}
