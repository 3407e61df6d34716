package stream_test

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kgo"

	"example.com/tiffin/internal/devstack/devstacktest"
	"example.com/tiffin/stream"
)

// verify compares the rig's sinks; each difference is told as "kind partition/offset client".
func (r *rig) verify(change ...func(*stream.Verification)) (stream.Verdict, []string, error) {
	r.t.Helper()
	v := stream.Verification{
		Kafka: r.cfg.Kafka, FeedbackDSN: r.cfg.FeedbackDSN, FeedbackTable: r.cfg.FeedbackTable, Mode: r.cfg.Mode,
		Patience: 300 * time.Millisecond,
	}
	for _, c := range change {
		c(&v)
	}
	var found []string
	verdict, err := stream.Verify(r.t.Context(), v, func(d stream.Difference) error {
		r.t.Log(d.String())
		line := string(d.Kind) + " " + strings.TrimPrefix(d.Trigger, r.cfg.Kafka.Input+"/")
		if d.Client != nil {
			line += " " + *d.Client
		}
		for _, f := range d.Fields {
			line += " " + f
		}
		if d.Harmless {
			line += " harmless"
		}
		found = append(found, line)
		return nil
	})
	slices.Sort(found)
	return verdict, found, err
}

func (r *rig) wantVerdict(want []string, change ...func(*stream.Verification)) stream.Verdict {
	r.t.Helper()
	verdict, found, err := r.verify(change...)
	if err != nil {
		r.t.Fatal(err)
	}
	if !slices.Equal(found, want) {
		r.t.Errorf("found %q\n want %q", found, want)
	}
	harmful := slices.ContainsFunc(want, func(s string) bool { return !strings.HasSuffix(s, "harmless") })
	if verdict.OK == harmful {
		r.t.Errorf("ok %t with differences %q", verdict.OK, found)
	}
	return verdict
}

// verified is a rig whose both sinks hold: 0/0 and 0/1 the same campaign for a, b and c, 0/2 a
// malformed message, 0/3 an inactive one, 0/4 one for a, and 1/0 one for a, b and c.
func verified(t *testing.T, change ...func(*rig)) *rig {
	t.Helper()
	r := newRig(t, 2, map[string][]string{"three": {"a", "b", "c"}, "one": {"a"}})
	for _, c := range change {
		c(r)
	}
	over := campaign("three", "over")
	over.End = now - 1
	r.publish(0, campaign("three", "same").json(t), campaign("three", "same").json(t), []byte("garbage"), over.json(t), campaign("one", "x").json(t))
	r.publish(1, campaign("three", "y").json(t))
	r.untilNow()
	return r
}

// in is the rig for a part of its test.
func (r *rig) in(t *testing.T) *rig {
	part := &rig{t: t, db: r.db, index: r.index, source: r.source, admin: r.admin, cfg: r.cfg}
	part.clock.Store(r.clock.Load())
	return part
}

// backup is a database that holds what the rig's holds now. Nobody may be connected to that.
func (r *rig) backup() *devstacktest.Database {
	r.t.Helper()
	name := servers.Unique(r.t, "b")
	maintenance := &devstacktest.Database{Server: r.db.Server, Name: "postgres", DSN: r.db.Server.DSN("postgres")}
	quoted := func(name string) string { return pgx.Identifier{name}.Sanitize() }
	maintenance.Exec(r.t, "CREATE DATABASE "+quoted(name)+" TEMPLATE "+quoted(r.db.Name))
	r.t.Cleanup(func() {
		conn, err := pgx.Connect(context.WithoutCancel(r.t.Context()), maintenance.DSN)
		if err != nil {
			r.t.Error(err)
			return
		}
		defer func() { _ = conn.Close(context.Background()) }()
		if _, err := conn.Exec(context.Background(), "DROP DATABASE "+quoted(name)+" WITH (FORCE)"); err != nil {
			r.t.Error(err)
		}
	})
	return &devstacktest.Database{Server: r.db.Server, Name: name, DSN: r.db.Server.DSN(name)}
}

