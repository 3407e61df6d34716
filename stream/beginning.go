package stream

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/twmb/franz-go/pkg/kadm"
)

// enter brings a partition into the ledger that it does not know. A new group enters all
// partitions of the topic at once: from then on an unknown one was added to the topic, and is
// read from its first message, because kafka.start says where a group begins, not a partition.
func (s *session) enter(ctx context.Context, partition int32, k committed, spans map[int32]span) error {
	known, err := s.store.positions(ctx)
	if err != nil {
		return sinkFault(sinkPostgres, err)
	}
	starts := map[int32]int64{}
	if len(known) > 0 {
		if starts[partition], err = s.beginning(partition, k, spans[partition].start, spans[partition]); err != nil {
			return err
		}
		s.log.Info("partition is new to the ledger of this group: it was added to the topic", "partition", partition, "offset", starts[partition])
	} else if starts, err = s.birth(ctx, spans); err != nil {
		return err
	}
	if err := s.store.begin(ctx, starts, s.topics.input.id); err != nil {
		return sinkFault(sinkPostgres, err)
	}
	return nil
}

// birth is where each partition begins for a group that the ledger does not know.
func (s *session) birth(ctx context.Context, spans map[int32]span) (map[int32]int64, error) {
	k := &s.cfg.Kafka
	resp, err := kadm.NewClient(s.cl).FetchOffsets(kadm.RequireStable(ctx), k.Group)
	if err != nil {
		return nil, sinkFault(sinkKafka, fmt.Errorf("offsets of group %s: %w", k.Group, err))
	}
	others, err := s.store.otherGroups(ctx)
	if err != nil {
		return nil, sinkFault(sinkPostgres, err)
	}
	starts, fresh := map[int32]int64{}, 0
	for _, partition := range slices.Sorted(maps.Keys(spans)) {
		at := committed{position: position{offset: -1}}
		if o, ok := resp.Lookup(k.Input, partition); ok {
			if o.Err != nil {
				return nil, sinkFault(sinkKafka, fmt.Errorf("offsets of group %s, partition %d: %w", k.Group, partition, o.Err))
			}
			sent, err := parseSent(&o.Metadata)
			if err != nil {
				return nil, err
			}
			at = committed{position: position{offset: o.At, sent: sent}, ours: isOurs(&o.Metadata)}
		}
		if at.offset < 0 {
			fresh++
		}
		in := spans[partition]
		start := in.end
		if k.Start == StartEarliest {
			start = in.start
		}
		if starts[partition], err = s.beginning(partition, at, start, in); err != nil {
			return nil, err
		}
	}
	s.log.Info("group is new to the ledger", "group", k.Group, "kafka_start", k.Start, "partitions", len(starts), "without_offset", fresh)
	if len(others) > 0 && fresh > 0 {
		s.log.Warn("the ledger knows other groups of this topic; if this one was renamed, what the old one has not handled is lost or comes twice: "+
			"stop, drop this group's rows of tiffin.progress, set its offsets in Kafka to those of the old group, and start again",
			"group", k.Group, "others", strings.Join(others, ","))
	}
	return starts, nil
}

// beginning is where a partition begins that the ledger does not know: at the group's offset,
// or, without one, at start. An offset that tiffin itself committed says that the ledger did
// know it.
func (s *session) beginning(partition int32, k committed, start int64, in span) (int64, error) {
	switch {
	case k.offset < 0:
		return start, nil
	case k.ours && k.sent > 0 && s.cfg.LedgerBehind == LedgerSkip:
		return k.offset + 1, nil // a part of this message's records is out already
	case !k.ours || s.cfg.LedgerBehind == LedgerSkip:
		return k.offset, nil
	case s.cfg.LedgerBehind == LedgerReplay:
		s.log.Warn("the ledger has lost this partition; handling all that the topic still holds again", "partition", partition, "from_offset", in.start, "group_offset", k.offset)
		return in.start, nil
	}
	return 0, &LedgerError{partition, fmt.Sprintf("the ledger in the feedback database knows nothing of it, but tiffin has delivered it up to offset %d "+
		"for group %s: the feedback database was restored from an older backup, or is another one. Correct feedback.dsn, or start once with "+
		"--ledger-behind=skip to begin at %d without the rows of what lies before, or with --ledger-behind=replay to handle all messages that the "+
		"topic still holds (from %d) again", k.offset, s.cfg.Kafka.Group, k.offset, in.start)}
}
