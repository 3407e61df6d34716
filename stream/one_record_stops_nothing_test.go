package stream_test

import (
	"fmt"
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
	always := forever
	always.Start = -1 << 63
	told := campaign("r", "told")
	told.Content = noise(200_000)
	late := campaign("r", "late")
	late.Content = noise(40_000)
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
		"a generated column has no room": {
			`ALTER TABLE subscribers_feedback ADD COLUMN lasts bigint GENERATED ALWAYS AS (adv_campaign_datetime_end - adv_campaign_datetime_start) STORED`,
			&kgo.Record{Value: always.json(t)},
		},
		"a generated column takes no such text": {
			`ALTER TABLE subscribers_feedback ADD COLUMN content jsonb GENERATED ALWAYS AS (adv_campaign_id::jsonb) STORED`,
			&kgo.Record{Value: campaign("r", "no JSON").json(t)},
		},
		"a trigger's exception repeats all of it": {
			refusing("BEFORE INSERT", "told", "NEW.adv_campaign_content"), &kgo.Record{Value: told.json(t)},
		},
		"a trigger refuses a large one at the commit": {
			refusing("AFTER INSERT", "late", "NEW.adv_campaign_id"), &kgo.Record{Value: late.json(t)},
		},
		"its headers fill a message": {
			`SELECT 1`, &kgo.Record{Value: []byte("bad"), Headers: []kgo.RecordHeader{{Key: "h", Value: headers}}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, 1, map[string][]string{"r": {"a"}})
			r.untilNow()
			r.alter(r.cfg.Kafka.DeadLetter, "max.message.bytes", "100000")
			r.db.Exec(t, c.ddl)
			r.publishRecords(c.record)
			r.publish(0, campaign("r", `"after"`).json(t))
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

// refusing is a trigger that raises an exception for a campaign.
func refusing(when, id, text string) string {
	kind := "TRIGGER"
	late := ""
	if when == "AFTER INSERT" {
		kind, late = "CONSTRAINT TRIGGER", "DEFERRABLE INITIALLY DEFERRED"
	}
	return fmt.Sprintf(`CREATE FUNCTION refuses() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
		IF NEW.adv_campaign_id = '%s' THEN RAISE EXCEPTION 'refused: %%', %s; END IF; RETURN NEW; END $$;
		CREATE %s refuses %s ON subscribers_feedback %s FOR EACH ROW EXECUTE FUNCTION refuses()`, id, text, kind, when, late)
}
