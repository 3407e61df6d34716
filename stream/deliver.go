package stream

import (
	"context"
	"time"

	"example.com/tiffin/internal/pulse"
)

const (
	// batchDeliveries is how many rows and records a batch gathers: beyond it neither sink
	// gets faster (FACTS: 10,000 saturate the machine), and a crash costs less to repeat.
	batchDeliveries = 10_000
	// batchTriggers bounds a batch of messages that deliver little or nothing: a transaction costs
	// the broker some 20 ms of CPU, however small it is. It bounds a poll too.
	batchTriggers = 10_000
	// lookupLimit is how long a lookup may take: it may read all of a restaurant from a source that has
	// no index for it, or that holds the table locked for a while.
	lookupLimit = 30 * time.Minute
)

// deliverAll plans what was polled, batch after batch, while the writers bring earlier batches to
// Postgres and the publishers to Kafka.
func (s *session) deliverAll(ctx context.Context, polled <-chan []message) error {
	defer s.lanes.close()
	defer s.state.doing(planning, "")
	g := newGathering()
	defer func() { g.batch.abandon() }() // only what is not on its way is left in it
	for more := true; more; {
		var err error
		more, err = s.deliverNext(ctx, g, polled)
		if err != nil {
			if ctx.Err() != nil && s.work.Err() == nil {
				return nil // asked to stop: what was not admitted stays for the next time
			}
			return err
		}
	}
	if ctx.Err() != nil {
		return nil
	}
	return s.sendGathered(g)
}

// deliverNext handles what comes next. What is gathered goes out, full or not, once a writer is free and
// nothing more is at hand to join it.
func (s *session) deliverNext(ctx context.Context, g *gathering, polled <-chan []message) (more bool, err error) {
	free := s.writersFor(g)
	select {
	case p, more := <-polled:
		return more, s.handle(ctx, g, p)
	case <-s.lanes.ended:
		return true, s.goOn(ctx, g)
	default:
	}
	select {
	case p, more := <-polled:
		return more, s.handle(ctx, g, p)
	case <-s.lanes.ended:
		return true, s.goOn(ctx, g)
	case w := <-free:
		s.writers <- w // beginStoring takes it
		return true, s.sendGathered(g)
	case <-ctx.Done():
		return false, nil
	}
}

// writersFor are those that may take what is gathered; nil, so that nobody waits for them, when that is nothing.
func (s *session) writersFor(g *gathering) <-chan deliverer {
	if g.empty() {
		s.state.doing(planning, "")
		return nil
	}
	s.state.doing(planning, "waiting for the feedback database")
	s.state.planner.Await(s.storingLimit())
	return s.writers
}

// handle plans messages, but for those of partitions that are held back. What is overdue goes out before the next.
func (s *session) handle(ctx context.Context, g *gathering, messages []message) error {
	for _, m := range messages {
		if s.overdue(g) {
			if err := s.sendGathered(g); err != nil {
				return err
			}
		}
		if s.lanes.hold(m) {
			continue
		}
		t, err := s.planNext(ctx, m)
		if err != nil {
			return err
		}
		if t != nil && t.cold || t.deliveries() > s.cfg.MaxTransactionRecords {
			if err := s.divert(g, t, m); err != nil {
				return err
			}
			continue
		}
		if t != nil {
			if err := s.gather(g, t, m); err != nil {
				return err
			}
		}
		g.last[m.Partition] = m
	}
	if g.empty() {
		g.saw(s.claims)
	}
	return nil
}

func (s *session) batchTarget() int { return min(batchDeliveries, s.cfg.MaxTransactionRecords) }

// mayCommit says when Postgres may commit a batch: with bulky records once the brokers have
// taken them. A transaction that is not committed takes them back; what is visible at once
// (at_least_once) must be stored first all the same: then the brokers are asked for the limit.
func (s *session) mayCommit(ctx context.Context, b *batch) <-chan struct{} {
	switch {
	case !b.bulky:
		return closed()
	case s.cfg.Mode == ExactlyOnce:
		return b.produced
	default:
		return s.onceLimitsStand(ctx, b)
	}
}

func closed() chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}

// planNext plans a message that is ours to handle; nil for all others: transaction markers,
// and what was read before a partition changed hands.
func (s *session) planNext(ctx context.Context, m message) (*trigger, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if m.Attrs.IsControl() {
		return nil, nil
	}
	next, ours := s.claims.position(m)
	if !ours || m.Offset < next {
		return nil, nil
	}
	s.state.doing(planning, "looking up subscribers (index)")
	s.state.planner.Await(lookupLimit)
	return s.planner.plan(ctx, m)
}

// send takes a batch into delivery and returns an empty one. It blocks while too many are in flight,
// and until Postgres has the rows of the batch before; where the batch is not large, until Postgres
// has committed it: a transaction has its price, however small it is, and what comes meanwhile
// shares one. An error ends the session.
func (s *session) send(b *batch) (*batch, error) {
	if len(b.triggers) == 0 {
		return b, nil
	}
	s.state.doing(planning, "waiting for earlier batches to be in both sinks")
	s.state.planner.Await(2 * pulse.Limit) // the publishers show signs of life themselves
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
	if err := s.beginStoring(b, prev); err != nil {
		b.leave()
		return newBatch(), err
	}
	if b.alone || b.bulky || !s.isLarge(b) {
		return newBatch(), await(s.work, b.stored)
	}
	return newBatch(), nil
}

func (s *session) isLarge(b *batch) bool {
	return 2*b.deliveries >= s.batchTarget() || 2*len(b.triggers) >= batchTriggers
}
