package stream

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// A transaction is not ended before the client lists the partitions that were written to: it would
// abort it, and say that all is well.
func TestTransactionIsEndedOnceItsPartitionsAreListed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newCrashWorld(t, crashKind{})
		defer w.close()
		var ended, committed atomic.Int64
		w.cluster.ControlKey(int16(kmsg.EndTxn), func(req kmsg.Request) (kmsg.Response, error, bool) {
			w.cluster.KeepControl()
			ended.Add(1)
			if req.(*kmsg.EndTxnRequest).Commit {
				committed.Add(1)
			}
			return nil, nil, false
		})
		cfg := w.config()
		cfg.Mode, cfg.Kafka.TransactionTimeout = ExactlyOnce, transactionTimeout
		p, err := newProducer(&cfg, topics{output: topicInfo{name: "out", partitions: 2, maxMessage: 1 << 20}}, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer p.close(context.WithoutCancel(t.Context()))
		p.arenas = newArenas()
		var listed atomic.Bool
		really := p.lists
		p.lists = func(topic string) bool { return listed.Load() && really(topic) }
		if err := p.begin(); err != nil {
			t.Fatal(err)
		}
		env := newEnvelope(&Campaign{}, 0)
		headers := []kgo.RecordHeader{{Key: "trigger", Value: []byte("in/0/0")}}
		if err := p.records.add(t.Context(), []byte("client"), &env, headers); err != nil {
			t.Fatal(err)
		}
		if err := p.flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		done := make(chan error, 1)
		go func() { done <- p.commit(t.Context()) }()
		<-time.After(10 * time.Second) // of the fake clock
		if n := ended.Load(); n != 0 {
			t.Errorf("%d transactions were ended before the client listed the topic's partitions", n)
		}
		listed.Store(true)
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		if ended.Load() != 1 || committed.Load() != 1 || len(w.records(t)) != 1 {
			t.Errorf("%d transactions ended, %d of them committed, %d records: want one of each", ended.Load(), committed.Load(), len(w.records(t)))
		}
	})
}
