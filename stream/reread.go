package stream

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

const (
	// rereadTimeout bounds the wait for the next position in the input topic that is read again.
	rereadTimeout = 15 * time.Second
	rereadPause   = 50 * time.Millisecond
	// rereadBytes is how much of a partition is asked for at once.
	rereadBytes = 1 << 20
)

// fetchOne reads one record of the input topic; nil when it is no longer there.
func (s *session) fetchOne(ctx context.Context, partition int32, offset int64) (found *kgo.Record, err error) {
	start, err := s.inputStart(ctx, partition)
	if err != nil || offset < start {
		return nil, err
	}
	err = s.reread(ctx, partition, offset, offset+1, func(r *kgo.Record) {
		if !r.Attrs.IsControl() {
			found = r
		}
	})
	return found, err
}

// inputStart is the first offset that a partition of the input topic still has.
func (s *session) inputStart(ctx context.Context, partition int32) (int64, error) {
	ctx, cancel := context.WithTimeout(ctx, rereadTimeout)
	defer cancel()
	listed, err := kadm.NewClient(s.cl).ListStartOffsets(ctx, s.topics.input.name)
	if err != nil {
		return 0, fmt.Errorf("first offset of %s/%d: %w", s.topics.input.name, partition, err)
	}
	o, ok := listed.Lookup(s.topics.input.name, partition)
	if !ok {
		return 0, fmt.Errorf("first offset of %s/%d: no answer", s.topics.input.name, partition)
	}
	return o.Offset, o.Err
}

// reread calls each for the committed records of a partition of the input topic in [from, to), markers of
// transactions included; to is not beyond what was read before. Compaction may have taken the last ones, and
// nothing may follow them: so it asks for batches itself and goes by the position, as a consumer waits for
// a record that never comes.
func (s *session) reread(ctx context.Context, partition int32, from, to int64, each func(*kgo.Record)) error {
	cl, err := s.cfg.Kafka.newClient()
	if err != nil {
		return err
	}
	defer cl.Close()
	at := reading{cl: cl, topic: s.topics.input, partition: partition, next: from, leader: noLeader}
	for moved := time.Now(); at.next < to; {
		before := at.next
		records, err := at.fetch(ctx)
		for _, r := range records {
			if r.Offset < to {
				each(r)
			}
		}
		if errors.Is(err, kerr.OffsetOutOfRange) { // retention was quicker
			var start int64
			if start, err = s.inputStart(ctx, partition); err == nil {
				at.next = max(at.next, start)
			}
		}
		if at.next > before {
			moved = time.Now()
			continue
		}
		if err == nil {
			err = errNothingComes
		}
		if refused, ok := errors.AsType[*kerr.Error](err); ok && !refused.Retriable || time.Since(moved) > rereadTimeout {
			return fmt.Errorf("read %s again, up to offset %d: %w", triggerID(at.topic.name, partition, at.next), to, err)
		}
		if err := wait(ctx, rereadPause); err != nil {
			return err
		}
	}
	return nil
}

var errNothingComes = errors.New("the brokers have committed messages up to here only, though more was handled")

// reading is a position in a partition of a topic. For one goroutine.
type reading struct {
	cl        *kgo.Client
	topic     topicInfo
	partition int32
	next      int64
	leader    int32
}

// noLeader says that the brokers are to be asked who leads the partition.
const noLeader = -1

// fetch asks the partition's leader for what comes next, waits for nothing, and moves the position.
func (at *reading) fetch(ctx context.Context) ([]*kgo.Record, error) {
	ctx, cancel := context.WithTimeout(ctx, rereadTimeout)
	defer cancel()
	if at.leader == noLeader {
		if err := at.find(ctx); err != nil {
			return nil, err
		}
	}
	p := kmsg.NewFetchRequestTopicPartition()
	p.Partition, p.FetchOffset, p.PartitionMaxBytes = at.partition, at.next, rereadBytes
	t := kmsg.NewFetchRequestTopic()
	t.Topic, t.TopicID, t.Partitions = at.topic.name, at.topic.id, append(t.Partitions, p)
	req := kmsg.NewPtrFetchRequest()
	req.IsolationLevel, req.Topics = 1, append(req.Topics, t) // read_committed
	resp, err := req.RequestWith(ctx, at.cl.Broker(int(at.leader)))
	if err == nil {
		err = kerr.ErrorForCode(resp.ErrorCode)
	}
	if err != nil {
		at.leader = noLeader
		return nil, err
	}
	if len(resp.Topics) != 1 || len(resp.Topics[0].Partitions) != 1 {
		return nil, nil // throttled, say
	}
	return at.take(&resp.Topics[0].Partitions[0], resp.ThrottleMillis > 0)
}

// take unpacks an answer. One without batches says that there are none up to the end of what is
// committed, unless it was throttled.
func (at *reading) take(p *kmsg.FetchResponseTopicPartition, throttled bool) ([]*kgo.Record, error) {
	opts := kgo.ProcessFetchPartitionOpts{
		KeepControlRecords: true, Offset: at.next, IsolationLevel: kgo.ReadCommitted(), Topic: at.topic.name, Partition: at.partition,
	}
	fetched, next := kgo.ProcessFetchPartition(opts, p, kgo.DefaultDecompressor(), nil)
	switch {
	case fetched.Err != nil:
		at.leader = noLeader // it may be another by now
	case len(p.RecordBatches) == 0 && !throttled:
		next = max(next, fetched.LastStableOffset)
	}
	at.next = max(at.next, next)
	return fetched.Records, fetched.Err
}

func (at *reading) find(ctx context.Context) error {
	described, err := kadm.NewClient(at.cl).ListTopics(ctx, at.topic.name)
	if err != nil {
		return err
	}
	t := described[at.topic.name]
	p, ok := t.Partitions[at.partition]
	switch {
	case t.Err != nil:
		return t.Err
	case !ok:
		return kerr.UnknownTopicOrPartition
	case p.Err != nil:
		return p.Err
	}
	at.leader = p.Leader
	return nil
}
