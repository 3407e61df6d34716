package stream

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// position is what the group's offset says: the next message, and how many records of that
// message are out already when a campaign takes several transactions.
type position struct {
	offset int64
	sent   int64
	// leader is the leader epoch (KIP-320) of the message before, or of a campaign under way, plus one; 0
	// where it is not known. By it is seen that an offset was given out again.
	leader int32
}

// committedByUs is our metadata of an offset commit: another tool's is not, and what we
// committed the ledger must know. sentPrefix is that of a large campaign under way.
const (
	committedByUs = "tiffin"
	sentPrefix    = committedByUs + " sent="
)

func (p position) metadata() *string {
	if p.sent == 0 {
		return new(committedByUs)
	}
	return new(sentPrefix + strconv.FormatInt(p.sent, 10))
}

// isOurs reports whether an offset's metadata is of a commit by tiffin.
func isOurs(metadata *string) bool {
	return metadata != nil && (*metadata == committedByUs || strings.HasPrefix(*metadata, sentPrefix))
}

func parseSent(metadata *string) (int64, error) {
	if metadata == nil {
		return 0, nil
	}
	number, ours := strings.CutPrefix(*metadata, sentPrefix)
	if !ours {
		return 0, nil // committed by another tool
	}
	n, err := strconv.ParseInt(number, 10, 64)
	if err != nil || n < 0 {
		return 0, fmt.Errorf("metadata %q of the group's offset: want a number of records", shorten(*metadata))
	}
	return n, nil
}

// member is this process as the group knows it. Its generation is read at each commit: what
// is given up is delivered first, so a commit is always for partitions of this generation.
type member struct {
	cl       *kgo.Client
	group    string
	instance *string
	topic    topicInfo
}

// commitRetry is how long a commit is tried again while the group rebalances.
const (
	commitRetry      = 30 * time.Second
	commitRetryPause = 20 * time.Millisecond
)

// commitIn adds the offsets to the producer's open transaction (KIP-447): the broker refuses
// them when the generation is over, which fences a zombie.
func (m *member) commitIn(ctx context.Context, p *producer, at map[int32]position) error {
	id, epoch, err := p.cl.ProducerID(ctx)
	if err != nil {
		return fmt.Errorf("offsets of group %s: %w", m.group, err)
	}
	if p.explicit {
		add := func() error { return m.addOffsets(ctx, p, id, epoch) }
		if err := m.retry(ctx, add, kerr.ConcurrentTransactions); err != nil {
			return fmt.Errorf("offsets of group %s: %w", m.group, err)
		}
	}
	commit := func() error {
		req := kmsg.NewPtrTxnOffsetCommitRequest()
		req.TransactionalID, req.ProducerID, req.ProducerEpoch = p.txnID, id, epoch
		req.Group, req.InstanceID = m.group, m.instance
		req.MemberID, req.Generation = m.cl.GroupMetadata()
		topic := kmsg.NewTxnOffsetCommitRequestTopic()
		topic.Topic, topic.TopicID = m.topic.name, m.topic.id
		for partition, pos := range at {
			o := kmsg.NewTxnOffsetCommitRequestTopicPartition()
			o.Partition, o.Offset, o.LeaderEpoch, o.Metadata = partition, pos.offset, pos.leader-1, pos.metadata()
			topic.Partitions = append(topic.Partitions, o)
		}
		req.Topics = append(req.Topics, topic)
		resp, err := req.RequestWith(ctx, p.cl)
		if err != nil {
			return err
		}
		for _, t := range resp.Topics {
			for _, r := range t.Partitions {
				err = errors.Join(err, kerr.ErrorForCode(r.ErrorCode))
			}
		}
		return err
	}
	if err := m.retry(ctx, commit, kerr.RebalanceInProgress, kerr.ConcurrentTransactions); err != nil {
		return fmt.Errorf("offsets of group %s in transaction %s: %w", m.group, p.txnID, err)
	}
	return nil
}

func (m *member) addOffsets(ctx context.Context, p *producer, id int64, epoch int16) error {
	req := kmsg.NewPtrAddOffsetsToTxnRequest()
	req.TransactionalID, req.ProducerID, req.ProducerEpoch, req.Group = p.txnID, id, epoch, m.group
	resp, err := req.RequestWith(ctx, p.cl)
	if err != nil {
		return err
	}
	return kerr.ErrorForCode(resp.ErrorCode)
}

// commit moves the group's offsets outside of any transaction: for messages that produced
// nothing, and in at_least_once mode.
func (m *member) commit(ctx context.Context, at map[int32]position) error {
	commit := func() error {
		req := kmsg.NewPtrOffsetCommitRequest()
		req.Group, req.InstanceID = m.group, m.instance
		req.MemberID, req.Generation = m.cl.GroupMetadata()
		topic := kmsg.NewOffsetCommitRequestTopic()
		topic.Topic, topic.TopicID = m.topic.name, m.topic.id
		for partition, pos := range at {
			o := kmsg.NewOffsetCommitRequestTopicPartition()
			o.Partition, o.Offset, o.LeaderEpoch, o.Metadata = partition, pos.offset, pos.leader-1, pos.metadata()
			topic.Partitions = append(topic.Partitions, o)
		}
		req.Topics = append(req.Topics, topic)
		resp, err := req.RequestWith(ctx, m.cl)
		if err != nil {
			return err
		}
		for _, t := range resp.Topics {
			for _, r := range t.Partitions {
				err = errors.Join(err, kerr.ErrorForCode(r.ErrorCode))
			}
		}
		return err
	}
	if err := m.retry(ctx, commit, kerr.RebalanceInProgress); err != nil {
		return fmt.Errorf("offsets of group %s: %w", m.group, err)
	}
	return nil
}

// retry repeats do while it answers with one of the passing errors, or with an old
// generation while the group hands out a new one.
func (m *member) retry(ctx context.Context, do func() error, passing ...error) error {
	ctx, cancel := context.WithTimeout(ctx, commitRetry)
	defer cancel()
	for {
		_, before := m.cl.GroupMetadata()
		err := do()
		if err == nil {
			return nil
		}
		again := false
		for _, p := range passing {
			again = again || errors.Is(err, p)
		}
		if errors.Is(err, kerr.IllegalGeneration) {
			_, now := m.cl.GroupMetadata()
			again = now != before
		}
		if !again {
			return err
		}
		if late := wait(ctx, commitRetryPause); late != nil {
			return errors.Join(err, late)
		}
	}
}

// wantsAddOffsets asks whether the cluster lacks transactions of version 2 (KIP-890, part 2),
// with which TxnOffsetCommit alone brings the offsets into the transaction.
func wantsAddOffsets(ctx context.Context, cfg *Config) (bool, error) {
	if cfg.Mode != ExactlyOnce {
		return false, nil
	}
	cl, err := cfg.Kafka.newClient()
	if err != nil {
		return false, err
	}
	defer cl.Close()
	ctx, cancel := context.WithTimeout(ctx, produceTimeout)
	defer cancel()
	req := kmsg.NewPtrApiVersionsRequest()
	req.ClientSoftwareName, req.ClientSoftwareVersion = "tiffin", "1"
	resp, err := req.RequestWith(ctx, cl)
	if err != nil {
		return false, fmt.Errorf("ask the broker for its transaction version: %w", err)
	}
	for _, f := range resp.FinalizedFeatures {
		if f.Name == "transaction.version" {
			return f.MaxVersionLevel < 2, nil
		}
	}
	return true, nil
}
