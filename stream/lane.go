package stream

import (
	"context"
	"errors"
	"fmt"

	"example.com/tiffin/internal/pulse"
)

// maxLanes bounds how many partitions are on lanes of their own: one that is being stored beside two
// that send. Beside them one recovery may be under way; whoever sends what, a batch always finds a
// producer (rotation).
const maxLanes = 3

// lane delivers what one Kafka transaction cannot hold, beside the batches of the other
// partitions: a large campaign, which may have to be read first, or what a crash left unsent. Its partition waits for it:
// nothing more of it is fetched, and what was fetched is held back.
type lane struct {
	claim *claim
	held  *held
	// cut ends when the lane shall stop at the next point from which another process, or the
	// next start of this one, can go on: before Postgres' commit, or between two chunks.
	cut context.Context //nolint:containedctx // it ends with the lane
	// progress is told to people.
	progress *progress
	pulse    *pulse.Pulse
}

// errCut says that a lane stopped before its end.
var errCut = errors.New("cut short")

// divert takes a campaign that is larger than a transaction to a lane, behind everything
// that was planned before it. Without a free lane its message is held back, unplanned.
func (s *session) divert(g *gathering, t *trigger, m message) error {
	h := s.lanes.take(t.partition)
	if h == nil {
		t.release()
		s.lanes.park(m)
		return nil
	}
	err := s.sendGathered(g)
	large := newBatch()
	t.record = m.Record // should it become a dead letter
	large.add(t)
	if err != nil {
		large.abandon()
		return err
	}
	s.claims.admit(large)
	if len(large.triggers) == 0 {
		s.lanes.end(h)
		return nil
	}
	before := s.last
	s.spawn(func() error {
		defer large.abandon()
		what := triggerID(s.topics.input.name, t.partition, t.offset)
		return s.drive(large.advances[0].claim, h, what, func(l *lane) error {
			if err := s.readLarge(l, large, m); err != nil {
				return err
			}
			l.progress.total.Store(int64(t.deliveries()))
			return s.deliverLarge(l, large, before)
		})
	})
	return nil
}

// drive runs a lane of a claim that is counted in flight, to its end or until it is cut. What
// was held back meanwhile goes on only behind a lane that has come to its end, or of which
// the partition is no longer ours, and has left its claim: the next lane leaves its own cut there.
func (s *session) drive(cl *claim, h *held, what string, run func(*lane) error) error {
	cut, cancel := context.WithCancel(s.cutting)
	defer cancel()
	s.claims.onGive(cl, cancel)
	l := &lane{claim: cl, held: h, cut: cut, progress: s.state.began(what), pulse: s.state.pulses.New("stream: the lane of " + what)}
	defer s.state.finished(l.progress)
	defer s.state.pulses.Remove(l.pulse)
	l.pulse.Beat()
	err := run(l)
	switch {
	case err == nil:
		s.claims.leave(cl, true)
		s.lanes.end(h)
	case cut.Err() != nil && s.work.Err() == nil:
		s.log.Warn("a large delivery was cut short; whoever takes its partition goes on with it", "what", l.progress.String())
		s.claims.leave(cl, false)
		s.lanes.end(h)
		err = nil
	}
	return err
}

// readLarge completes the plan of a campaign whose recipients are not in memory.
func (s *session) readLarge(l *lane, b *batch, m message) error {
	t := b.triggers[0]
	if !t.cold {
		return nil
	}
	l.progress.reading.Store(true)
	defer l.progress.reading.Store(false)
	l.pulse.Await(lookupLimit)
	if err := s.planner.findRecipients(l.cut, t, m.Record); err != nil {
		return err
	}
	b.deliveries, b.bulky = t.deliveries(), t.bulky
	return nil
}

