package stream_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"example.com/tiffin/internal/devstack"
	"example.com/tiffin/internal/devstack/devstacktest"
	"example.com/tiffin/stream"
)

// logged collects what a rig's engines log, beside the test's own log.
type logged struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *logged) wants(t *testing.T, text string) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	if !strings.Contains(l.buf.String(), text) {
		t.Errorf("the log never says %q:\n%s", text, l.buf.String())
	}
}

func (l *logged) lines(text string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.buf.String(), text)
}

func (r *rig) logging() *logged {
	l := &logged{}
	r.cfg.Log = slog.New(slog.NewTextHandler(l, nil))
	return l
}

func (r *rig) wantLedgerError(words ...string) {
	r.t.Helper()
	err := r.tryUntilNow()
	if _, ok := errors.AsType[*stream.LedgerError](err); !ok {
		r.t.Fatalf("error %v: want a LedgerError", err)
	}
	for _, word := range words {
		if !strings.Contains(err.Error(), word) {
			r.t.Errorf("error %q lacks %q", err, word)
		}
	}
}

func (r *rig) wantDelivered(rows, records int) {
	r.t.Helper()
	if n, m := r.rowCount(), len(r.deliveries()); n != rows || m != records {
		r.t.Fatalf("%d rows, %d records: want %d and %d", n, m, rows, records)
	}
}

func (r *rig) publishSome(partition int32, n int) {
	r.t.Helper()
	for i := range n {
		r.publish(partition, campaign("r", fmt.Sprint(i)).json(r.t))
	}
}

// A partition that is added to the topic is read from its first message, whatever kafka.start
// says: that is where a group begins.
func TestAddedPartitionsMissNothing(t *testing.T) {
	t.Parallel()
	r := newRig(t, 2, map[string][]string{"r": {"c"}})
	log := r.logging()
	r.cfg.Kafka.Start = stream.StartLatest
	r.publishSome(0, 2)
	r.publishSome(1, 2)
	r.untilNow() // the group begins at the end of both
	r.wantDelivered(0, 0)
	r.publishSome(1, 1)
	if _, err := kadm.NewClient(r.admin).CreatePartitions(t.Context(), 2, r.cfg.Kafka.Input); err != nil {
		t.Fatal(err)
	}
	r.admin.ForceMetadataRefresh()
	r.eventually("the partitions", func() bool {
		listed, err := kadm.NewClient(r.admin).ListEndOffsets(t.Context(), r.cfg.Kafka.Input)
		return err == nil && listed.Error() == nil && len(listed[r.cfg.Kafka.Input]) == 4
	})
	r.publishSome(2, 3) // before any process knows of it
	r.publishSome(3, 1)
	r.untilNow()
	r.wantDelivered(5, 5)
	log.wants(t, "added to the topic")
	r.wantVerdict(nil)
}

// A topic that was deleted and created again is another topic: nothing of it is skipped,
// however many messages it has by now, and nothing of the old one is forgotten.
func TestRecreatedInputTopicStops(t *testing.T) {
	t.Parallel()
	for _, n := range []int{1, 7} { // fewer messages than the ledger's offset, and more
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			t.Parallel()
			r := newRig(t, 1, map[string][]string{"r": {"c"}})
			log := r.logging()
			r.publishSome(0, 4)
			r.untilNow()
			r.recreateInput()
			r.publishSome(0, n)
			r.wantLedgerError("deleted and created again", "--input-reset=anew", "tiffin verify")
			r.wantDelivered(4, 4)
			anew := func(c *stream.Config) { c.InputReset = stream.InputAnew }
			r.untilNow(anew)
			log.wants(t, "beginning anew")
			r.wantDelivered(4+n, 4+n)
			if outcome, recipients, _ := r.manifest(0, 0); outcome != "delivered" || recipients != 1 {
				t.Errorf("manifest of the new topic: %s, %d", outcome, recipients)
			}
			var aside int
			if err := r.db.Connect(t).QueryRow(t.Context(), `SELECT count(*) FROM tiffin.trigger WHERE topic LIKE $1`, r.cfg.Kafka.Input+"@%").Scan(&aside); err != nil {
				t.Fatal(err)
			}
			if aside != 4 {
				t.Errorf("%d messages set aside, want 4", aside)
			}
			r.publishSome(0, 1)
			r.untilNow() // and without the flag from now on
			r.wantDelivered(5+n, 5+n)
		})
	}
}

