package stream

import (
	"context"
	"time"
)

// publish sends a batch's records and ends its Kafka transaction. It runs beside the writer:
//
//	produce     after the batch before is produced: one client's messages keep their order
//	offsets     after those of the batch before are in its transaction: of two transactions the group's
//	            coordinator keeps the offset that was written last (OffsetMetadataManager.java)
//	commit      after Postgres has committed this batch and Kafka the one before: the ledger
//	            leads the group's offset, and offsets move forward only
func (s *session) publish(ctx context.Context, b, prev *batch) (err error) {
	b.timing.kafka.begin(b, s.cfg.Now)
	defer func() { b.timing.kafka.end(b, s.cfg.Now, err, &b.timing.kafkaErr) }()
	p, err := s.rotation.take(ctx)
	if err != nil {
		return err
	}
	defer s.rotation.give(p)
	if err := await(ctx, prev.produced); err != nil {
		return err
	}
	if err := b.awaitRows(ctx); err != nil {
		return err
	}
	switch {
	case s.cfg.Mode == AtLeastOnce || b.records() == 0:
		err = s.publishPlain(ctx, p, b, prev)
	default:
		err = s.publishTransaction(ctx, p, b, prev)
	}
	if err != nil {
		return err
	}
	s.published(b)
	return nil
}

// publishTransaction is the usual case: all records and the offsets in one transaction. It has the
// offsets while Postgres is still committing: they count with its end.
func (s *session) publishTransaction(ctx context.Context, p *producer, b, prev *batch) error {
	if err := p.begin(); err != nil {
		return err
	}
	if err := s.produce(ctx, p, b); err != nil {
		return err
	}
	close(b.produced)
	if err := await(ctx, prev.moved); err != nil {
		return err
	}
	if err := s.member.commitIn(ctx, p, b.positions()); err != nil {
		return err
	}
	close(b.moved)
	if err := s.awaitTurn(ctx, b, prev); err != nil {
		return err
	}
	return p.commit(ctx)
}

// publishPlain is without a transaction: for a batch that produces nothing, and in
// at_least_once mode, where a record is visible at once and so must wait for its row.
func (s *session) publishPlain(ctx context.Context, p *producer, b, prev *batch) error {
	if err := await(ctx, b.stored); err != nil {
		return err
	}
	if b.records() > 0 {
		if err := p.begin(); err != nil {
			return err
		}
		if err := s.produce(ctx, p, b); err != nil {
			return err
		}
	}
	close(b.produced)
	if err := s.awaitTurn(ctx, b, prev); err != nil {
		return err
	}
	if err := s.member.commit(ctx, b.positions()); err != nil {
		return err
	}
	close(b.moved)
	return nil
}

// produce sends every record of the batch and waits for the broker's acknowledgements.
func (s *session) produce(ctx context.Context, p *producer, b *batch) error {
	var env envelope
	for _, t := range b.triggers {
		switch t.outcome {
		case Delivered:
			env.encode(&t.campaign, t.now)
			if err := p.sendDeliveries(ctx, t, &env, 0, t.deliveries()); err != nil {
				return err
			}
		case Malformed:
			if err := p.sendDeadLetter(ctx, t); err != nil {
				return err
			}
		}
	}
	return p.flush(ctx)
}

// awaitTurn waits until Postgres has committed the batch and Kafka the one before.
func (s *session) awaitTurn(ctx context.Context, b, prev *batch) error {
	if err := await(ctx, b.stored); err != nil {
		return err
	}
	return await(ctx, prev.done)
}

// published ends a batch that is in both sinks.
func (s *session) published(b *batch) {
	s.metrics.delivered(b, s.cfg.Now())
	s.state.published()
	s.claims.settle(b)
	close(b.done)
}

func await(ctx context.Context, event <-chan struct{}) error {
	select {
	case <-event:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// wait is await for a time.
func wait(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// records is the number of Kafka records that the batch needs.
func (b *batch) records() int {
	n := b.deliveries
	for _, t := range b.triggers {
		if t.outcome == Malformed {
			n++
		}
	}
	return n
}

// positions are the group's offsets once the batch is delivered.
func (b *batch) positions() map[int32]position {
	at := make(map[int32]position, len(b.advances))
	for _, a := range b.advances {
		at[a.claim.partition] = position{offset: a.next, leader: a.leader}
	}
	return at
}
