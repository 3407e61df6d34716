package stream

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
)

// anotherTopic reports whether two topics of a name are not the same; an id is zero where the brokers have none.
func anotherTopic(a, b [16]byte) bool {
	none := [16]byte{}
	return a != b && a != none && b != none
}

// recreated is for a topic that is not the one whose offsets the ledger holds (KIP-516): it was
// deleted and created again. Its offsets say nothing of what was handled, and with the old
// topic the brokers have forgotten which records of the last messages are out.
func (s *session) recreated(ctx context.Context, partition int32, e entry, in span) (int64, error) {
	if s.cfg.InputReset != InputAnew {
		return 0, &LedgerError{partition, fmt.Sprintf("topic %s was deleted and created again: its id is %s, the ledger's offset %d is of %s. "+
			"Compare both sinks with `tiffin verify`, because records that it names as missing will not be sent any more; then start once with "+
			"--input-reset=anew to set the old messages' manifest aside and handle the new topic from its first message (%d), or give the new topic "+
			"a group of its own (kafka.group)",
			s.topics.input.name, hex.EncodeToString(s.topics.input.id[:]), e.next, hex.EncodeToString(e.topicID[:]), in.start)}
	}
	s.log.Warn("the input topic was deleted and created again; beginning anew at its first message", "partition", partition,
		"ledger", e.next, "known_equal_below", e.level, "offset", in.start)
	return in.start, s.beginAnew(ctx, partition, e.epoch, 0, in.start)
}

// endWhereLost ends the span of each partition that has lost messages below the group's offset where they
// begin, whatever took their offsets since: what was handled is not there any more, and what is there was
// not handled (an unclean leader election; KIP-320).
func (s *session) endWhereLost(ctx context.Context, spans map[int32]span) error {
	req := kadm.OffsetForLeaderEpochRequest{}
	for partition, k := range s.committed {
		if k.leader > 0 && k.fault == nil {
			req.Add(s.topics.input.name, partition, k.leader-1)
		}
	}
	if len(req) == 0 {
		return nil
	}
	ends, err := kadm.NewClient(s.cl).OffsetForLeaderEpoch(ctx, req)
	if err != nil {
		return sinkFault(sinkKafka, fmt.Errorf("ends of leader epochs of topic %s: %w", s.topics.input.name, err))
	}
	for partition, end := range ends[s.topics.input.name] {
		switch {
		case errors.Is(end.Err, kerr.ClusterAuthorizationFailed), errors.Is(end.Err, kerr.TopicAuthorizationFailed), errors.Is(end.Err, kerr.UnsupportedVersion):
			continue // brokers before 2.3 tell it to one another alone
		case end.Err != nil:
			return sinkFault(sinkKafka, fmt.Errorf("end of a leader epoch of %s/%d: %w", s.topics.input.name, partition, end.Err))
		}
		handled := s.committed[partition].offset
		if s.committed[partition].sent > 0 {
			handled++ // of the message there, in part
		}
		if in, ok := spans[partition]; ok && end.EndOffset >= 0 && end.EndOffset < handled {
			in.end, in.high = min(in.end, end.EndOffset), min(in.high, end.EndOffset)
			spans[partition] = in
		}
	}
	return nil
}

// withinLog checks the position against what the input topic still holds.
func (s *session) withinLog(ctx context.Context, partition int32, epoch, next int64, in span) (int64, error) {
	switch {
	case next > in.high && s.cfg.InputReset != InputAnew:
		return 0, &LedgerError{partition, fmt.Sprintf("the ledger stands at %d, but topic %s ends at %d, or holds other messages from there on: the brokers have lost messages that were handled "+
			"(an unclean leader election), or the topic was created again. Start once with --input-reset=anew to set the lost messages' manifest aside and go on at %d",
			next, s.topics.input.name, in.high, in.high)}
	case next > in.high:
		s.log.Warn("the input topic ends before the ledger; going on at its end", "partition", partition, "ledger", next, "offset", in.high)
		return in.high, s.beginAnew(ctx, partition, epoch, in.high, in.high)
	case next >= in.start:
		return next, nil
	}
	s.log.Error("campaign messages were deleted by the topic's retention before they were handled",
		"partition", partition, "from_offset", next, "to_offset", in.start)
	if err := s.store.moveTo(ctx, partition, epoch, in.start); err != nil {
		return 0, sinkFault(sinkPostgres, err)
	}
	s.metrics.lost.WithLabelValues(lostUnhandled).Add(float64(in.start - next))
	return in.start, s.member.commit(ctx, map[int32]position{partition: {offset: in.start}})
}

// beginAnew sets the manifest from offset first on aside and moves both offsets to next.
func (s *session) beginAnew(ctx context.Context, partition int32, epoch, first, next int64) error {
	n, err := s.store.setAside(ctx, partition, epoch, first, next, s.topics.input.id)
	if pg, ok := errors.AsType[*pgconn.PgError](err); ok && pg.Code == "42501" {
		return &LedgerError{partition, fmt.Sprintf("%v: for this one start the role of feedback.dsn needs GRANT UPDATE ON tiffin.trigger", err)}
	}
	if err != nil {
		return sinkFault(sinkPostgres, err)
	}
	s.log.Warn("manifest set aside", "partition", partition, "messages", n, "topic", fmt.Sprintf("%s@%d", s.topics.input.name, epoch))
	return s.member.commit(ctx, map[int32]position{partition: {offset: next}})
}