// copied is a copy of a topic in which edit changes, drops or repeats records.
func (r *rig) copied(topic string, edit func(*kgo.Record) []*kgo.Record) string {
	r.t.Helper()
	name := servers.Unique(r.t, "copy")
	devstacktest.CreateTopic(r.t, r.cfg.Kafka.Brokers, name, 3, nil)
	var all []*kgo.Record
	for _, rec := range r.records(topic) {
		fresh := &kgo.Record{Topic: name, Partition: rec.Partition, Key: rec.Key, Value: rec.Value, Headers: rec.Headers, Timestamp: rec.Timestamp}
		if edit == nil {
			all = append(all, fresh)
			continue
		}
		all = append(all, edit(fresh)...)
	}
	if err := r.admin.ProduceSync(r.t.Context(), all...).FirstErr(); err != nil {
		r.t.Fatal(err)
	}
	return name
}

// on applies an edit to the record of one delivery.
func (r *rig) on(trigger, client string, edit func(*kgo.Record) []*kgo.Record) func(*kgo.Record) []*kgo.Record {
	return func(rec *kgo.Record) []*kgo.Record {
		last := rec.Headers[len(rec.Headers)-1]
		for _, h := range rec.Headers {
			if h.Key == "trigger" {
				last = h
			}
		}
		if string(last.Value) == r.cfg.Kafka.Input+"/"+trigger && (client == "" || string(rec.Key) == client) {
			return edit(rec)
		}
		return []*kgo.Record{rec}
	}
}

func drop(*kgo.Record) []*kgo.Record { return nil }

func twice(rec *kgo.Record) []*kgo.Record { again := *rec; return []*kgo.Record{rec, &again} }

func edited(change func(*kgo.Record)) func(*kgo.Record) []*kgo.Record {
	return func(rec *kgo.Record) []*kgo.Record { change(rec); return []*kgo.Record{rec} }
}

func named(rec *kgo.Record, trigger string) {
	rec.Headers = []kgo.RecordHeader{{Key: "trigger", Value: []byte(trigger)}}
}

