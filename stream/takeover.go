package stream

import (
	"context"
	"fmt"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// committed is the group's stable offset of a partition; offset is negative when there is none.
type committed struct {
	position
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
				s.committed[p.Partition] = committed{position{p.Offset, sent}, err}
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
	for _, partitions := range offsets {
		for partition := range partitions {
			at, err := s.takePartition(ctx, partition, spans[partition])
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
func (s *session) takePartition(ctx context.Context, partition int32, in span) (int64, error) {
	k, found := s.committed[partition]
	if k.fault != nil {
		return 0, k.fault
	}
	if !found {
		k.offset = -1
	}
	e, ok, err := s.store.claim(ctx, partition)
	if err == nil && !ok {
		e, err = s.store.begin(ctx, partition, s.beginning(k.position, in))
	}
	if err != nil {
		return 0, sinkFault(sinkPostgres, err)
	}
	next, err := s.levelOut(ctx, partition, k.position, e)
	if err != nil {
		return 0, err
	}
	if next, err = s.withinLog(ctx, partition, e.epoch, next, in); err != nil {
		return 0, err
	}
	s.claims.put(&claim{partition: partition, epoch: e.epoch, planned: next, seen: next})
	s.log.Info("partition taken", "partition", partition, "offset", next, "epoch", e.epoch)
	return next, nil
}

// beginning is where a partition begins that the ledger does not know.
func (s *session) beginning(k position, in span) int64 {
	switch {
	case k.offset >= 0:
		return k.offset
	case s.cfg.Kafka.Start == StartEarliest:
		return in.start
	default:
		return in.end
	}
}

// levelOut compares K and P and returns the offset at which both sinks are equal.
func (s *session) levelOut(ctx context.Context, partition int32, k position, e entry) (int64, error) {
	at := map[int32]position{partition: {offset: e.next}}
	switch {
	case k.offset < 0 && e.next == e.level:
		// A new partition, or one given up in order whose offset has expired meanwhile.
		return e.next, s.member.commit(ctx, at)
	case k.offset < 0:
		return 0, &LedgerError{partition, fmt.Sprintf("group %s has no committed offset any more, but the ledger stands at %d and was not "+
			"given up in order: nobody knows whether the last records went out. Set the group's offset (kafka-consumer-groups.sh "+
			"--reset-offsets --to-offset N): %d if they did, lower to send the records from N on again", s.cfg.Kafka.Group, e.next, e.next)}
	case e.next < k.offset || e.next == k.offset && k.sent > 0:
		return s.ledgerBehind(ctx, partition, k, e)
	case e.next > k.offset:
		r := recovery{s: s, partition: partition, from: k, to: e.next}
		return e.next, r.run(ctx)
	default:
		return e.next, nil
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
			"the feedback database was restored from a backup, or belongs to another group. Start once with --ledger-behind=skip to go on "+
			"at %d without the missing rows, or with --ledger-behind=replay to handle the messages from %d on again",
			e.next, s.cfg.Kafka.Group, k.offset, k.offset, e.next)}
	}
}

// withinLog checks the position against what the input topic still holds.
func (s *session) withinLog(ctx context.Context, partition int32, epoch, next int64, in span) (int64, error) {
	if next > in.high {
		return 0, &LedgerError{partition, fmt.Sprintf("the ledger stands at %d, but the input topic ends at %d: it was deleted and "+
			"created again, or truncated. Delete the partition's row of group %s from tiffin.progress and the group's offset to begin anew",
			next, in.high, s.cfg.Kafka.Group)}
	}
	if next >= in.start {
		return next, nil
	}
	s.log.Error("campaign messages were deleted by the topic's retention before they were handled",
		"partition", partition, "from_offset", next, "to_offset", in.start)
	if err := s.store.moveTo(ctx, partition, epoch, in.start); err != nil {
		return 0, sinkFault(sinkPostgres, err)
	}
	return in.start, s.member.commit(ctx, map[int32]position{partition: {offset: in.start}})
}
