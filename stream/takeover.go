package stream

import (
	"context"
	"errors"
	"fmt"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// committed is the group's stable offset of a partition; offset is negative when there is none.
type committed struct {
	position
	ours  bool // committed by tiffin, not by another tool
	fault error
}

// remember keeps what the group's offset fetch answered, metadata included; it is called in
// the group's goroutine before takeOver.
func (s *session) remember(resp *kmsg.OffsetFetchResponse) {
	s.committed = map[int32]committed{}
	for _, g := range resp.Groups {
		for _, t := range g.Topics {
			for _, p := range t.Partitions {
				sent, err := parseSent(p.Metadata)
				s.committed[p.Partition] = committed{position{p.Offset, sent, p.LeaderEpoch + 1}, isOurs(p.Metadata), err}
			}
		}
	}
}

// takeOver claims newly assigned partitions, brings Kafka level with the ledger and says
// where to read on. It runs in the group's goroutine, beside the heartbeats.
func (s *session) takeOver(ctx context.Context, offsets map[string]map[int32]kgo.Offset) (map[string]map[int32]kgo.Offset, error) {
	spans, err := inputSpans(ctx, s.cl, s.topics.input.name)
	if err != nil {
		return nil, err
	}
	if err := s.endWhereLost(ctx, spans); err != nil {
		return nil, err
	}
	for _, partitions := range offsets {
		for partition := range partitions {
			at, err := s.takePartition(ctx, partition, spans)
			if err != nil {
				return nil, err
			}
			partitions[partition] = kgo.NewOffset().At(at)
		}
	}
	return offsets, nil
}

// takePartition follows the recovery table of ARCHITECTURE.md: K is the group's committed
// offset, P the ledger's. It returns where to read on.
func (s *session) takePartition(ctx context.Context, partition int32, spans map[int32]span) (int64, error) {
	k, found := s.committed[partition]
	if k.fault != nil {
		return 0, k.fault
	}
	if !found {
		k.offset = -1
	}
	topicID := s.topics.input.id
	e, ok, err := s.store.claim(ctx, partition, topicID)
	if err == nil && !ok {
		if err := s.enter(ctx, partition, k, spans); err != nil {
			return 0, err
		}
		e, _, err = s.store.claim(ctx, partition, topicID)
	}
	if err != nil {
		return 0, sinkFault(sinkPostgres, err)
	}
	in := spans[partition]
	var next int64
	var behind *recovery
	if anotherTopic(e.topicID, topicID) {
		next, err = s.recreated(ctx, partition, e, in)
	} else {
		next, behind, err = s.position(ctx, partition, k, e, in)
	}
	if err != nil {
		return 0, err
	}
	cl := &claim{partition: partition, epoch: e.epoch, planned: next, seen: next}
	if behind != nil {
		cl.inflight = 1
		started := s.lanes.begin(partition, func(h *held) { s.spawn(func() error { return s.catchUp(cl, h, behind) }) })
		if !started { // the session is about to end
			cl.inflight, cl.cut = 0, true
		}
	}
	s.claims.put(cl)
	s.log.Info("partition taken", "partition", partition, "offset", next, "epoch", e.epoch)
	return next, nil
}

// catchUp runs a recovery on a lane: the other partitions go on meanwhile.
func (s *session) catchUp(cl *claim, h *held, r *recovery) error {
	what := "recovery of " + triggerID(s.topics.input.name, cl.partition, r.from.offset)
	return s.drive(cl, h, what, func(l *lane) error {
		err := s.inTurn(l, r)
		if oversize, ok := errors.AsType[*oversizeError](err); ok {
			return s.awaitLimit(l, oversize)
		}
		return err
	})
}

// inTurn runs one recovery after the other.
func (s *session) inTurn(l *lane, r *recovery) error {
	l.pulse.Rest() // behind the recovery of another partition
	select {
	case s.recovering <- struct{}{}:
		defer func() { <-s.recovering }()
	case <-l.cut.Done():
		return errCut
	}
	return r.run(s.work, l)
}

// position is where to read on by the offsets, and what there is to recover beside that.
func (s *session) position(ctx context.Context, partition int32, k committed, e entry, in span) (int64, *recovery, error) {
	next, behind, err := s.levelOut(ctx, partition, k, e)
	if err != nil {
		return 0, nil, err
	}
	if behind != nil && (next < in.start || next > in.high) {
		// The offset is about to move, and with it what says where the recovery begins.
		if err := behind.run(ctx, nil); err != nil {
			return 0, nil, err
		}
		behind = nil
	}
	next, err = s.withinLog(ctx, partition, e.epoch, next, in)
	return next, behind, err
}

// levelOut compares K and P and returns the offset at which both sinks are equal, now or once
// the recovery, if there is one to run, has ended.
func (s *session) levelOut(ctx context.Context, partition int32, k committed, e entry) (int64, *recovery, error) {
	at := map[int32]position{partition: {offset: e.next}}
	switch {
	case k.offset < 0 && e.next == e.level:
		// A new partition, or one given up in order whose offset has expired meanwhile.
		return e.next, nil, s.member.commit(ctx, at)
	case k.offset < 0:
		return 0, nil, &LedgerError{partition, fmt.Sprintf("group %s has no committed offset any more, but the ledger stands at %d and was not "+
			"given up in order: nobody knows whether the last records went out. Set the group's offset (kafka-consumer-groups.sh "+
			"--reset-offsets --to-offset N): %d if they did, lower to send the records from N on again", s.cfg.Kafka.Group, e.next, e.next)}
	case e.next < k.offset || e.next == k.offset && k.sent > 0:
		next, err := s.ledgerBehind(ctx, partition, k.position, e)
		return next, nil, err
	case e.next > k.offset:
		// Where the group's offset is another tool's, somebody moved it; but for one that tiffin
		// began at and has not moved yet.
		asked := !k.ours && k.offset != e.level
		return e.next, &recovery{s: s, partition: partition, from: k.position, to: e.next, asked: asked}, nil
	default:
		return e.next, nil, nil
	}
}

func (s *session) ledgerBehind(ctx context.Context, partition int32, k position, e entry) (int64, error) {
	log := s.log.With("partition", partition, "ledger", e.next, "group_offset", k.offset)
	switch s.cfg.LedgerBehind {
	case LedgerSkip:
		log.Warn("the ledger lies behind the group's offset; trusting Kafka, the rows in between stay missing")
		next := k.offset
		if k.sent > 0 {
			next++ // a part of this message's records is out already
		}
		if err := s.store.moveTo(ctx, partition, e.epoch, next); err != nil {
			return 0, sinkFault(sinkPostgres, err)
		}
		return next, s.member.commit(ctx, map[int32]position{partition: {offset: next}})
	case LedgerReplay:
		log.Warn("the ledger lies behind the group's offset; trusting the ledger, the records in between go out again")
		return e.next, s.member.commit(ctx, map[int32]position{partition: {offset: e.next}})
	default:
		return 0, &LedgerError{partition, fmt.Sprintf("the ledger in the feedback database stands at %d, the offset of group %s at %d: "+
			"the feedback database was restored from a backup, failed over to a standby that lagged behind, or belongs to another group, or "+
			"somebody set the group's offset forward. Start once with --ledger-behind=skip to go on "+
			"at %d without the missing rows, or with --ledger-behind=replay to handle the messages from %d on again",
			e.next, s.cfg.Kafka.Group, k.offset, k.offset, e.next)}
	}
}
