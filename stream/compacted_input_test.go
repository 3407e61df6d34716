package stream_test

import (
	"context"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kgo"
)

// Compaction has taken the last messages below the ledger, and behind them nothing can be read, because
// a publisher's transaction is open: a recovery that needs them reads on to where the log's committed
// part ends, and no longer. It says what is gone, and the partition goes on.
func TestCompactedMessagesHoldNobodyUp(t *testing.T) {
	t.Parallel()
	r := newRig(t, 1, map[string][]string{"r": {"c"}})
	log, registry := r.logging(), prometheus.NewRegistry()
	r.publish(0, campaign("r", "x").json(t), []byte("garbage"), campaign("r", "unknown").json(t))
	r.untilNow()
	r.setOffset(0, 0, "tiffin")
	r.db.Exec(t, `DELETE FROM tiffin.trigger WHERE record_offset = 2`)
	publisher := r.compact()
	defer publisher.Close()

	r.cfg.Registerer = registry
	begun := time.Now()
	r.untilNow()
	if took := time.Since(begun); took > 12*time.Second { // a read that finds nothing is given up after 15 s
		t.Errorf("the partition went on after %v", took)
	}
	log.wants(t, "its dead letter can't be sent")
	log.wants(t, "offsets that the manifest does not know are no longer in the input topic")
	log.wants(t, "from_offset=2 to_offset=3")
	if n := lost(t, registry, "dead_letter"); n != 1 {
		t.Errorf("%v lost dead letters are counted, want 1", n)
	}
	if at := r.groupOffset(0); at != 3 {
		t.Errorf("group offset %d: want 3", at)
	}
	r.wantDelivered(2, 3) // the first message's record came again, as the offset says
}

// compact has the brokers compact what is in partition 0 of the input topic: messages without a key
// vanish. The client that it returns holds a transaction open behind them.
func (r *rig) compact() *kgo.Client {
	r.t.Helper()
	for name, value := range map[string]string{
		"segment.ms": "1000", "min.cleanable.dirty.ratio": "0", "max.compaction.lag.ms": "1", "cleanup.policy": "compact",
	} {
		r.alter(r.cfg.Kafka.Input, name, value)
	}
	publisher, err := kgo.NewClient(kgo.SeedBrokers(r.cfg.Kafka.Brokers...), kgo.TransactionalID(r.cfg.Kafka.Input), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err == nil {
		err = publisher.BeginTransaction()
	}
	if err != nil {
		r.t.Fatal(err)
	}
	// Its time has the brokers begin another segment: the last is never compacted.
	open := &kgo.Record{Topic: r.cfg.Kafka.Input, Key: []byte("k"), Value: []byte("open"), Timestamp: time.Now().Add(time.Minute)}
	if err := publisher.ProduceSync(r.t.Context(), open).FirstErr(); err != nil {
		r.t.Fatal(err)
	}
	r.eventually("the compaction", func() bool { return r.firstRecord() == open.Offset })
	return publisher
}

// firstRecord is the first offset of partition 0 of the input topic that has a record, committed or not.
func (r *rig) firstRecord() int64 {
	r.t.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(r.cfg.Kafka.Brokers...),
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{r.cfg.Kafka.Input: {0: kgo.NewOffset().AtStart()}}))
	if err != nil {
		r.t.Fatal(err)
	}
	defer cl.Close()
	ctx, cancel := context.WithTimeout(r.t.Context(), 10*time.Second)
	defer cancel()
	records := cl.PollFetches(ctx).Records()
	if len(records) == 0 {
		r.t.Fatal("no record in the input topic")
	}
	return records[0].Offset
}
