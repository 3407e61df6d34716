package stream_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"example.com/tiffin/internal/devstack/devstacktest"
	"example.com/tiffin/stream"
)

func bounds(from, to string) func(*stream.Verification) {
	return func(v *stream.Verification) {
		for _, b := range []struct {
			text string
			into *[]stream.Bound
		}{{from, &v.From}, {to, &v.To}} {
			if b.text == "" {
				continue
			}
			bound, err := stream.ParseBound(b.text)
			if err != nil {
				panic(err) //nolint:forbidigo // a typo in a test
			}
			*b.into = append(*b.into, bound)
		}
	}
}

// Only what lies in the range is judged: by offsets, and by when messages were handled.
func TestVerifyKeepsToItsRange(t *testing.T) {
	t.Parallel()
	r := verified(t)
	r.db.Exec(t, `UPDATE tiffin.trigger SET handled_at = '2020-01-01T00:00:00Z' WHERE partition = 0 AND record_offset < 1`)
	out := r.copied(r.cfg.Kafka.Output, func(rec *kgo.Record) []*kgo.Record {
		if string(rec.Key) == "a" {
			return nil
		}
		return []*kgo.Record{rec}
	})
	all := []string{"missing_record 0/0 a", "missing_record 0/1 a", "missing_record 0/4 a", "missing_record 1/0 a"}
	for _, c := range []struct {
		from, to string
		want     []string
		messages int64
	}{
		{"", "", all, 6},
		{"0:1", "", all[1:3], 4},
		{"0:1", "0:4", all[1:2], 3},
		{"0:0", "0:99", all[:3], 5},
		{"1:0", "", all[3:], 1},
		{"0:2", "0:4", nil, 2},
		{"2020-01-02T00:00:00Z", "", all[1:], 5},
		{"", "2020-01-02T00:00:00Z", all[:1], 1},
		{"", "2020-01-01T00:00:00Z", nil, 0},
		{"2099-01-01T00:00:00Z", "", nil, 0},
	} {
		v := r.wantVerdict(c.want, bounds(c.from, c.to), func(v *stream.Verification) { v.Kafka.Output = out })
		if v.Messages != c.messages {
			t.Errorf("from %q to %q: %d messages, want %d", c.from, c.to, v.Messages, c.messages)
		}
	}
	// A range behind the ledger's end is empty, and nothing is waited for that the group has not reached.
	if v := r.wantVerdict(nil, bounds("0:1000", "0:2000")); len(v.Partitions) != 1 || v.Partitions[0] != (stream.JudgedSpan{From: 5, To: 5}) {
		t.Errorf("behind the end: %+v", v.Partitions)
	}
	if _, _, err := r.verify(bounds("5:0", "")); err == nil || !strings.Contains(err.Error(), "partition 5") {
		t.Errorf("a partition nobody knows: %v", err)
	}
	if _, _, err := r.verify(func(v *stream.Verification) { v.Kafka.Group = "nobody" }); err == nil || !strings.Contains(err.Error(), "kafka.group") {
		t.Errorf("a group nobody knows: %v", err)
	}
	for _, bad := range []string{"", "x", "1", "a:1", "1:a", "-1:0", "0:-1", "2020-01-01", "1:2:3"} {
		if _, err := stream.ParseBound(bad); err == nil {
			t.Errorf("%q: no error", bad)
		}
	}
}

// What retention has removed with the older part of the topic is counted and not judged; what
// is missing in what is left is.
func TestVerifyTellsRetentionApart(t *testing.T) {
	t.Parallel()
	r := newRig(t, 1, map[string][]string{"r": {"a", "b"}})
	for i := range 10 {
		r.publish(0, campaign("r", fmt.Sprint(i)).json(t))
	}
	r.publish(0, []byte("garbage"))
	r.untilNow()
	// A topic of one partition, without message 7's record for b.
	out := servers.Unique(t, "copy")
	devstacktest.CreateTopic(t, r.cfg.Kafka.Brokers, out, 1, nil)
	records := r.records(r.cfg.Kafka.Output)
	slices.SortFunc(records, func(a, b *kgo.Record) int {
		return strings.Compare(string(a.Headers[0].Value), string(b.Headers[0].Value))
	})
	var all []*kgo.Record
	for _, rec := range records {
		if !strings.HasSuffix(string(rec.Headers[0].Value), "/7") || string(rec.Key) != "b" {
			all = append(all, &kgo.Record{Topic: out, Key: rec.Key, Value: rec.Value, Headers: rec.Headers})
		}
	}
	if err := r.admin.ProduceSync(t.Context(), all...).FirstErr(); err != nil {
		t.Fatal(err)
	}
	r.deleteRecords(out, 0, 7) // messages 0 to 2, and one record of 3
	r.deleteRecords(r.cfg.Kafka.DeadLetter, 0, 1)
	v := r.wantVerdict([]string{"missing_record 0/7 b"}, func(v *stream.Verification) { v.Kafka.Output = out })
	if v.Gone != 8 { // seven records and the dead letter
		t.Errorf("%d gone by retention, want 8", v.Gone)
	}
}

