package stream

import (
	"context"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

// stretch is the part of a topic that is read: from where the first record of the comparison
// may lie to the topic's end at the start.
type stretch struct {
	topic     string
	compacted bool
	parts     map[int32]*stretchPart
}

type stretchPart struct {
	begin, end int64
	// next is the position while reading.
	next int64
	// trimmed says that older records than begin were there, and are not any more.
	trimmed bool
	// first is the first message of each input partition that was seen here: records come in
	// the order of their messages, so those of later ones cannot have been removed before it.
	first map[int32]int64
	// begun says that a record of the comparison was seen here.
	begun bool
}

// stretchOf asks for the offsets; since is when the first message was handled, nil for any time.
func (v *verifier) stretchOf(ctx context.Context, topic string, since *time.Time) (*stretch, error) {
	adm := kadm.NewClient(v.cl)
	s := &stretch{topic: topic, parts: map[int32]*stretchPart{}}
	list := func(what string, ask func() (kadm.ListedOffsets, error), each func(*stretchPart, int64)) error {
		offsets, err := ask()
		if err == nil {
			err = offsets.Error()
		}
		if err != nil {
			return fmt.Errorf("%s offsets of topic %s: %w", what, topic, err)
		}
		offsets.Each(func(o kadm.ListedOffset) {
			if s.parts[o.Partition] == nil {
				s.parts[o.Partition] = &stretchPart{first: map[int32]int64{}}
			}
			each(s.parts[o.Partition], o.Offset)
		})
		return nil
	}
	err := list("last", func() (kadm.ListedOffsets, error) { return adm.ListEndOffsets(ctx, topic) },
		func(p *stretchPart, o int64) { p.end = o })
	if err == nil {
		err = list("first", func() (kadm.ListedOffsets, error) { return adm.ListStartOffsets(ctx, topic) },
			func(p *stretchPart, o int64) { p.begin, p.trimmed = o, o > 0 })
	}
	if err == nil && since != nil {
		at := since.Add(-clockMargin).UnixMilli()
		err = list("timed", func() (kadm.ListedOffsets, error) { return adm.ListOffsetsAfterMilli(ctx, at, topic) },
			func(p *stretchPart, o int64) {
				if o > p.begin {
					p.begin, p.trimmed = o, false
				}
			})
	}
	if err != nil {
		return nil, err
	}
	s.compacted = v.isCompacted(ctx, adm, topic)
	return s, nil
}

// isCompacted is false where nobody may ask.
func (v *verifier) isCompacted(ctx context.Context, adm *kadm.Client, topic string) bool {
	configs, err := adm.DescribeTopicConfigs(ctx, topic)
	if err != nil {
		return false
	}
	rc, err := configs.On(topic, nil)
	if err != nil {
		return false
	}
	for _, c := range rc.Configs {
		if c.Key == "cleanup.policy" {
			return c.Value != nil && slices.Contains([]string{"compact", "compact,delete", "delete,compact"}, *c.Value)
		}
	}
	return false
}

// saw notes a record of an input partition's message.
func (s *stretch) saw(r *kgo.Record, partition int32, offset int64) {
	first := s.parts[r.Partition].first
	if _, known := first[partition]; !known {
		first[partition] = offset
	}
}

// settleGone says for each input partition up to which message records may have been removed
// with the older part of the topic.
func (s *stretch) settleGone(spans map[int32]*judged, into func(*judged) *int64) {
	for partition, span := range spans {
		gone := int64(-1)
		for _, p := range s.parts {
			first, seen := p.first[partition]
			switch {
			case s.compacted, p.trimmed && !seen:
				gone = math.MaxInt64
			case p.trimmed:
				gone = max(gone, first)
			}
		}
		*into(span) = gone
	}
}

// stallLimit is how long an open transaction may hold back what is to be read: longer than the
// brokers leave one of a dead daemon open.
const stallLimit = transactionTimeout + 30*time.Second

// read calls each for the committed records of the stretch, in the order of their offsets
// within a partition. each must not keep the record.
func (v *verifier) read(ctx context.Context, s *stretch, each func(*kgo.Record) error) error {
	from := map[int32]kgo.Offset{}
	for n, p := range s.parts {
		p.next = p.begin
		if p.begin < p.end {
			from[n] = kgo.NewOffset().At(p.begin)
			v.Progress.recordsAll.Add(p.end - p.begin)
		}
	}
	if len(from) == 0 {
		return nil
	}
	cl, err := v.Kafka.newClient(
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{s.topic: from}),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), // what retention removes meanwhile
		kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.KeepControlRecords(), // the end is usually a transaction's marker
		// Compressed; campaigns of many clients repeat themselves, and unpack to 20 times as much.
		kgo.FetchMaxBytes(2<<20), kgo.FetchMaxPartitionBytes(512<<10),
	)
	if err != nil {
		return err
	}
	defer cl.Close()
	for left := len(from); left > 0; {
		stalled, cancel := context.WithTimeout(ctx, stallLimit)
		fetches := cl.PollFetches(stalled)
		timedOut := stalled.Err() != nil
		cancel()
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if timedOut {
			return fmt.Errorf("topic %s: nothing came for %s, though not all is read: a transaction that nobody ends holds it back "+
				"(kafka-transactions.sh find-hanging); positions left: %s", s.topic, stallLimit, s.left())
		}
		reached, err := v.take(cl, s, fetches, each)
		if err != nil {
			return err
		}
		left -= reached
	}
	return nil
}

// take hands out one poll's records; it returns how many partitions came to their end.
func (v *verifier) take(cl *kgo.Client, s *stretch, fetches kgo.Fetches, each func(*kgo.Record) error) (reached int, err error) {
	fetches.EachPartition(func(fp kgo.FetchTopicPartition) {
		p := s.parts[fp.Partition]
		if fp.Err != nil && err == nil && (p == nil || !kerr.IsRetriable(fp.Err)) {
			err = fmt.Errorf("read %s/%d: %w", s.topic, fp.Partition, fp.Err)
		}
		if err != nil || p == nil || p.next >= p.end {
			return
		}
		if fp.LogStartOffset > p.next { // removed under our eyes
			p.trimmed = true
			clear(p.first)
		}
		for _, r := range fp.Records {
			if r.Offset >= p.end {
				p.next = p.end
				break
			}
			v.Progress.records.Add(r.Offset + 1 - p.next)
			p.next = r.Offset + 1
			if r.Attrs.IsControl() {
				continue
			}
			if err = each(r); err != nil {
				return
			}
		}
		p.next = max(p.next, min(fp.LogStartOffset, p.end))
		if p.next >= p.end {
			reached++
			cl.PauseFetchPartitions(map[string][]int32{s.topic: {fp.Partition}})
		}
	})
	return reached, err
}

func (s *stretch) left() string {
	var left []string
	for _, n := range slices.Sorted(maps.Keys(s.parts)) {
		if p := s.parts[n]; p.next < p.end {
			left = append(left, fmt.Sprintf("%d at %d of %d", n, p.next, p.end))
		}
	}
	return strings.Join(left, ", ")
}