// deliverLarge stores a campaign in one Postgres transaction, on a connection of its own, and
// then sends its records in chunks. The group's offset stays at its message until the last;
// the commits' metadata says how many of its records are out.
func (s *session) deliverLarge(l *lane, b, before *batch) error {
	if err := await(l.cut, before.done); err != nil {
		return err
	}
	l.pulse.Await(pulse.Limit + 4*timeoutOf(b.deliveries))
	at := &b.timing
	at.postgres.begin(b, s.cfg.Now)
	err := s.storeLarge(l, b)
	at.postgres.end(b, s.cfg.Now, err, &at.postgresErr)
	if err != nil {
		return sinkFault(sinkPostgres, err)
	}
	at.kafka.begin(b, s.cfg.Now)
	err = s.sendLarge(l, b.triggers[0])
	at.kafka.end(b, s.cfg.Now, err, &at.kafkaErr)
	if err != nil {
		return sinkFault(sinkKafka, err)
	}
	s.metrics.delivered(b, s.cfg.Now())
	return nil
}

func (s *session) storeLarge(l *lane, b *batch) error {
	w, err := s.store.connect(l.cut)
	if err != nil {
		return fmt.Errorf("connection for a large campaign: %w", err)
	}
	defer w.close(s.work)
	b.rows = &l.progress.rows
	g := gates{ledger: closed(), commit: closed()}
	if b.bulky { // no chunk can be acknowledged before the commit
		g.commit = s.onceLimitsStand(l.cut, b)
	}
	err = w.deliver(l.cut, b, g)
	if fault := refusedRow(err); fault != nil { // alone, and nothing of it is produced yet
		b.refuse(fault)
		return w.deliver(l.cut, b, g)
	}
	return err
}

func (s *session) sendLarge(l *lane, t *trigger) error {
	if t.fault != nil {
		send := func(p *producer) error { return p.sendDeadLetter(s.work, t) }
		return s.sendChunk(send, map[int32]position{t.partition: {offset: t.offset + 1, leader: t.leader}})
	}
	total := t.deliveries()
	if total == 0 { // nobody was left when it was read
		return s.member.commit(s.work, map[int32]position{t.partition: {offset: t.offset + 1, leader: t.leader}})
	}
	env := newEnvelope(&t.campaign, t.now)
	for from := 0; from < total; {
		if l.cut.Err() != nil {
			return errCut
		}
		l.pulse.Beat()
		to := min(from+s.cfg.MaxTransactionRecords, total)
		at := position{offset: t.offset, sent: int64(to), leader: t.leader}
		if to == total {
			at = position{offset: t.offset + 1, leader: t.leader}
		}
		send := func(p *producer) error { return p.sendDeliveries(s.work, t, &env, from, to) }
		if err := s.sendChunk(send, map[int32]position{t.partition: at}); err != nil {
			return err
		}
		l.progress.records.Store(int64(to))
		s.state.chunkOut()
		from = to
	}
	return nil
}

// sendChunk sends records and moves the offsets. A chunk that has begun is finished.
func (s *session) sendChunk(send func(*producer) error, at map[int32]position) error {
	p, err := s.rotation.borrow(s.work)
	if err != nil {
		return err
	}
	defer s.rotation.giveBack(p)
	if err := p.begin(); err != nil {
		return err
	}
	if err := send(p); err != nil {
		return err
	}
	return s.conclude(s.work, p, at)
}

// conclude ends a chunk: records acknowledged, then the offsets, in the transaction or, in
// at_least_once mode, after it.
func (s *session) conclude(ctx context.Context, p *producer, at map[int32]position) error {
	if err := p.flush(ctx); err != nil {
		return err
	}
	if s.cfg.Mode == AtLeastOnce {
		return s.member.commit(ctx, at)
	}
	if err := s.member.commitIn(ctx, p, at); err != nil {
		return err
	}
	return p.commit(ctx)
}

// goOn delivers what was held back of partitions that are on no lane any more.
func (s *session) goOn(ctx context.Context, g *gathering) error {
	partitions, messages := s.lanes.release()
	if err := s.handle(ctx, g, messages); err != nil {
		return err
	}
	s.lanes.resumeRest(partitions)
	return nil
}