// What another program had written before the group's first record is counted and told apart: right
// after a move it may be a moment old. What comes behind a record of ours is a difference, and so is
// what was written while the group was at work in a partition that has none of ours.
func TestVerifyTellsWhatWasThereBeforeApart(t *testing.T) {
	t.Parallel()
	r := newRig(t, 1, map[string][]string{"r": {"a"}})
	foreign := func(partition int32, at time.Time) *kgo.Record {
		return &kgo.Record{Topic: r.cfg.Kafka.Output, Partition: partition, Key: []byte("x"), Value: []byte("{}"), Timestamp: at}
	}
	other := func(topic string) *kgo.Record {
		rec := foreign(0, time.Now())
		rec.Topic = topic
		return rec
	}
	write := func(records ...*kgo.Record) {
		if err := r.admin.ProduceSync(t.Context(), records...).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	write(foreign(0, time.Now()), foreign(1, time.Now()), foreign(1, time.Now()), foreign(2, time.Now()), other(r.cfg.Kafka.DeadLetter))
	r.publish(0, campaign("r", "first").json(t), []byte("garbage"))
	r.untilNow()
	if v := r.wantVerdict(nil); v.Unmarked != 4 || v.UnmarkedLetters != 1 || v.Other != 4 || v.Records != 1 || v.DeadLetters != 1 {
		t.Errorf("%+v", v)
	}
	ours := r.records(r.cfg.Kafka.Output)
	ours = slices.DeleteFunc(ours, func(rec *kgo.Record) bool { return len(rec.Headers) == 0 })
	write(foreign(ours[0].Partition, time.Now()), other(r.cfg.Kafka.DeadLetter))
	if v := r.wantVerdict([]string{"extra_dead_letter  x", "extra_record  x"}); v.Unmarked != 4 {
		t.Errorf("%+v", v)
	}
	write(foreign((ours[0].Partition+1)%3, time.Now().Add(2*time.Minute)))
	r.wantVerdict([]string{"extra_dead_letter  x", "extra_record  x", "extra_record  x"})
	// Before the first message of a range it is not the range's.
	r.publish(0, campaign("r", "second").json(t))
	r.untilNow()
	r.wantVerdict([]string{"extra_record  x"}, bounds("0:2", ""))
}

func (r *rig) deleteRecords(topic string, partition int32, before int64) {
	r.t.Helper()
	offsets := kadm.Offsets{}
	offsets.Add(kadm.Offset{Topic: topic, Partition: partition, At: before})
	resp, err := kadm.NewClient(r.admin).DeleteRecords(r.t.Context(), offsets)
	if err == nil {
		err = resp.Error()
	}
	if err != nil {
		r.t.Fatal(err)
	}
}

// A record of an aborted transaction is none; an open one is waited for.
func TestVerifySeesCommittedRecordsOnly(t *testing.T) {
	t.Parallel()
	r := verified(t)
	some := r.records(r.cfg.Kafka.Output)[0]
	cl, err := kgo.NewClient(kgo.SeedBrokers(r.cfg.Kafka.Brokers...), kgo.TransactionalID(r.cfg.Kafka.Group+".other"))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	for _, end := range []kgo.TransactionEndTry{kgo.TryAbort, kgo.TryCommit} {
		if err := cl.BeginTransaction(); err != nil {
			t.Fatal(err)
		}
		more := &kgo.Record{Topic: r.cfg.Kafka.Output, Key: some.Key, Value: some.Value, Headers: some.Headers}
		if err := cl.ProduceSync(t.Context(), more).FirstErr(); err != nil {
			t.Fatal(err)
		}
		progress := new(stream.Progress)
		ended := make(chan error, 1)
		go func() {
			// The verification has asked for the topic's end by the time it counts records.
			r.eventually("the first pass", func() bool { _, _, _, all, _, _ := progress.Now(); return all > 0 })
			ended <- cl.EndTransaction(t.Context(), end)
		}()
		verdict, found, err := r.verify(func(v *stream.Verification) { v.Progress = progress })
		if err := <-ended; err != nil {
			t.Fatal(err)
		}
		if err != nil || verdict.OK != (end == kgo.TryAbort) {
			t.Errorf("%v: %+v %q %v", end, verdict, found, err)
		}
	}
}

// Duplicates of at_least_once are told, and are no difference there.
func TestVerifyTellsHarmlessDuplicates(t *testing.T) {
	t.Parallel()
	r := verified(t, func(r *rig) { r.cfg.Mode = stream.AtLeastOnce })
	out := r.copied(r.cfg.Kafka.Output, r.on("0/0", "c", twice))
	with := func(v *stream.Verification) { v.Kafka.Output = out }
	if v := r.wantVerdict([]string{"duplicate_record 0/0 c harmless"}, with); v.Duplicates != 1 {
		t.Errorf("%d duplicates, want 1", v.Duplicates)
	}
	r.wantVerdict([]string{"duplicate_record 0/0 c"}, with, func(v *stream.Verification) { v.Mode = stream.ExactlyOnce })
	// A different one is a difference in either mode.
	out = r.copied(r.cfg.Kafka.Output, r.on("0/0", "c", func(rec *kgo.Record) []*kgo.Record {
		both := twice(rec)
		both[1].Value = []byte(strings.Replace(string(rec.Value), "same", "Same", 1))
		return both
	}))
	r.wantVerdict([]string{"different 0/0 c adv_campaign_id"}, with)
}

// What is committed in Postgres and not yet in Kafka is in flight: a daemon that runs brings
// it, and a dead one's is named with the reason.
func TestVerifyNamesWhatIsStillInFlight(t *testing.T) {
	t.Parallel()
	r := verified(t)
	r.setOffset(0, 1, "") // as if the process had died between the commits of 0/1 to 0/4
	out := r.copied(r.cfg.Kafka.Output, func(rec *kgo.Record) []*kgo.Record {
		if t := string(rec.Headers[0].Value); strings.HasSuffix(t, "/0/1") || strings.HasSuffix(t, "/0/4") {
			return nil
		}
		return []*kgo.Record{rec}
	})
	want := []string{"missing_record 0/1 a", "missing_record 0/1 b", "missing_record 0/1 c", "missing_record 0/4 a"}
	v := r.wantVerdict(want, func(v *stream.Verification) { v.Kafka.Output = out })
	if v.Partitions[0].GroupOffset == nil || *v.Partitions[0].GroupOffset != 1 || v.Partitions[1].GroupOffset != nil {
		t.Errorf("%+v", v.Partitions)
	}
	dead := r.records(r.cfg.Kafka.DeadLetter)
	r.cfg.Kafka.Output = out
	r.untilNow()
	r.wantVerdict([]string{"duplicate_dead_letter 0/2"}) // it had gone out
	if n := len(r.records(r.cfg.Kafka.DeadLetter)); n != len(dead)+1 {
		t.Errorf("%d dead letters, want %d", n, len(dead)+1)
	}
}

// A daemon goes on delivering; each verification beside it finds both sinks equal.
func TestVerifyBesideARunningDaemon(t *testing.T) {
	t.Parallel()
	list := clients(300)
	r := newRig(t, 2, map[string][]string{"r": list})
	r.cfg.MaxTransactionRecords = 200
	_, stop := r.start()
	r.publish(0, campaign("r", "first").json(t))
	r.eventually("the first delivery", func() bool { return r.rowCount() > 0 })
	for i := range 4 {
		for n := range 10 {
			r.publish(int32(n%2), campaign("r", fmt.Sprint(i, n)).json(t))
		}
		r.wantVerdict(nil, func(v *stream.Verification) { v.Patience = 20 * time.Second })
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	r.untilNow()
	if v := r.wantVerdict(nil); v.Messages != 41 || v.Records != 41*300 {
		t.Errorf("%+v", v)
	}
}

// Without the feedback database there is no verdict, but a reason.
func TestVerifySaysWhichDatabaseIsAway(t *testing.T) {
	t.Parallel()
	r := newRig(t, 1, nil)
	r.untilNow() // a new cluster has no place for offsets before somebody has any
	for address, want := range map[string]string{"postgres://u@127.0.0.1:1/d": "connection refused", "host=h port=x": "cannot be understood"} {
		_, _, err := r.verify(func(v *stream.Verification) { v.FeedbackDSN = address })
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", address, err)
		}
	}
}

// Ids that were given out again (TRUNCATE … RESTART IDENTITY, or a new table in the place of the old one) are named by
// the manifest of the rows that had them before, too. Each row is its own message's: what was delivered since is equal
// in both sinks, and of what went with the old rows just that is named.
func TestVerifyTellsWhoseTheIDsAreNow(t *testing.T) {
	t.Parallel()
	for name, renewed := range map[string][]string{
		"emptied":  {`TRUNCATE subscribers_feedback RESTART IDENTITY`},
		"replaced": {`ALTER TABLE subscribers_feedback RENAME TO old`, `CREATE TABLE subscribers_feedback (LIKE old INCLUDING ALL)`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, 1, map[string][]string{"r": {"a", "b", "c", "d"}, "s": {"a", "b"}})
			r.publish(0, campaign("r", "old").json(t))
			r.untilNow()
			r.db.Exec(t, renewed...)
			r.publish(0, campaign("s", "new").json(t), campaign("s", "newer").json(t), campaign("r", "newest").json(t))
			r.untilNow()
			if v := r.wantVerdict(nil, bounds("0:1", "")); v.Messages != 3 || v.Rows != 8 || v.Records != 8 {
				t.Errorf("%+v", v)
			}
			r.wantVerdict([]string{"missing_row 0/0 a", "missing_row 0/0 b", "missing_row 0/0 c", "missing_row 0/0 d"})
			r.wantVerdict([]string{"missing_row 0/0 a", "missing_row 0/0 b", "missing_row 0/0 c", "missing_row 0/0 d"}, bounds("0:0", "0:1"))
		})
	}
}
