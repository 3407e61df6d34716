package stream_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"example.com/tiffin/cache"
	"example.com/tiffin/internal/devstack"
	"example.com/tiffin/internal/devstack/devstacktest"
	"example.com/tiffin/migrations"
	"example.com/tiffin/stream"
)

var servers devstacktest.Servers

func TestMain(m *testing.M) {
	servers.KafkaOptions.SASL = devstack.KafkaServesSASL() // beside the plaintext listener
	servers.KafkaOptions.Settings = map[string]string{
		"transaction.abort.timed.out.transaction.cleanup.interval.ms": "500",
		"log.cleaner.backoff.ms": "500", // who waits for a compaction
	}
	os.Exit(servers.Main(m))
}

// secureKafka is the shared broker for a test that logs in.
func secureKafka(t *testing.T) *devstack.Kafka {
	t.Helper()
	if !devstack.KafkaServesSASL() {
		t.Skip(devstack.ErrNoSASL)
	}
	return servers.Kafka(t)
}

const now = 1_700_000_000

// rig is one test's world: a database, three topics, an index that holds what the test says.
type rig struct {
	t      *testing.T
	db     *devstacktest.Database
	index  *cache.Index
	source *rows
	kafka  *devstack.Kafka
	admin  *kgo.Client
	cfg    stream.Config
	clock  atomic.Int64
	conn   *pgx.Conn   // of number
	ended  func() bool // whether the engine that was started last has ended by itself
}

// rows is the source table of a test: restaurant -> client ids, one entry a row.
type rows struct {
	mu sync.Mutex
	of map[string][]string
}

func (r *rows) ReadRestaurant(_ context.Context, restaurant string, add func([]byte) error) (cache.Snapshot, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range r.of[restaurant] {
		if err := add([]byte(c)); err != nil {
			return cache.Snapshot{}, err
		}
	}
	return cache.Snapshot{Xmin: 100, Xmax: 100}, nil
}

func newRig(t *testing.T, partitions int32, subscribers map[string][]string) *rig {
	t.Helper()
	return newRigOn(t, servers.Kafka(t), partitions, subscribers)
}

