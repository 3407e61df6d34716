package stream_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"example.com/tiffin/internal/devstack"
	"example.com/tiffin/internal/devstack/devstacktest"
	"example.com/tiffin/stream"
)

// Three brokers, one fault after the other: delivery pauses if it must, says why within 15 s,
// goes on when it can, and both sinks hold everything once.
func TestBrokerFaultsLoseNothing(t *testing.T) {
	t.Parallel()
	k := devstacktest.StartKafka(t, devstack.KafkaOptions{Brokers: 3})
	for _, c := range []struct {
		name    string
		records int // of a transaction; a campaign has 100
		run     func(*outage, *devstack.Kafka)
		dsn     string
	}{
		{"one killed in a backlog, then all", 60, (*outage).brokersKilled, ""},
		{"leaders moved in a backlog", 60, (*outage).leadersMoved, ""},
		{"one after the other restarted", 60, (*outage).brokersRestarted, ""},
		{"a transaction without an end", 60, (*outage).transactionWithoutEnd, ""},
		{"not enough replicas", 200, (*outage).notEnoughReplicas, "&idle_in_transaction_session_timeout=1s"},
	} {
		t.Run(c.name, func(t *testing.T) { //nolint:paralleltest // one cluster, one fault after the other
			if err := k.Start(t.Context()); err != nil { // whom a fault before left dead
				t.Fatal(err)
			}
			r := newRigOn(t, k, 2, map[string][]string{"r": clients(100)})
			r.asOrdinaryRole()
			r.cfg.MaxTransactionRecords = c.records
			r.cfg.FeedbackDSN += c.dsn
			o := newOutage(t, r)
			c.run(o, k)
			o.settled()
			o.bothEqual()
		})
	}
	t.Run("the doctor beside one that is killed", func(t *testing.T) { doctorBesideAKilledBroker(t, k) }) //nolint:paralleltest // as above
}

func (o *outage) brokersKilled(k *devstack.Kafka) {
	o.publish(30)
	o.eventually("some deliveries", func() bool { return o.rowCount() >= 500 })
	k.KillBroker(2)
	o.publish(10)
	// The brokers that are left may keep the end of a transaction to themselves until they are started again
	// (KAFKA-16352; on 4.1 the group's offsets were once unstable for 95 s with all of ours done): its offsets are
	// looked at then.
	o.await("all deliveries and readiness", o.delivered)
	k.Kill()
	lost := time.Now()
	o.unready("connection refused")
	if d := time.Since(lost); d > 15*time.Second {
		o.t.Errorf("unready %s after the last broker was killed: want 15 s at most", d)
	}
	o.startBrokers(k)
	o.publish(4)
}

// startBrokers starts those that do not run. The test's own client begins anew: what it
// remembers of its producer id may be gone.
func (o *outage) startBrokers(k *devstack.Kafka) {
	o.t.Helper()
	if err := k.Start(o.t.Context()); err != nil {
		o.t.Fatal(err)
	}
	o.admin.Close()
	var err error
	if o.admin, err = kgo.NewClient(kgo.SeedBrokers(k.PlainBrokers()...), kgo.RecordPartitioner(kgo.ManualPartitioner())); err != nil {
		o.t.Fatal(err)
	}
	o.t.Cleanup(o.admin.Close)
}

// leadersMoved: the first replica of every partition becomes another, and its leader.
func (o *outage) leadersMoved(*devstack.Kafka) {
	adm := kadm.NewClient(o.admin)
	for range 4 {
		o.publish(15)
		before := o.leaders()
		topics, err := adm.ListTopics(o.t.Context(), o.cfg.Kafka.Input, o.cfg.Kafka.Output)
		if err != nil {
			o.t.Fatal(err)
		}
		var req kadm.AlterPartitionAssignmentsReq
		moved := kadm.TopicsSet{}
		topics.EachPartition(func(p kadm.PartitionDetail) {
			req.Assign(p.Topic, p.Partition, append(p.Replicas[1:len(p.Replicas):len(p.Replicas)], p.Replicas[0]))
			moved.Add(p.Topic, p.Partition)
		})
		if _, err := adm.AlterPartitionAssignments(o.t.Context(), req); err != nil {
			o.t.Fatal(err)
		}
		o.eventuallyOr("another leader of every partition", func() bool {
			// Not needed: by the time of the question the controller has moved it by itself, or does not
			// know the new order yet and is asked again.
			if _, err := adm.ElectLeaders(o.t.Context(), kadm.ElectPreferredReplica, moved); err != nil {
				return false
			}
			now := o.leaders()
			for partition, leader := range before {
				if at, known := now[partition]; !known || at < 0 || at == leader {
					return false
				}
			}
			return true
		}, func() string { return fmt.Sprintf("leaders were %v and are %v", before, o.leaders()) })
	}
}

// leaders are the brokers that lead the partitions of the input and the output topic.
func (o *outage) leaders() map[string]int32 {
	o.t.Helper()
	topics, err := kadm.NewClient(o.admin).ListTopics(o.t.Context(), o.cfg.Kafka.Input, o.cfg.Kafka.Output)
	if err != nil {
		o.t.Fatal(err)
	}
	at := map[string]int32{}
	topics.EachPartition(func(p kadm.PartitionDetail) { at[fmt.Sprintf("%s/%d", p.Topic, p.Partition)] = p.Leader })
	return at
}

