package stream_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"example.com/tiffin/internal/devstack"
	"example.com/tiffin/internal/devstack/devstacktest"
	"example.com/tiffin/stream"
)

// Whatever happens to transactions, topics and the group, delivery pauses, says why, goes on
// when it can, and both sinks hold everything once.
func TestKafkaFaultsLoseNothing(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		run  func(*outage)
		set  func(*stream.Config)
		// copes says that the client may cope with it by itself: nothing is retried then.
		copes bool
	}{
		{"transaction timed out", (*outage).transactionTimedOut, func(c *stream.Config) { c.Kafka.TransactionTimeout = time.Second }, false},
		{"producer fenced", (*outage).producerFenced, nil, false},
		{"output topic deleted and made again", (*outage).outputDeleted, nil, false},
		{"output topic replaced", (*outage).outputReplaced, nil, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, 2, map[string][]string{"r": clients(40)})
			if c.set != nil {
				c.set(&r.cfg)
			}
			o := newOutage(t, r)
			c.run(o)
			if c.copes {
				o.settled()
				o.bothEqual()
				return
			}
			o.over("kafka")
		})
	}
}

// transactionIDs are those of the engine's producers, in use or not.
func (o *outage) transactionIDs() []string {
	var ids []string
	for n := range 3 {
		ids = append(ids, fmt.Sprintf("%s.%s.%d", o.cfg.Kafka.Group, o.cfg.Kafka.Process, n))
	}
	return ids
}

// transactionTimedOut: Postgres stalls with records in an open transaction, until the broker
// aborts that.
func (o *outage) transactionTimedOut() {
	if devstack.KafkaBefore(3, 0) {
		o.t.Skip("older brokers do not tell of their transactions (KIP-664)")
	}
	other := o.hold("LOCK TABLE subscribers_feedback IN ACCESS EXCLUSIVE MODE")
	before := o.transactionStates()
	o.publish(4)
	o.blocked()
	o.eventually("the abort of a transaction", func() bool {
		for id, state := range o.transactionStates() {
			if state == "CompleteAbort" && before[id] != state {
				return true
			}
		}
		return false
	})
	o.end(other, "ROLLBACK")
	o.told("transaction", "fix:")
}

func (o *outage) transactionStates() map[string]string {
	o.t.Helper()
	described, err := kadm.NewClient(o.admin).DescribeTransactions(o.t.Context(), o.transactionIDs()...)
	if err != nil {
		o.t.Fatal(err)
	}
	states := map[string]string{}
	for id, tx := range described {
		states[id] = tx.State
	}
	return states
}

// producerFenced: somebody else uses the transactional ids while a batch is in hand.
func (o *outage) producerFenced() {
	other := o.hold("LOCK TABLE subscribers_feedback IN ACCESS EXCLUSIVE MODE")
	o.publish(4)
	o.blocked()
	for _, id := range o.transactionIDs() {
		cl, err := kgo.NewClient(kgo.SeedBrokers(o.cfg.Kafka.Brokers...), kgo.TransactionalID(id))
		if err != nil {
			o.t.Fatal(err)
		}
		defer cl.Close()
		if _, _, err := cl.ProducerID(o.t.Context()); err != nil {
			o.t.Fatal(err)
		}
	}
	o.end(other, "ROLLBACK")
	o.told("PRODUCER", "fix:", "kafka.group")
}

func (o *outage) deleteOutput() {
	o.t.Helper()
	if _, err := kadm.NewClient(o.admin).DeleteTopic(o.t.Context(), o.cfg.Kafka.Output); err != nil {
		o.t.Fatal(err)
	}
	gone := o.want
	o.want = nil // what is not out yet
	o.lost = append(o.lost, gone...)
}

func (o *outage) createOutput() {
	o.t.Helper()
	devstacktest.CreateTopic(o.t, o.cfg.Kafka.Brokers, o.cfg.Kafka.Output, 3, nil)
}

// outputDeleted: without work the missing topic is a reason all the same; with work delivery
// waits for it, and what was not out yet goes into the new one.
func (o *outage) outputDeleted() {
	o.deleteOutput()
	o.unready("topic "+o.cfg.Kafka.Output, "create it")
	o.publish(4)
	o.told("UNKNOWN_TOPIC")
	o.unready("topic "+o.cfg.Kafka.Output, "create it")
	o.createOutput()
}

// outputReplaced: the topic is another before anybody noticed.
func (o *outage) outputReplaced() {
	o.deleteOutput()
	o.eventually("the new topic", func() bool {
		_, err := kadm.NewClient(o.admin).CreateTopic(o.t.Context(), 3, 1, nil, o.cfg.Kafka.Output)
		return err == nil
	})
	o.publish(4)
}

// A member that shares partitions in another way cannot join the group, nor can tiffin join
// that member's: whoever comes second is refused and told.
func TestEagerMemberAndTiffinExcludeEachOther(t *testing.T) {
	t.Parallel()
	r := newRig(t, 2, map[string][]string{"r": clients(40)})
	o := newOutage(t, r)
	second := o.eagerMember()
	fetches := second.PollFetches(t.Context())
	if !containsAll(fmt.Sprint(fetches.Err()), []string{"INCONSISTENT_GROUP_PROTOCOL"}) {
		t.Errorf("an eager member beside tiffin: %v", fetches.Err())
	}
	second.Close()
	o.publish(4)
	o.settled() // undisturbed
	if n := o.retries("kafka"); n != 0 {
		t.Errorf("the eager member interrupted tiffin %v times", n)
	}
	if err := o.stop(); err != nil {
		t.Fatal(err)
	}
	first := o.eagerMember()
	o.publish(2)
	first.PollFetches(t.Context())
	o.cfg.Registerer = nil
	o.engine, o.stop = r.start()
	o.told("INCONSISTENT_GROUP_PROTOCOL", "fix:", "kafka.group")
	first.Close()
	o.settled()
	if err := o.stop(); err != nil {
		t.Fatal(err)
	}
	o.wantBoth(o.want)
}

func (o *outage) eagerMember() *kgo.Client {
	o.t.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(o.cfg.Kafka.Brokers...), kgo.ConsumerGroup(o.cfg.Kafka.Group), kgo.ConsumeTopics(o.cfg.Kafka.Input),
		kgo.Balancers(kgo.RangeBalancer()), kgo.DisableAutoCommit())
	if err != nil {
		o.t.Fatal(err)
	}
	o.t.Cleanup(cl.Close)
	return cl
}