// One thing is broken in the output topic, and exactly that is named.
func TestVerifyNamesWhatIsWrongInTheTopic(t *testing.T) {
	t.Parallel()
	r := verified(t)
	if v := r.wantVerdict(nil); v.Messages != 6 || v.Rows != 10 || v.Records != 10 || v.DeadLetters != 1 {
		t.Errorf("%+v", v)
	}
	replace := func(old, with string) func(*kgo.Record) []*kgo.Record {
		return edited(func(rec *kgo.Record) { rec.Value = []byte(strings.Replace(string(rec.Value), old, with, 1)) })
	}
	for _, c := range []struct {
		name string
		edit func(*kgo.Record) []*kgo.Record
		want []string
	}{
		{"nothing", nil, nil},
		{"a record missing", r.on("0/1", "b", drop), []string{"missing_record 0/1 b"}},
		{"all of a message missing", r.on("0/1", "", drop), []string{"missing_record 0/1 a", "missing_record 0/1 b", "missing_record 0/1 c"}},
		{"a record twice", r.on("0/1", "b", twice), []string{"duplicate_record 0/1 b"}},
		{"a byte different", r.on("1/0", "c", replace("content of", "Content of")), []string{"different 1/0 c adv_campaign_content"}},
		{"a space more", r.on("1/0", "c", replace(",", ", ")), []string{"different 1/0 c"}},
		{"another client in the value", r.on("1/0", "c", replace(`"c"`, `"d"`)), []string{"different 1/0 c client_id"}},
		{"a record for nobody", r.on("0/4", "a", func(rec *kgo.Record) []*kgo.Record {
			more := *rec
			more.Key, more.Value = []byte("z"), []byte(strings.Replace(string(rec.Value), `"a"`, `"z"`, 1))
			return []*kgo.Record{rec, &more}
		}), []string{"extra_record 0/4 z"}},
		{
			"a record under another message's name", r.on("0/0", "b", edited(func(rec *kgo.Record) { named(rec, r.cfg.Kafka.Input+"/0/1") })),
			[]string{"duplicate_record 0/1 b", "missing_record 0/0 b"},
		},
		{"a record of an inactive message", r.on("0/4", "a", func(rec *kgo.Record) []*kgo.Record {
			more := *rec
			named(&more, r.cfg.Kafka.Input+"/0/3")
			return []*kgo.Record{rec, &more}
		}), []string{"extra_record 0/3 a"}},
		{"a record without a name", r.on("0/4", "a", func(rec *kgo.Record) []*kgo.Record {
			more := *rec
			more.Headers = nil
			return []*kgo.Record{rec, &more}
		}), []string{"extra_record  a"}},
		{"another input's record", r.on("0/4", "a", func(rec *kgo.Record) []*kgo.Record {
			more := *rec
			named(&more, "elsewhere/0/1")
			return []*kgo.Record{rec, &more}
		}), nil},
		{"a message the group has not come to", r.on("0/4", "a", func(rec *kgo.Record) []*kgo.Record {
			more := *rec
			named(&more, r.cfg.Kafka.Input+"/0/99")
			return []*kgo.Record{rec, &more}
		}), nil},
		{"a partition the ledger does not know", r.on("0/4", "a", func(rec *kgo.Record) []*kgo.Record {
			more := *rec
			named(&more, r.cfg.Kafka.Input+"/7/1")
			return []*kgo.Record{rec, &more}
		}), []string{"extra_record 7/1 a"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r := r.in(t)
			out := r.copied(r.cfg.Kafka.Output, c.edit)
			r.wantVerdict(c.want, func(v *stream.Verification) { v.Kafka.Output = out })
		})
	}
	for _, c := range []struct {
		name string
		edit func(*kgo.Record) []*kgo.Record
		want []string
	}{
		{"dead letter missing", r.on("0/2", "", drop), []string{"missing_dead_letter 0/2"}},
		{"dead letter twice", r.on("0/2", "", twice), []string{"duplicate_dead_letter 0/2"}},
		{"dead letter with another reason", r.on("0/2", "", edited(func(rec *kgo.Record) {
			rec.Headers = []kgo.RecordHeader{{Key: "reason", Value: []byte("tombstone")}, {Key: "trigger", Value: []byte(r.cfg.Kafka.Input + "/0/2")}}
		})), []string{"different_dead_letter 0/2"}},
		{"dead letter of a delivered message", r.on("0/2", "", func(rec *kgo.Record) []*kgo.Record {
			more := *rec
			named(&more, r.cfg.Kafka.Input+"/0/1")
			return []*kgo.Record{rec, &more}
		}), []string{"extra_dead_letter 0/1"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r := r.in(t)
			dead := r.copied(r.cfg.Kafka.DeadLetter, c.edit)
			r.wantVerdict(c.want, func(v *stream.Verification) { v.Kafka.DeadLetter = dead })
		})
	}
}

