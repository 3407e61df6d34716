package stream

import (
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// However slow the brokers are, the next transaction of another producer is not ended before: the
// group's offset would run ahead of records that a crash loses, and then go back. And it gets its
// offsets later: of two transactions the coordinator keeps the offset that was written last.
func TestTransactionsEndInOrder(t *testing.T) {
	t.Parallel()
	for name, key := range map[string]kmsg.Key{"end": kmsg.EndTxn, "offsets": kmsg.TxnOffsetCommit} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) { inOrder(t, key) })
		})
	}
}

// inOrder has the brokers take a second for each request of a kind.
func inOrder(t *testing.T, key kmsg.Key) {
	t.Helper()
	w := newCrashWorld(t, crashKind{config: func(c *Config) { c.MaxTransactionRecords = 30 }}) // nothing is large: lanes are in no order
	defer w.close()
	w.life++
	w.subscribe(t, 0)
	cl := w.client(t)
	for range 200 { // of 2 recipients: a dozen batches
		value := fmt.Sprintf(campaignJSON, "small", "same", int64(99999999999))
		if err := cl.ProduceSync(t.Context(), &kgo.Record{Topic: "in", Partition: 0, Value: []byte(value)}).FirstErr(); err != nil {
			t.Fatal(err)
		}
		w.deliveries += 2
	}
	cl.Close()
	var requests, underWay, most atomic.Int64
	w.cluster.ControlKey(int16(key), func(req kmsg.Request) (kmsg.Response, error, bool) {
		w.cluster.KeepControl()
		if end, ok := req.(*kmsg.EndTxnRequest); ok && !end.Commit {
			return nil, nil, false
		}
		requests.Add(1)
		most.Store(max(most.Load(), underWay.Add(1)))
		w.cluster.SleepControl(func() { <-time.After(time.Second) }) // of the fake clock
		underWay.Add(-1)
		return nil, nil, false
	})
	w.run(t)
	if most.Load() != 1 || requests.Load() < 10 {
		t.Errorf("%d at once, of %d: want one at a time, of ten and more", most.Load(), requests.Load())
	}
	if rows, records := w.sink.lines(t), w.records(t); len(rows) != w.deliveries || !slices.Equal(rows, records) {
		t.Errorf("%d rows, %d records: want %d of each and the same", len(rows), len(records), w.deliveries)
	}
}