func newRigOn(t *testing.T, kafka *devstack.Kafka, partitions int32, subscribers map[string][]string) *rig {
	t.Helper()
	topic := func(prefix string, partitions int32) string {
		name := servers.Unique(t, prefix)
		devstacktest.CreateTopic(t, kafka.PlainBrokers(), name, partitions, nil)
		return name
	}
	r := &rig{t: t, db: servers.Database(t), kafka: kafka, source: &rows{of: subscribers}}
	r.clock.Store(now)
	index, err := cache.New(cache.Config{Budget: 64 << 20}, r.source)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(index.Close)
	r.index = index
	load := index.BeginLoad(false)
	for restaurant, clients := range subscribers {
		for _, c := range clients {
			if err := load.Add(0, []byte(restaurant), []byte(c)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := load.Finish(cache.Snapshot{Xmin: 100, Xmax: 100}); err != nil {
		t.Fatal(err)
	}
	table := pgx.Identifier{"public", "subscribers_feedback"}
	r.cfg = stream.Config{
		Kafka: stream.KafkaConfig{
			Brokers: kafka.PlainBrokers(), Group: servers.Unique(t, "g"), InstanceID: "one", Process: "one",
			Input: topic("in", partitions), Output: topic("out", 3), DeadLetter: topic("dead", 1),
			Start: stream.StartEarliest,
		},
		FeedbackDSN: r.db.DSN, FeedbackTable: table, Mode: stream.ExactlyOnce,
		Prepare: func(ctx context.Context, conn *pgx.Conn) error {
			_, err := migrations.Migrate(ctx, conn, migrations.Options{FeedbackTable: table})
			return err
		},
		Log: slog.New(slog.NewTextHandler(testWriter{t}, nil)),
		Now: func() time.Time { return time.Unix(r.clock.Load(), 0) },
	}
	if r.admin, err = kgo.NewClient(kgo.SeedBrokers(kafka.PlainBrokers()...), kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerBatchMaxBytes(1_048_588)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.admin.Close)
	return r
}

type testWriter struct{ t *testing.T }

func (w testWriter) Write(p []byte) (int, error) {
	w.t.Log(strings.TrimRight(string(p), "\n"))
	return len(p), nil
}

// noFence is a source that is always caught up.
type noFence struct{}

func (noFence) Wait(context.Context) (cache.Mark, error) { return cache.Mark{LSN: 0x16B374D848}, nil }

// start runs an engine; stop asks it to end and returns what Run said.
func (r *rig) start(change ...func(*stream.Config)) (e *stream.Engine, stop func() error) {
	r.t.Helper()
	cfg := r.cfg
	for _, c := range change {
		c(&cfg)
	}
	e, err := stream.New(cfg, r.index, noFence{})
	if err != nil {
		r.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(r.t.Context())
	done := make(chan error, 1)
	go func() { done <- e.Run(ctx) }()
	stop = func() error {
		cancel()
		err := <-done
		done <- err // for who asks again
		return err
	}
	r.ended = func() bool { return len(done) > 0 }
	r.t.Cleanup(func() { _ = stop() })
	return e, stop
}

// untilNow handles what the input topic holds and returns.
func (r *rig) untilNow(change ...func(*stream.Config)) {
	r.t.Helper()
	if err := r.tryUntilNow(change...); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) tryUntilNow(change ...func(*stream.Config)) error {
	r.t.Helper()
	cfg := r.cfg
	cfg.UntilNow = true
	for _, c := range change {
		c(&cfg)
	}
	e, err := stream.New(cfg, r.index, noFence{})
	if err != nil {
		r.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeoutCause(r.t.Context(), devstacktest.Patience(), errors.New("until-now took too long"))
	defer cancel()
	if err := e.Run(ctx); err != nil {
		return err
	}
	if ctx.Err() != nil {
		return fmt.Errorf("%w: %v", context.Cause(ctx), e.Reasons())
	}
	return nil
}

// publish puts values into a partition and returns the offset of the first.
func (r *rig) publish(partition int32, values ...[]byte) int64 {
	r.t.Helper()
	records := make([]*kgo.Record, len(values))
	for i, v := range values {
		records[i] = &kgo.Record{Topic: r.cfg.Kafka.Input, Partition: partition, Value: v}
	}
	return r.publishRecords(records...)
}

func (r *rig) publishRecords(records ...*kgo.Record) int64 {
	r.t.Helper()
	for _, rec := range records {
		rec.Topic = r.cfg.Kafka.Input
	}
	ctx, cancel := context.WithTimeout(r.t.Context(), devstacktest.Patience())
	defer cancel()
	if err := r.admin.ProduceSync(ctx, records...).FirstErr(); err != nil {
		r.t.Fatal(errors.Join(err, r.kafka.Gone()))
	}
	return records[0].Offset
}

// message is a campaign as its publisher writes it; the JSON is encoding/json's, so that the
// expectation below owes nothing to the code under test.
type message struct {
	Restaurant string `json:"restaurant_id"`
	ID         string `json:"adv_campaign_id"`
	Content    string `json:"adv_campaign_content"`
	Owner      string `json:"adv_campaign_owner"`
	Contact    string `json:"adv_campaign_owner_contact"`
	Start      int64  `json:"adv_campaign_datetime_start"`
	End        int64  `json:"adv_campaign_datetime_end"`
	Created    int64  `json:"datetime_created"`
}

func campaign(restaurant, id string) message {
	return message{
		Restaurant: restaurant, ID: id, Content: "content of " + id, Owner: "owner", Contact: "owner@restaurant.example",
		Start: now - 100, End: now + 100, Created: now - 50,
	}
}

func (m message) json(t *testing.T) []byte {
	t.Helper()
	b, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// delivery is one recipient of one message, as either sink shows it.
type delivery struct {
	trigger string // only records carry it
	key     string
	value   string
}

// expect is what a message must give for a client, written out by hand.
func (r *rig) expect(m message, partition int32, offset int64, client string) delivery {
	text := func(s string) string {
		var b strings.Builder
		enc := json.NewEncoder(&b)
		enc.SetEscapeHTML(false)
		if err := enc.Encode(s); err != nil {
			r.t.Fatal(err)
		}
		// encoding/json escapes two characters that JSON does not require to be escaped.
		return strings.NewReplacer(`\u2028`, "\u2028", `\u2029`, "\u2029").Replace(strings.TrimSuffix(b.String(), "\n"))
	}
	return delivery{
		trigger: fmt.Sprintf("%s/%d/%d", r.cfg.Kafka.Input, partition, offset),
		key:     client,
		value: fmt.Sprintf(`{"restaurant_id":%s,"adv_campaign_id":%s,"adv_campaign_content":%s,"adv_campaign_owner":%s,`+
			`"adv_campaign_owner_contact":%s,"adv_campaign_datetime_start":%d,"adv_campaign_datetime_end":%d,"datetime_created":%d,`+
			`"client_id":%s,"trigger_datetime_created":%d}`,
			text(m.Restaurant), text(m.ID), text(m.Content), text(m.Owner), text(m.Contact), m.Start, m.End, m.Created, text(client), r.clock.Load()),
	}
}

// records reads all committed records of a topic.
func (r *rig) records(topic string) []*kgo.Record {
	r.t.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(r.cfg.Kafka.Brokers...), kgo.ConsumeTopics(topic), kgo.KeepControlRecords(),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	if err != nil {
		r.t.Fatal(err)
	}
	defer cl.Close()
	ends, err := kadm.NewClient(cl).ListEndOffsets(r.t.Context(), topic)
	if err != nil {
		r.t.Fatal(err)
	}
	left := map[int32]int64{}
	ends.Each(func(o kadm.ListedOffset) {
		if o.Offset > 0 {
			left[o.Partition] = o.Offset
		}
	})
	ctx, cancel := context.WithTimeout(r.t.Context(), devstacktest.Patience())
	defer cancel()
	var found []*kgo.Record
	for len(left) > 0 {
		fetches := cl.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			r.t.Fatalf("read %s: %v; left %v", topic, err, left)
		}
		for _, rec := range fetches.Records() {
			if rec.Offset+1 >= left[rec.Partition] {
				delete(left, rec.Partition)
			}
			if !rec.Attrs.IsControl() {
				found = append(found, rec)
			}
		}
	}
	return found
}

func (r *rig) deliveries() []delivery {
	r.t.Helper()
	var found []delivery
	for _, rec := range r.records(r.cfg.Kafka.Output) {
		d := delivery{key: string(rec.Key), value: string(rec.Value)}
		if rec.Key == nil {
			r.t.Error("a record with a null key")
		}
		if len(rec.Headers) != 1 || rec.Headers[0].Key != "trigger" {
			r.t.Errorf("headers %v: want trigger alone", rec.Headers)
			continue
		}
		d.trigger = string(rec.Headers[0].Value)
		found = append(found, d)
	}
	return found
}

// table reads the feedback table the way its readers do, as JSON made by Postgres.
func (r *rig) table() []delivery {
	r.t.Helper()
	conn := r.db.Connect(r.t)
	rows, err := conn.Query(r.t.Context(), `SELECT restaurant_id, adv_campaign_id, adv_campaign_content, adv_campaign_owner,
		adv_campaign_owner_contact, adv_campaign_datetime_start, adv_campaign_datetime_end, datetime_created, client_id,
		trigger_datetime_created, feedback FROM subscribers_feedback`)
	if err != nil {
		r.t.Fatal(err)
	}
	var found []delivery
	var m message
	var client, feedback string
	var at int64
	_, err = pgx.ForEachRow(rows, []any{&m.Restaurant, &m.ID, &m.Content, &m.Owner, &m.Contact, &m.Start, &m.End, &m.Created, &client, &at, &feedback},
		func() error {
			if feedback != "" {
				r.t.Errorf("feedback %q: want it empty", feedback)
			}
			d := r.expect(m, 0, 0, client)
			d.trigger = ""
			d.value = strings.Replace(d.value, fmt.Sprintf(`"trigger_datetime_created":%d}`, r.clock.Load()), fmt.Sprintf(`"trigger_datetime_created":%d}`, at), 1)
			found = append(found, d)
			return nil
		})
	if err != nil {
		r.t.Fatal(err)
	}
	return found
}

// wantBoth checks that both sinks hold exactly what is expected, byte for byte.
func (r *rig) wantBoth(want []delivery) {
	r.t.Helper()
	same(r.t, "records", r.deliveries(), want)
	r.wantRows(want)
}

func (r *rig) wantRows(want []delivery) {
	r.t.Helper()
	plain := make([]delivery, len(want))
	for i, d := range want {
		d.trigger = ""
		plain[i] = d
	}
	same(r.t, "rows", r.table(), plain)
}

// same compares without order, each as often as it comes.
func same(t *testing.T, what string, got, want []delivery) {
	t.Helper()
	missing := make(map[delivery]int, len(want))
	for _, d := range want {
		missing[d]++
	}
	var more []delivery
	for _, d := range got {
		if missing[d] == 0 {
			more = append(more, d)
		} else if missing[d]--; missing[d] == 0 {
			delete(missing, d)
		}
	}
	if len(missing) == 0 && len(more) == 0 {
		return
	}
	t.Errorf("%s: got %d, want %d", what, len(got), len(want))
	for d, times := range missing {
		t.Errorf("%s: %d are missing, one of them %d times: %.600q", what, len(missing), times, d)
		break
	}
	if len(more) > 0 {
		t.Errorf("%s: %d are too many, one of them: %.600q", what, len(more), more[0])
	}
	t.FailNow()
}

// manifest reads a message's manifest row.
func (r *rig) manifest(partition int32, offset int64) (outcome string, recipients int64, reason string) {
	r.t.Helper()
	conn := r.db.Connect(r.t)
	err := conn.QueryRow(r.t.Context(), `SELECT outcome, recipients, coalesce(reason, '') FROM tiffin.trigger
		WHERE consumer_group = $1 AND topic = $2 AND partition = $3 AND record_offset = $4`,
		r.cfg.Kafka.Group, r.cfg.Kafka.Input, partition, offset).Scan(&outcome, &recipients, &reason)
	if err != nil {
		r.t.Fatalf("manifest of %d/%d: %v", partition, offset, err)
	}
	return outcome, recipients, reason
}

// setOffset resets the group, as an operator or a crash leaves it.
func (r *rig) setOffset(partition int32, offset int64, metadata string) {
	r.t.Helper()
	offsets := kadm.Offsets{}
	offsets.Add(kadm.Offset{Topic: r.cfg.Kafka.Input, Partition: partition, At: offset, LeaderEpoch: -1, Metadata: metadata})
	if _, err := kadm.NewClient(r.admin).CommitOffsets(r.t.Context(), r.cfg.Kafka.Group, offsets); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) groupOffset(partition int32) int64 {
	r.t.Helper()
	offsets, err := kadm.NewClient(r.admin).FetchOffsets(kadm.RequireStable(r.t.Context()), r.cfg.Kafka.Group)
	if err != nil {
		r.t.Fatal(err)
	}
	o, ok := offsets.Lookup(r.cfg.Kafka.Input, partition)
	if !ok {
		return -1
	}
	return o.At
}

func clients(n int) []string {
	list := make([]string, n)
	for i := range list {
		list[i] = fmt.Sprintf("%08x-0000-4000-8000-%012x", i, i)
	}
	return list
}

// eventually waits for something that happens on a server, where there is no event to wait for.
func (r *rig) eventually(what string, ok func() bool) {
	r.t.Helper()
	r.eventuallyOr(what, ok, func() string { return "" })
}

// eventuallyOr says what there was instead when it never happens.
func (r *rig) eventuallyOr(what string, ok func() bool, instead func() string) {
	r.t.Helper()
	r.eventuallyWithin(devstacktest.Patience(), what, ok, instead)
}

func (r *rig) eventuallyWithin(patience time.Duration, what string, ok func() bool, instead func() string) {
	r.t.Helper()
	deadline := time.After(patience)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			r.t.Fatalf("no sign of %s within %s; %s", what, patience, instead())
		}
	}
}

func (r *rig) alter(topic, name, value string) {
	r.t.Helper()
	change := []kadm.AlterConfig{{Op: kadm.SetConfig, Name: name, Value: &value}}
	responses, err := kadm.NewClient(r.admin).AlterTopicConfigs(r.t.Context(), change, topic)
	if err == nil && len(responses) > 0 {
		err = responses[0].Err
	}
	if err != nil {
		r.t.Fatal(err)
	}
}

func deleteGroup(ctx context.Context, cl *kgo.Client, group string) error {
	_, err := kadm.NewClient(cl).DeleteGroup(ctx, group)
	return err
}