// The same under a running daemon: it ends with the reason.
func TestRecreatedInputTopicStopsARunningDaemon(t *testing.T) {
	t.Parallel()
	r := newRig(t, 1, map[string][]string{"r": {"c"}})
	r.publishSome(0, 3)
	ended := make(chan error, 1)
	e, err := stream.New(r.cfg, r.index, noFence{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() { ended <- e.Run(ctx) }()
	r.eventually("the deliveries", func() bool { return len(r.records(r.cfg.Kafka.Output)) == 3 })
	r.recreateInput()
	r.publishSome(0, 5)
	select {
	case err = <-ended:
	case <-time.After(90 * time.Second):
		cancel()
		t.Fatalf("still running: %v, %v", e.Reasons(), <-ended)
	}
	var ledger *stream.LedgerError
	if !errors.As(err, &ledger) || !strings.Contains(err.Error(), "created again") {
		t.Fatalf("error %v: want a LedgerError", err)
	}
	want := 3
	if devstack.KafkaBefore(3, 1) { // which serve the new one's messages from where the old one was read, until the probe looks
		want = r.rowCount()
	}
	r.wantDelivered(want, want)
}

func (r *rig) recreateInput() {
	r.t.Helper()
	adm := kadm.NewClient(r.admin)
	partitions := int32(1)
	if resp, err := adm.DeleteTopics(r.t.Context(), r.cfg.Kafka.Input); err != nil || resp.Error() != nil {
		r.t.Fatal(err, resp.Error())
	}
	r.eventually("the topic to be gone", func() bool {
		listed, err := adm.ListTopics(r.t.Context(), r.cfg.Kafka.Input)
		return err == nil && listed[r.cfg.Kafka.Input].Err != nil
	})
	r.admin.PurgeTopicsFromClient(r.cfg.Kafka.Input)
	devstacktest.CreateTopic(r.t, r.cfg.Kafka.Brokers, r.cfg.Kafka.Input, partitions, nil)
}

// A topic that ends before the ledger has lost messages that were handled.
func TestInputThatEndsBeforeTheLedgerStops(t *testing.T) {
	t.Parallel()
	r := newRig(t, 1, map[string][]string{"r": {"c"}})
	r.publishSome(0, 2)
	r.untilNow()
	// What an unclean leader election leaves: both offsets, and the manifest, beyond the end.
	r.db.Exec(t, `UPDATE tiffin.progress SET next_offset = 3, start_offset = 3;
		INSERT INTO tiffin.trigger (consumer_group, topic, partition, record_offset, outcome)
		SELECT consumer_group, topic, partition, 2, 'inactive' FROM tiffin.progress`)
	r.setOffset(0, 3, "tiffin")
	r.wantLedgerError("ends at 2", "--input-reset=anew")
	r.untilNow(func(c *stream.Config) { c.InputReset = stream.InputAnew })
	r.publishSome(0, 1) // takes the offset that was lost
	r.untilNow()
	r.wantDelivered(3, 3)
	r.wantVerdict(nil)
}

// Messages that retention deleted before they were handled are lost, and it is said which.
func TestRetentionBelowTheLedgerIsTold(t *testing.T) {
	t.Parallel()
	r := newRig(t, 1, map[string][]string{"r": {"c"}})
	log := r.logging()
	r.publishSome(0, 2)
	r.untilNow()
	r.publishSome(0, 5)
	r.deleteRecords(r.cfg.Kafka.Input, 0, 4)
	registry := prometheus.NewRegistry()
	r.cfg.Registerer = registry
	r.untilNow()
	r.wantDelivered(5, 5) // 0 and 1, 4 to 6
	if n := lost(t, registry, "retention"); n != 2 {
		t.Errorf("%v messages lost to retention are counted, want 2", n)
	}
	log.wants(t, "from_offset=2 to_offset=4")
	if got := r.groupOffset(0); got != 7 {
		t.Errorf("group offset %d: want 7", got)
	}
	r.wantVerdict(nil)
}

// An operator who sets the group's offset forward is told what that means, and chooses.
func TestOffsetSetForwardStops(t *testing.T) {
	t.Parallel()
	r := newRig(t, 1, map[string][]string{"r": {"c"}})
	r.publishSome(0, 2)
	r.untilNow()
	r.publishSome(0, 4)
	r.setOffset(0, 4, "")
	r.wantLedgerError("stands at 2", "at 4", "set the group's offset forward", "--ledger-behind=skip")
	r.wantDelivered(2, 2)
	r.untilNow(func(c *stream.Config) { c.LedgerBehind = stream.LedgerSkip })
	r.wantDelivered(4, 4) // 0 and 1, 4 and 5
	r.wantVerdict(nil)
	r.publishSome(0, 2)
	r.setOffset(0, 8, "")
	r.untilNow(func(c *stream.Config) { c.LedgerBehind = stream.LedgerReplay })
	r.wantDelivered(6, 6)
	r.wantVerdict(nil)
}

// An operator who sets the group's offset back is told that the records come again, and which messages
// cannot, because the manifest does not know them: those before the group's beginning, and those that
// were removed from it. A marker of a transaction is no message.
func TestOffsetSetBackIsToldAndSentAgain(t *testing.T) {
	t.Parallel()
	r := newRig(t, 1, map[string][]string{"r": {"c"}})
	r.cfg.Kafka.Start = stream.StartLatest
	r.publishSome(0, 2)
	r.untilNow() // begins at 2
	r.publishSome(0, 2)
	r.publishInTransaction() // 4 to 6, and its marker, 7
	r.eventually("the marker", func() bool { return r.end(r.cfg.Kafka.Input) == 8 })
	r.publishSome(0, 1)
	r.untilNow()
	r.wantDelivered(6, 6)
	back := func(to int64) (*logged, *prometheus.Registry) {
		t.Helper()
		r.setOffset(0, to, "")
		log, registry := r.logging(), prometheus.NewRegistry()
		r.cfg.Registerer = registry
		r.untilNow()
		log.wants(t, "moved back by an operator")
		log.wants(t, fmt.Sprintf("from_offset=%d to_offset=9", to))
		return log, registry
	}
	log, registry := back(4)
	log.wants(t, "messages=4 records=4")
	r.wantDelivered(6, 10)
	if n := lost(t, registry, "manifest"); n != 0 || log.lines("does not know") > 0 {
		t.Errorf("%v messages without a manifest are counted: a marker is none", n)
	}
	log, registry = back(0)
	log.wants(t, "messages=6 records=6")
	r.wantDelivered(6, 16)
	log.wants(t, "does not know a message")
	log.wants(t, r.trigger(0)+"\n")
	log.wants(t, r.trigger(1)+"\n")
	if n := lost(t, registry, "manifest"); n != 2 {
		t.Errorf("%v messages without a manifest are counted, want 2", n)
	}
	r.db.Exec(t, `DELETE FROM tiffin.trigger WHERE record_offset IN (3, 8)`)
	r.deleteRecords(r.cfg.Kafka.Input, 0, 5)
	log, registry = back(2)
	r.wantDelivered(6, 20)
	log.wants(t, r.trigger(8)+"\n")
	log.wants(t, "nobody can tell whether they were messages")
	log.wants(t, "from_offset=3 to_offset=4")
	if n := lost(t, registry, "manifest"); n != 1 {
		t.Errorf("%v messages without a manifest are counted, want 1", n)
	}
}

// publishInTransaction publishes three messages in a transaction.
func (r *rig) publishInTransaction() {
	r.t.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(r.cfg.Kafka.Brokers...), kgo.TransactionalID(r.cfg.Kafka.Group+" publisher"), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		r.t.Fatal(err)
	}
	defer cl.Close()
	if err := cl.BeginTransaction(); err != nil {
		r.t.Fatal(err)
	}
	for range 3 {
		rec := &kgo.Record{Topic: r.cfg.Kafka.Input, Value: campaign("r", "transactional").json(r.t)}
		if err := cl.ProduceSync(r.t.Context(), rec).FirstErr(); err != nil {
			r.t.Fatal(err)
		}
	}
	if err := cl.EndTransaction(r.t.Context(), kgo.TryCommit); err != nil {
		r.t.Fatal(err)
	}
}

// A feedback database that was restored from a backup, and one that knows nothing at all.
func TestRestoredFeedbackDatabaseStops(t *testing.T) {
	t.Parallel()
	r := newRig(t, 1, map[string][]string{"r": {"c"}})
	r.untilNow() // creates the schema
	r.publishSome(0, 2)
	r.untilNow()
	older := r.backup()
	r.publishSome(0, 3)
	r.untilNow()
	r.wantDelivered(5, 5)

	r.db, r.cfg.FeedbackDSN = older, older.DSN
	r.wantLedgerError("stands at 2", "at 5", "restored from a backup")
	if _, found, err := r.verify(); err != nil || len(found) != 3 || found[0] != "extra_record 0/2 c" {
		t.Errorf("verify: %q %v", found, err)
	}
	r.untilNow(func(c *stream.Config) { c.LedgerBehind = stream.LedgerReplay })
	r.wantDelivered(5, 8)
	r.wantVerdict([]string{"duplicate_record 0/2 c", "duplicate_record 0/3 c", "duplicate_record 0/4 c"})

	empty := servers.Database(t)
	r.db, r.cfg.FeedbackDSN = empty, empty.DSN
	r.wantLedgerError("knows nothing of it", "up to offset 5", "--ledger-behind=skip")
	r.publishSome(0, 1)
	r.untilNow(func(c *stream.Config) { c.LedgerBehind = stream.LedgerSkip })
	r.wantDelivered(1, 9)
	r.wantVerdict(nil)
}

// A renamed group is a new one. It is told what the ledger knows of others, and goes on where
// the old one stood if its offsets are set so.
func TestRenamedGroupGoesOnWhereItIsTold(t *testing.T) {
	t.Parallel()
	r := newRig(t, 2, map[string][]string{"r": {"c"}})
	log := r.logging()
	r.publishSome(0, 3)
	r.publishSome(1, 1)
	r.untilNow()
	old := r.cfg.Kafka.Group
	r.publishSome(0, 2)
	r.cfg.Kafka.Group = servers.Unique(t, "renamed")
	r.setOffset(0, 3, "")
	r.setOffset(1, 1, "")
	r.untilNow()
	r.wantDelivered(6, 6)
	r.wantVerdict(nil)
	// The old group's ledger stays, and can be asked.
	r.wantVerdict(nil, func(v *stream.Verification) { v.Kafka.Group = old })

	r.cfg.Kafka.Group, r.cfg.Kafka.Start = servers.Unique(t, "unset"), stream.StartLatest
	r.untilNow()
	r.wantDelivered(6, 6)
	log.wants(t, "if this one was renamed")
	log.wants(t, old)
}

// Records are rebuilt although others have written to the table meanwhile: what they put into
// feedback changes nothing, a row that they deleted is not sent again, and is told.
func TestRebuiltRecordsBearOthersChanges(t *testing.T) {
	t.Parallel()
	r := newRig(t, 1, map[string][]string{"r": {"a", "b", "c"}})
	log := r.logging()
	m := campaign("r", "same")
	r.publish(0, m.json(t), m.json(t))
	r.untilNow()
	var want []delivery
	for offset := range int64(2) {
		for _, client := range []string{"a", "b", "c"} {
			want = append(want, r.expect(m, 0, offset, client))
		}
	}
	same(t, "records", r.deliveries(), want)
	r.db.Exec(t, `UPDATE subscribers_feedback SET feedback = 'delicious'`)
	r.db.Exec(t, `DELETE FROM subscribers_feedback USING tiffin.trigger t WHERE feedback_ids @> subscribers_feedback.id AND record_offset = 1 AND client_id = 'b'`)
	r.setOffset(0, 0, "")
	r.clock.Add(1000)
	r.untilNow()
	r.clock.Add(-1000)
	for _, d := range append([]delivery{}, want...) {
		if d != r.expect(m, 0, 1, "b") {
			want = append(want, d)
		}
	}
	same(t, "records", r.deliveries(), want)
	log.wants(t, "feedback rows were deleted before their records went out")
	log.wants(t, "rows=1")
	if n := r.rowCount(); n != 5 {
		t.Errorf("%d rows: want 5, a deleted one is not written again", n)
	}
}

// What was deleted of many messages is told of the first few, and of the rest by number.
func TestRecoveryNamesTheFirstAndCountsTheRest(t *testing.T) {
	t.Parallel()
	r := newRig(t, 1, map[string][]string{"r": {"a", "b"}})
	const messages = 40
	r.publishSome(0, messages/2)
	for range messages / 2 {
		r.publish(0, []byte("garbage"))
	}
	r.untilNow()
	log := r.logging()
	r.db.Exec(t, `DELETE FROM subscribers_feedback WHERE client_id = 'b'`)
	r.deleteRecords(r.cfg.Kafka.Input, 0, messages)
	r.setOffset(0, 0, "tiffin")
	r.untilNow()
	for _, text := range []string{"feedback rows were deleted", "a malformed record is gone"} {
		if n := log.lines(text); n > 6 {
			t.Errorf("%d lines say %q: want 6 at most", n, text)
		}
	}
	log.wants(t, "messages=20 rows=20")
	log.wants(t, "only the first are named\" messages=20\n")
	r.wantDelivered(messages/2, 3*messages/2)
}
