package stream_test

import (
	"math/rand/v2"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"
)

// One record never stops the stream: what the table, an index of the operator's or the dead-letter topic cannot
// take of it is put aside, and the next one is delivered.
func TestOneRecordStopsNothing(t *testing.T) {
	t.Parallel()
	headers := make([]byte, 1_048_588-200) // of a message that is as large as the topic takes
	for i := range headers {
		headers[i] = byte(rand.N(256))
	}
	forever := campaign("r", "for ever")
	forever.End = 1<<63 - 1
	for name, c := range map[string]struct {
		ddl    string
		record *kgo.Record
	}{
		"an index takes no long text": {
			`CREATE INDEX ON subscribers_feedback (adv_campaign_id)`, &kgo.Record{Value: campaign("r", noise(9000)).json(t)},
		},
		"a generated column cannot be computed": {
			`ALTER TABLE subscribers_feedback ADD COLUMN ends timestamp GENERATED ALWAYS AS ('1970-01-01'::timestamp + adv_campaign_datetime_end * interval '1 second') STORED`,
			&kgo.Record{Value: forever.json(t)},
		},
		"its headers fill a message": {
			`SELECT 1`, &kgo.Record{Value: []byte("bad"), Headers: []kgo.RecordHeader{{Key: "h", Value: headers}}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, 1, map[string][]string{"r": {"a"}})
			r.untilNow()
			r.db.Exec(t, c.ddl)
			r.publishRecords(c.record)
			r.publish(0, campaign("r", "after").json(t))
			_, stop := r.start()
			defer func() { _ = stop() }()
			r.eventually("the next message", func() bool { return r.groupOffset(0) == 2 })
			r.wantDelivered(1, 1)
			if n := len(r.records(r.cfg.Kafka.DeadLetter)); n != 1 {
				t.Errorf("%d dead letters, want 1", n)
			}
		})
	}
}
