package stream_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"example.com/tiffin/internal/devstack"
	"example.com/tiffin/stream"
)

// A process that died in a transaction and stays away does not hold the others up until the
// brokers give its transaction up: who takes its partitions ends it. Otherwise the group's offset
// would be unstable, and readers of the output would wait, for as long as that.
func TestDeadOwnersTransactionIsEnded(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name     string
		producer int
		next     string
		mode     stream.Mode
	}{
		{"by another", 0, "two", stream.ExactlyOnce},
		{"under a spare id, by another", 3, "two", stream.ExactlyOnce},
		{"under a spare id, by its own next life", 3, "one", stream.ExactlyOnce},
		{"by another, in at_least_once mode", 0, "two", stream.AtLeastOnce},
		{"by its own next life, in at_least_once mode", 2, "one", stream.AtLeastOnce},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			if (c.producer >= 3 || c.mode == stream.AtLeastOnce) && devstack.KafkaBefore(3, 0) {
				t.Skip("older brokers do not tell what is open")
			}
			r := newRig(t, 1, map[string][]string{"r": clients(3)})
			first := campaign("r", "first")
			at := r.publish(0, first.json(t))
			r.untilNow()
			r.db.Exec(t, `UPDATE tiffin.progress SET owner = 'one'`) // as whoever dies leaves it
			r.leaveOpen("one", c.producer, 5*time.Minute)
			second := campaign("r", "second")
			after := r.publish(0, second.json(t))
			r.untilNow(func(cfg *stream.Config) { cfg.Mode, cfg.Kafka.Process, cfg.Kafka.InstanceID = c.mode, c.next, c.next })
			var want []delivery
			for _, client := range clients(3) {
				want = append(want, r.expect(first, 0, at, client), r.expect(second, 0, after, client))
			}
			r.wantBoth(want)
		})
	}
}

// What a stranger's transaction holds back is told, instead of readiness or silence.
func TestOffsetsThatATransactionHoldsBackAreTold(t *testing.T) {
	t.Parallel()
	r := newRig(t, 1, map[string][]string{"r": clients(3)})
	at := r.publish(0, campaign("r", "first").json(t))
	r.untilNow()
	r.leaveOpen("stranger", 0, 15*time.Second)
	begun := time.Now()
	e, stop := r.start(func(c *stream.Config) {
		c.Now = func() time.Time { return time.Unix(r.clock.Load(), 0).Add(time.Since(begun)) }
	})
	r.eventually("the reason", func() bool {
		return strings.Contains(strings.Join(e.Reasons(), "; "), "waiting for the offsets of partitions [0], which the brokers tell when no transaction")
	})
	r.publish(0, campaign("r", "second").json(t))
	r.eventually("the end of the wait", func() bool { return len(e.Reasons()) == 0 && r.groupOffset(0) == at+2 })
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	r.wantDelivered(6, 6)
}

// A process that is stopped, or whose machine vanished, in a transaction of the feedback database
// holds the ledger's row. Who takes its partitions ends that session instead of waiting for ever.
func TestDeadOwnersRowLockIsEnded(t *testing.T) {
	t.Parallel()
	r := newRig(t, 1, map[string][]string{"r": clients(3)})
	first := campaign("r", "first")
	at := r.publish(0, first.json(t))
	e, stop := r.start()
	r.eventually("readiness", func() bool { return len(e.Reasons()) == 0 })
	r.eventually("first message handled", func() bool { return r.groupOffset(0) == at+1 })
	dead := r.db.Connect(t)
	mark := "tiffin writer " + r.cfg.Kafka.Group + " one"
	var marked int
	if err := dead.QueryRow(t.Context(), `SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND mode = 'ShareLock'
		AND classid::bigint << 32 | objid::bigint = hashtextextended($1, 0)`, mark).Scan(&marked); err != nil || marked == 0 {
		t.Fatalf("%d marked sessions of a running process (%v): want at least one", marked, err)
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	r.db.Exec(t, `UPDATE tiffin.progress SET owner = 'one'`) // as whoever dies leaves it
	for _, sql := range []string{`SELECT pg_advisory_lock_shared(hashtextextended('` + mark + `', 0))`, `BEGIN`, `UPDATE tiffin.progress SET updated_at = now()`} {
		if _, err := dead.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	second := campaign("r", "second")
	after := r.publish(0, second.json(t))
	begun := time.Now()
	r.untilNow(func(c *stream.Config) { c.Kafka.Process, c.Kafka.InstanceID = "two", "two" })
	if took := time.Since(begun); took > 25*time.Second { // lock_timeout is 30 s
		t.Errorf("the partition was taken over after %v", took)
	}
	var want []delivery
	for _, c := range clients(3) {
		want = append(want, r.expect(first, 0, at, c), r.expect(second, 0, after, c))
	}
	r.wantBoth(want)
}

// leaveOpen begins a transaction as the process would, with a record and the group's offset in it.
func (r *rig) leaveOpen(process string, producer int, timeout time.Duration) {
	r.t.Helper()
	id := fmt.Sprintf("%s.%s.%d", r.cfg.Kafka.Group, process, producer)
	cl, err := kgo.NewClient(kgo.SeedBrokers(r.cfg.Kafka.Brokers...), kgo.TransactionalID(id), kgo.TransactionTimeout(timeout), kgo.DefaultProduceTopic(r.cfg.Kafka.Output))
	if err != nil {
		r.t.Fatal(err)
	}
	defer cl.Close()
	if err := cl.BeginTransaction(); err != nil {
		r.t.Fatal(err)
	}
	if err := cl.ProduceSync(r.t.Context(), kgo.StringRecord("never committed")).FirstErr(); err != nil {
		r.t.Fatal(err)
	}
	producerID, epoch, err := cl.ProducerID(r.t.Context())
	if err != nil {
		r.t.Fatal(err)
	}
	add := kmsg.NewPtrAddOffsetsToTxnRequest() // brokers before KIP-890 want to be told
	add.TransactionalID, add.ProducerID, add.ProducerEpoch, add.Group = id, producerID, epoch, r.cfg.Kafka.Group
	added, err := add.RequestWith(r.t.Context(), cl)
	if err != nil {
		r.t.Fatal(err)
	}
	if err := kerr.ErrorForCode(added.ErrorCode); err != nil {
		r.t.Fatal(err)
	}
	req := kmsg.NewPtrTxnOffsetCommitRequest()
	req.TransactionalID, req.ProducerID, req.ProducerEpoch, req.Group, req.Generation = id, producerID, epoch, r.cfg.Kafka.Group, -1
	topic := kmsg.NewTxnOffsetCommitRequestTopic()
	topic.Topic = r.cfg.Kafka.Input
	topics, err := kadm.NewClient(r.admin).ListTopics(r.t.Context(), topic.Topic)
	if err != nil {
		r.t.Fatal(err)
	}
	topic.TopicID = topics[topic.Topic].ID
	partition := kmsg.NewTxnOffsetCommitRequestTopicPartition()
	partition.Offset = 1
	topic.Partitions = append(topic.Partitions, partition)
	req.Topics = append(req.Topics, topic)
	resp, err := req.RequestWith(r.t.Context(), cl)
	if err != nil {
		r.t.Fatal(err)
	}
	if err := kerr.ErrorForCode(resp.Topics[0].Partitions[0].ErrorCode); err != nil {
		r.t.Fatal(err)
	}
}
