package stream

import (
	"context"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// rereadTimeout bounds the wait for the next record of the input topic that is read again.
const rereadTimeout = 15 * time.Second

// fetchOne reads one record of the input topic; nil when it is no longer there.
func (s *session) fetchOne(ctx context.Context, partition int32, offset int64) (found *kgo.Record, err error) {
	start, err := s.inputStart(ctx, partition)
	if err != nil || offset < start { // the partition may be empty: a read would wait for what comes next
		return nil, err
	}
	err = s.reread(ctx, partition, offset, func(r *kgo.Record) (more bool) {
		if r.Offset == offset && !r.Attrs.IsControl() {
			found = r
		}
		return r.Offset < offset
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

// reread calls each for the committed records of a partition of the input topic from an offset on, markers of
// transactions included, while it wants more.
func (s *session) reread(ctx context.Context, partition int32, from int64, each func(*kgo.Record) (more bool)) error {
	cl, err := s.cfg.Kafka.newClient(kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{
		s.topics.input.name: {partition: kgo.NewOffset().At(from)},
	}), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.KeepControlRecords(), kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.FetchMaxWait(fetchWait), kgo.WithContext(ctx))
	if err != nil {
		return err
	}
	defer cl.Close()
	for {
		records, err := pollOnce(ctx, cl)
		if err != nil {
			return fmt.Errorf("read the input topic again: %w", err)
		}
		for _, r := range records {
			if !each(r) {
				return nil
			}
		}
	}
}

func pollOnce(ctx context.Context, cl *kgo.Client) ([]*kgo.Record, error) {
	ctx, cancel := context.WithTimeout(ctx, rereadTimeout)
	defer cancel()
	fetches := cl.PollRecords(ctx, 1000)
	return fetches.Records(), fetches.Err()
}