// brokersRestarted: each broker hands its leaders over in order, and comes back.
func (o *outage) brokersRestarted(k *devstack.Kafka) {
	for n := range 3 {
		ctx, cancel := context.WithTimeout(o.t.Context(), 30*time.Second)
		if err := k.StopBroker(ctx, n); err != nil {
			o.t.Fatal(err)
		}
		cancel()
		o.publish(5)
		if err := k.StartBroker(o.t.Context(), n); err != nil {
			o.t.Fatal(err)
		}
		o.settled()
	}
}

// notEnoughReplicas: the brokers refuse what is produced, while everything else works. A
// campaign of large records keeps its Postgres transaction open meanwhile, for longer than
// Postgres allows.
func (o *outage) notEnoughReplicas(k *devstack.Kafka) {
	o.alter(o.cfg.Kafka.Output, "min.insync.replicas", "3")
	k.KillBroker(2)
	large := campaign("r", "large")
	large.Content = strings.Repeat("40 KB of content", 2_500)
	o.publishAs(large)
	since := time.Now()
	o.unready("topic "+o.cfg.Kafka.Output, "NOT_ENOUGH_REPLICAS", "min.insync.replicas is 3")
	if d := time.Since(since); d > 20*time.Second { // the brokers take 9 s to miss the one, the probe 5 s more
		o.t.Errorf("unready after %s", d)
	}
	o.publish(4)
	o.startBrokers(k)
}

// transactionWithoutEnd: the coordinator has the outcome of a predecessor's transaction, and a partition that
// is to be told of it has no leader. Such a one also comes of brokers before 3.8 by themselves (KAFKA-16352).
func (o *outage) transactionWithoutEnd(k *devstack.Kafka) {
	if devstack.KafkaBefore(3, 0) {
		o.t.Skip("older brokers do not tell of their transactions (KIP-664)")
	}
	if err := o.stop(); err != nil {
		o.t.Fatal(err)
	}
	id := o.transactionIDs()[1]
	cl, err := kgo.NewClient(kgo.SeedBrokers(k.PlainBrokers()...), kgo.TransactionalID(id), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		o.t.Fatal(err)
	}
	defer cl.Close()
	if err := cl.BeginTransaction(); err != nil {
		o.t.Fatal(err)
	}
	coordinators := kadm.NewClient(o.admin).FindTxnCoordinators(o.t.Context(), id)
	if err := coordinators.Error(); err != nil {
		o.t.Fatal(err)
	}
	dead := int(coordinators[id].NodeID) % 3 // of 0, 1, 2 the one behind it: nodes are numbered from 1
	topic, partition := o.aloneOn(int32(dead) + 1)
	if err := cl.ProduceSync(o.t.Context(), &kgo.Record{Topic: topic, Partition: partition, Value: []byte("v")}).FirstErr(); err != nil {
		o.t.Fatal(err)
	}
	k.KillBroker(dead)
	if err := cl.EndTransaction(o.t.Context(), kgo.TryCommit); err != nil {
		o.t.Fatal(err)
	}
	o.publish(4)
	o.engine, o.stop = o.start(func(cfg *stream.Config) { cfg.Registerer = prometheus.NewRegistry() })
	o.settled()
	if state := o.transactionStates()[id]; state != "PrepareCommit" {
		o.t.Errorf("the state of transaction %s is %s: the test has shown nothing", id, state)
	}
	if !o.log.has("another transactional id is used", id, "PrepareCommit", "fix=") {
		o.t.Error("the log does not tell of it")
	}
	o.startBrokers(k)
	o.eventually("the end of the transaction", func() bool { return o.transactionStates()[id] == "CompleteCommit" })
}

// aloneOn makes a topic without replicas and returns its partition on a broker.
func (o *outage) aloneOn(broker int32) (topic string, partition int32) {
	o.t.Helper()
	topic = o.cfg.Kafka.Output + "_alone"
	adm := kadm.NewClient(o.admin)
	if _, err := adm.CreateTopic(o.t.Context(), 3, 1, map[string]*string{"min.insync.replicas": new("1")}, topic); err != nil {
		o.t.Fatal(err)
	}
	o.eventually("a partition on the broker", func() bool {
		topics, err := adm.ListTopics(o.t.Context(), topic)
		if err != nil {
			return false
		}
		for _, p := range topics[topic].Partitions {
			if p.Leader == broker {
				partition = p.Partition
				return true
			}
		}
		return false
	})
	return topic, partition
}

// A topic that asks for more replicas than it has takes nothing, though none is out of sync; the client
// would try for ever in silence.
func TestTopicThatAsksForMoreReplicasThanItHas(t *testing.T) {
	t.Parallel()
	r := newRig(t, 2, map[string][]string{"r": clients(3)})
	o := newOutage(t, r)
	o.alter(r.cfg.Kafka.Output, "min.insync.replicas", "2")
	o.publish(1)
	o.unready("topic "+r.cfg.Kafka.Output, "NOT_ENOUGH_REPLICAS", "min.insync.replicas is 2")
	o.alter(r.cfg.Kafka.Output, "min.insync.replicas", "1")
	o.settled()
	o.bothEqual()
}

func (r *rig) rowCount() (n int) {
	r.t.Helper()
	conn := r.db.Connect(r.t)
	defer func() { _ = conn.Close(r.t.Context()) }()
	if err := conn.QueryRow(r.t.Context(), `SELECT count(*) FROM subscribers_feedback`).Scan(&n); err != nil {
		return 0 // not yet migrated
	}
	return n
}
