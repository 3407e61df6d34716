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

// However slow the brokers end a transaction, the next one of another producer is not ended
// before: the group's offset would run ahead of records that a crash loses, and then go back.
func TestTransactionsEndInOrder(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
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
		var commits, underWay, most atomic.Int64
		w.cluster.ControlKey(int16(kmsg.EndTxn), func(req kmsg.Request) (kmsg.Response, error, bool) {
			w.cluster.KeepControl()
			if !req.(*kmsg.EndTxnRequest).Commit {
				return nil, nil, false
			}
			commits.Add(1)
			most.Store(max(most.Load(), underWay.Add(1)))
			w.cluster.SleepControl(func() { <-time.After(time.Second) }) // of the fake clock
			underWay.Add(-1)
			return nil, nil, false
		})
		w.run(t)
		if most.Load() != 1 || commits.Load() < 10 {
			t.Errorf("%d transactions were ended at once, of %d: want one at a time, of ten and more", most.Load(), commits.Load())
		}
		if rows, records := w.sink.lines(t), w.records(t); len(rows) != w.deliveries || !slices.Equal(rows, records) {
			t.Errorf("%d rows, %d records: want %d of each and the same", len(rows), len(records), w.deliveries)
		}
	})
}
