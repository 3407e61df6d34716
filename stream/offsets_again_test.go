package stream_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"example.com/tiffin/internal/devstack"
	"example.com/tiffin/internal/devstack/devstacktest"
	"example.com/tiffin/stream"
)

// An unclean leader election takes messages away that were handled, and their offsets are given out again before a
// process looks: the new messages there are not passed over in silence (KIP-320).
func TestOffsetsGivenOutAgainAreTold(t *testing.T) {
	t.Parallel()
	k := devstacktest.StartKafka(t, devstack.KafkaOptions{Brokers: 3})
	r := newRigOn(t, k, 1, map[string][]string{"r": {"a"}})
	r.cfg.Kafka.Input = servers.Unique(t, "unclean")
	createUnclean(t, r.admin, r.cfg.Kafka.Input, 2, 3)
	publish := func(what string, n int) {
		values := make([][]byte, n)
		for i := range values {
			values[i] = campaign("r", fmt.Sprint(what, i)).json(t)
		}
		r.publish(0, values...)
	}
	reopen := func() {
		t.Helper()
		r.admin.Close()
		var err error
		if r.admin, err = kgo.NewClient(kgo.SeedBrokers(k.PlainBrokers()...), kgo.RecordPartitioner(kgo.ManualPartitioner())); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(r.admin.Close)
	}
	publish("first", 5)
	r.untilNow()
	if err := k.StopBroker(t.Context(), 2); err != nil {
		t.Fatal(err)
	}
	reopen()
	publish("lost", 5)
	r.untilNow()
	r.wantDelivered(10, 10)
	k.KillBroker(1)
	if err := k.StartBroker(t.Context(), 2); err != nil {
		t.Fatal(err)
	}
	reopen()
	adm := kadm.NewClient(r.admin)
	r.eventually("an unclean leader", func() bool {
		set := kadm.TopicsSet{}
		set.Add(r.cfg.Kafka.Input, 0)
		_, _ = adm.ElectLeaders(t.Context(), kadm.ElectLiveReplica, set)
		m, err := adm.ListTopics(t.Context(), r.cfg.Kafka.Input)
		return err == nil && m[r.cfg.Kafka.Input].Partitions[0].Leader == 3
	})
	publish("again", 8)
	err := r.tryUntilNow()
	if _, told := errors.AsType[*stream.LedgerError](err); !told {
		t.Errorf("the start ended with %v", err)
	}
	r.wantDelivered(10, 10)
}

// createUnclean makes a topic of one partition on two brokers, of which one may lead that lacks messages.
func createUnclean(t *testing.T, cl *kgo.Client, name string, brokers ...int32) {
	t.Helper()
	topic := kmsg.NewCreateTopicsRequestTopic()
	topic.Topic, topic.NumPartitions, topic.ReplicationFactor = name, -1, -1
	topic.ReplicaAssignment = []kmsg.CreateTopicsRequestTopicReplicaAssignment{{Partition: 0, Replicas: brokers}}
	for key, value := range map[string]string{"min.insync.replicas": "1", "unclean.leader.election.enable": "true"} {
		c := kmsg.NewCreateTopicsRequestTopicConfig()
		c.Name, c.Value = key, &value
		topic.Configs = append(topic.Configs, c)
	}
	req := kmsg.NewPtrCreateTopicsRequest()
	req.Topics = append(req.Topics, topic)
	resp, err := req.RequestWith(t.Context(), cl)
	if err != nil || resp.Topics[0].ErrorCode != 0 {
		t.Fatal(err, resp)
	}
}
