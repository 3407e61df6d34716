package stream

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// topicsTake reports whether the brokers would take what a session has for them: every topic
// is there, its partitions have leaders, and those that are written to as many replicas in
// sync as min.insync.replicas asks for. The client retries such faults in silence. The input topic's id is
// zero where nobody tells it.
func topicsTake(ctx context.Context, cl *kgo.Client, k *KafkaConfig) (input [16]byte, err error) {
	req := kmsg.NewPtrMetadataRequest()
	for _, name := range []string{k.Input, k.Output, k.DeadLetter} {
		topic := kmsg.NewMetadataRequestTopic()
		topic.Topic = new(name)
		req.Topics = append(req.Topics, topic)
	}
	resp, err := req.RequestWith(ctx, cl)
	if err != nil {
		return input, err
	}
	var faults []error
	for i := range resp.Topics {
		t := &resp.Topics[i]
		if err := kerr.ErrorForCode(t.ErrorCode); err != nil {
			faults = append(faults, topicFault(*t.Topic, err))
			continue
		}
		if faults = append(faults, leaderless(t)); *t.Topic != k.Input {
			faults = append(faults, thinned(ctx, cl, t))
		} else {
			input = t.TopicID
		}
	}
	return input, errors.Join(faults...)
}

// inputStands returns an error when the input topic, which has this id now, was deleted and created again under the
// session. Newer brokers serve nobody who means the old one (KIP-516), those before Kafka 3.1 go on with the new
// one's offsets.
func (s *session) inputStands(now [16]byte) error {
	if anotherTopic(s.topics.input.id, now) {
		return fmt.Errorf("topic %s was deleted and created again: beginning anew", s.topics.input.name)
	}
	return nil
}

func topicFault(name string, err error) error {
	if errors.Is(err, kerr.UnknownTopicOrPartition) {
		return &TopicError{Topic: name, Err: err}
	}
	return fmt.Errorf("topic %s: %w", name, err)
}

func leaderless(t *kmsg.MetadataResponseTopic) error {
	var without []int32
	for _, p := range t.Partitions {
		if p.Leader < 0 || p.ErrorCode == kerr.LeaderNotAvailable.Code {
			without = append(without, p.Partition)
		}
	}
	if len(without) == 0 {
		return nil
	}
	slices.Sort(without)
	return fmt.Errorf("topic %s: no leader for partitions %v: start the brokers that hold them", *t.Topic, without)
}

// enoughInSync is as many replicas as topics ask for: of one that has them the limit is not asked.
const enoughInSync = 3

// thinned compares replicas in sync with the limit, which a topic may have above the number of
// its replicas, too.
func thinned(ctx context.Context, cl *kgo.Client, t *kmsg.MetadataResponseTopic) error {
	least, out := math.MaxInt, false
	for _, p := range t.Partitions {
		if n := len(p.ISR); n < len(p.Replicas) || n < enoughInSync {
			least, out = min(least, n), out || n < len(p.Replicas)
		}
	}
	if least == math.MaxInt {
		return nil
	}
	need, err := minInSync(ctx, cl, *t.Topic)
	if err != nil && !out {
		return nil // nothing is out of sync, as far as is known
	}
	if err != nil || least >= need {
		return err
	}
	return fmt.Errorf("topic %s: %w: %d in sync, min.insync.replicas is %d: start the missing brokers, or lower it", *t.Topic, kerr.NotEnoughReplicas, least, need)
}

// minInSync is 0 when the brokers do not tell.
func minInSync(ctx context.Context, cl *kgo.Client, topic string) (int, error) {
	configs, err := kadm.NewClient(cl).DescribeTopicConfigs(ctx, topic)
	if err != nil {
		return 0, err
	}
	rc, err := configs.On(topic, nil)
	if err != nil || rc.Err != nil {
		return 0, nil //nolint:nilerr // no right to read the settings: said once, at the session's start
	}
	for _, c := range rc.Configs {
		if c.Key == "min.insync.replicas" && c.Value != nil {
			return strconv.Atoi(*c.Value)
		}
	}
	return 0, nil
}