// One thing is broken in the feedback database, and exactly that is named.
func TestVerifyNamesWhatIsWrongInTheTable(t *testing.T) {
	t.Parallel()
	r := verified(t)
	const row = `id = (SELECT f.id FROM subscribers_feedback f JOIN tiffin.trigger t ON t.feedback_ids @> f.id
		WHERE t.partition = 0 AND t.record_offset = 1 AND f.client_id = 'b')`
	const manifest = `partition = 0 AND record_offset = 1`
	for _, c := range []struct {
		name, sql string
		want      []string
	}{
		{"nothing", ``, nil},
		{"the readers' own column", `UPDATE subscribers_feedback SET feedback = 'delicious' WHERE ` + row, nil},
		{"a row deleted", `DELETE FROM subscribers_feedback WHERE ` + row, []string{"missing_row 0/1 b"}},
		{"a row changed", `UPDATE subscribers_feedback SET adv_campaign_owner = 'someone' WHERE ` + row, []string{"different 0/1 b adv_campaign_owner"}},
		{"a row of another campaign", `UPDATE subscribers_feedback SET adv_campaign_id = 'other' WHERE ` + row, []string{"different 0/1 b adv_campaign_id"}},
		{"a row of another client", `UPDATE subscribers_feedback SET client_id = 'z' WHERE ` + row, []string{"extra_record 0/1 b", "missing_record 0/1 z"}},
		{"a row twice", `UPDATE subscribers_feedback SET client_id = 'a' WHERE ` + row, []string{"extra_record 0/1 b", "extra_row 0/1 a"}},
		{"recipients counted wrong", `UPDATE tiffin.trigger SET recipients = 4 WHERE ` + manifest, []string{"manifest 0/1"}},
		{"another restaurant in the manifest", `UPDATE tiffin.trigger SET restaurant_id = 'x' WHERE ` + manifest, []string{"manifest 0/1"}},
		{"another time in the manifest", `UPDATE tiffin.trigger SET trigger_datetime_created = 1 WHERE ` + manifest, []string{"manifest 0/1"}},
		{"rows of another message claimed too", `UPDATE tiffin.trigger SET feedback_ids = (SELECT feedback_ids FROM tiffin.trigger WHERE partition = 0 AND record_offset = 0)
			WHERE ` + manifest, []string{"extra_row 0/0 a", "extra_row 0/0 b", "extra_row 0/0 c", "manifest 0/0", "manifest 0/1"}},
		{"no rows named", `UPDATE tiffin.trigger SET feedback_ids = NULL WHERE ` + manifest, []string{
			"extra_record 0/1 a", "extra_record 0/1 b", "extra_record 0/1 c", "extra_row 0/0 a", "extra_row 0/0 b", "extra_row 0/0 c", "manifest 0/1",
		}},
		{"a message the manifest does not know", `DELETE FROM tiffin.trigger WHERE ` + manifest, []string{
			"extra_record 0/1 a", "extra_record 0/1 b", "extra_record 0/1 c", "extra_row 0/0 a", "extra_row 0/0 b", "extra_row 0/0 c",
		}},
		{
			"an inactive message said to be malformed", `UPDATE tiffin.trigger SET outcome = 'malformed', reason = 'empty' WHERE partition = 0 AND record_offset = 3`,
			[]string{"missing_dead_letter 0/3"},
		},
	} {
		// One after the other, each on a copy: the state of a database is one.
		t.Run(c.name, func(t *testing.T) {
			r := r.in(t)
			r.db = r.backup()
			r.cfg.FeedbackDSN = r.db.DSN
			if c.sql != "" {
				r.db.Exec(t, c.sql)
			}
			r.wantVerdict(c.want)
			r.wantVerdict(c.want, func(v *stream.Verification) { v.Memory = 2 }) // files, and many passes
		})
	}
}

// A row that somebody inserted by hand takes an id of its own; the next messages' rows lie
// behind it.
func TestVerifySeesRowsAmongOthers(t *testing.T) {
	t.Parallel()
	r := verified(t)
	r.db.Exec(t, `INSERT INTO subscribers_feedback (restaurant_id, adv_campaign_id, adv_campaign_content, adv_campaign_owner, adv_campaign_owner_contact,
			adv_campaign_datetime_start, adv_campaign_datetime_end, datetime_created, client_id, trigger_datetime_created, feedback)
		SELECT restaurant_id, adv_campaign_id, adv_campaign_content, adv_campaign_owner, adv_campaign_owner_contact,
			adv_campaign_datetime_start, adv_campaign_datetime_end, datetime_created, 'z', trigger_datetime_created, feedback
		FROM subscribers_feedback WHERE adv_campaign_id = 'y' LIMIT 1`)
	r.publish(1, campaign("one", "later").json(t))
	r.untilNow()
	r.wantVerdict([]string{"extra_row 1/0 z"})
	// What lies outside of the range is not told.
	r.wantVerdict(nil, bounds("1:1", ""))
	r.wantVerdict([]string{"extra_row 1/0 z"}, bounds("1:0", ""))
}
