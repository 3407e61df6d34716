package stream

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// defaultMaxMessage is Kafka's default of max.message.bytes (message.max.bytes).
const defaultMaxMessage = 1_048_588

// describeTopics finds the three topics, asking the broker to create what is missing if its
// rules allow that.
func describeTopics(ctx context.Context, cl *kgo.Client, k *KafkaConfig, known *limits, log *slog.Logger) (topics, error) {
	var all topics
	for _, t := range []struct {
		name string
		into *topicInfo
	}{{k.Input, &all.input}, {k.Output, &all.output}, {k.DeadLetter, &all.deadLetter}} {
		info, err := describeTopic(ctx, cl, t.name)
		if err != nil {
			return topics{}, err
		}
		*t.into = info
	}
	sizes, err := messageLimits(ctx, cl, k.Output, k.DeadLetter)
	if err != nil {
		log.Warn("topic settings can't be read (grant DescribeConfigs on the topics); assuming the default max.message.bytes",
			"bytes", defaultMaxMessage, "err", err)
	}
	all.output.maxMessage = known.of(k.Output, sizes[0])
	all.deadLetter.maxMessage = known.of(k.DeadLetter, sizes[1])
	return all, nil
}

// limits are what was learned of topics whose brokers refused batches that their settings
// seemed to allow: the settings could not be read, or are not all that counts. One session
// at a time uses it.
type limits struct {
	told map[string]int32 // by the settings, when learned
	used map[string]int32
}

func newLimits() *limits { return &limits{told: map[string]int32{}, used: map[string]int32{}} }

// of is the limit to work with when the settings tell one.
func (l *limits) of(topic string, told int32) int32 {
	if l.told[topic] != told {
		l.told[topic], l.used[topic] = told, told // new settings, a new try
	}
	return l.used[topic]
}

// smallestLimit is where learning ends: no campaign fits into less.
const smallestLimit = 1024

// learn halves the limit of a topic that refused what was within it.
func (l *limits) learn(err error) {
	if waited, ok := errors.AsType[*oversizeError](err); ok {
		delete(l.told, waited.topic) // a new try
	}
	refused, ok := errors.AsType[*ProduceError](err)
	if ok && errors.Is(refused.Err, kerr.MessageTooLarge) && l.used[refused.Topic] == refused.limit {
		l.used[refused.Topic] = max(refused.limit/2, smallestLimit)
	}
}

// describeTopic waits a little for a topic that is just being created.
func describeTopic(ctx context.Context, cl *kgo.Client, name string) (topicInfo, error) {
	const tries = 20
	for try := 0; ; try++ {
		info, err := topicMetadata(ctx, cl, name)
		passing := errors.Is(err, kerr.UnknownTopicOrPartition) || errors.Is(err, kerr.LeaderNotAvailable)
		if err == nil || !passing || try == tries {
			if passing {
				err = &TopicError{Topic: name, Err: errors.Unwrap(err)} // the code alone: the error names the topic
			}
			return info, err
		}
		if err := wait(ctx, 100*time.Millisecond); err != nil {
			return info, err
		}
	}
}

func topicMetadata(ctx context.Context, cl *kgo.Client, name string) (topicInfo, error) {
	req := kmsg.NewPtrMetadataRequest()
	req.AllowAutoTopicCreation = true
	topic := kmsg.NewMetadataRequestTopic()
	topic.Topic = new(name)
	req.Topics = append(req.Topics, topic)
	resp, err := req.RequestWith(ctx, cl)
	if err != nil {
		return topicInfo{}, fmt.Errorf("ask the brokers for topic %s: %w", name, err)
	}
	if len(resp.Topics) != 1 {
		return topicInfo{}, fmt.Errorf("ask the brokers for topic %s: %d answers", name, len(resp.Topics))
	}
	t := resp.Topics[0]
	if err := kerr.ErrorForCode(t.ErrorCode); err != nil {
		return topicInfo{}, fmt.Errorf("topic %s: %w", name, err)
	}
	for _, p := range t.Partitions {
		if err := kerr.ErrorForCode(p.ErrorCode); errors.Is(err, kerr.LeaderNotAvailable) {
			return topicInfo{}, fmt.Errorf("topic %s, partition %d: %w", name, p.Partition, err)
		}
	}
	return topicInfo{name: name, id: t.TopicID, partitions: int32(len(t.Partitions)), maxMessage: defaultMaxMessage}, nil
}

func messageLimits(ctx context.Context, cl *kgo.Client, names ...string) ([]int32, error) {
	limits := make([]int32, len(names))
	for i := range limits {
		limits[i] = defaultMaxMessage
	}
	configs, err := kadm.NewClient(cl).DescribeTopicConfigs(ctx, names...)
	if err != nil {
		return limits, err
	}
	for i, name := range names {
		rc, err := configs.On(name, nil)
		if err == nil {
			err = rc.Err
		}
		if err != nil {
			return limits, err
		}
		for _, c := range rc.Configs {
			if c.Key != "max.message.bytes" || c.Value == nil {
				continue
			}
			n, err := strconv.ParseInt(*c.Value, 10, 32)
			if err != nil {
				return limits, fmt.Errorf("topic %s: max.message.bytes: %w", name, err)
			}
			limits[i] = int32(n)
		}
	}
	return limits, nil
}

// span is what a partition of the input topic holds: offsets [start, high). A read_committed
// consumer sees those below end; above it a transaction is open.
type span struct{ start, end, high int64 }

func inputSpans(ctx context.Context, cl *kgo.Client, topic string) (map[int32]span, error) {
	adm := kadm.NewClient(cl)
	spans := map[int32]span{}
	for _, q := range []struct {
		what string
		list func(context.Context, ...string) (kadm.ListedOffsets, error)
		set  func(*span, int64)
	}{
		{"first", adm.ListStartOffsets, func(s *span, o int64) { s.start = o }},
		{"last committed", adm.ListCommittedOffsets, func(s *span, o int64) { s.end = o }},
		{"last", adm.ListEndOffsets, func(s *span, o int64) { s.high = o }},
	} {
		offsets, err := q.list(ctx, topic)
		if err == nil {
			err = offsets.Error()
		}
		if err != nil {
			return nil, fmt.Errorf("%s offsets of topic %s: %w", q.what, topic, err)
		}
		offsets.Each(func(o kadm.ListedOffset) {
			s := spans[o.Partition]
			q.set(&s, o.Offset)
			spans[o.Partition] = s
		})
	}
	return spans, nil
}
