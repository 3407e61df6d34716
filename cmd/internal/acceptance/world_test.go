package acceptance

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"example.com/tiffin/internal/devstack/devstacktest"
)

var servers devstacktest.Servers

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "tiffin-acceptance-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	binaryDir = dir
	code := servers.Main(m)
	_ = os.RemoveAll(dir)
	os.Exit(code)
}

var binaryDir string // set by TestMain

// programs is the directory of tiffin, slotsetup and bench, built once.
var programs = sync.OnceValues(func() (string, error) {
	out, err := exec.Command("go", "build", "-o", binaryDir+"/", "example.com/tiffin/cmd/tiffin", "example.com/tiffin/cmd/slotsetup", "example.com/tiffin/cmd/bench").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("go build: %w\n%s", err, out)
	}
	return binaryDir, nil
})

// binary is the program itself.
func binary() (string, error) {
	dir, err := programs()
	return filepath.Join(dir, "tiffin"), err
}

// world is a source database, a feedback database, three topics and the settings that
// bring them together.
type world struct {
	t        *testing.T
	source   *devstacktest.Database
	feedback *devstacktest.Database
	env      []string
	topic    struct{ in, out, dead string }
	cl       *kgo.Client
}

func newWorld(t *testing.T, partitions int32) *world {
	t.Helper()
	kafka := servers.Kafka(t)
	w := &world{t: t, source: servers.Database(t), feedback: servers.Database(t)}
	w.topic.in, w.topic.out, w.topic.dead = servers.Topic(t, "in", partitions), servers.Topic(t, "out", 3), servers.Topic(t, "dead", 1)
	w.source.Exec(t, `CREATE TABLE subscribers_restaurants (id serial PRIMARY KEY, client_id varchar NOT NULL, restaurant_id varchar NOT NULL)`)
	w.env = []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir(),
		"TIFFIN_SOURCE_DSN=" + w.source.DSN, "TIFFIN_SOURCE_SLOT=" + w.source.Slot, "TIFFIN_SOURCE_PUBLICATION=" + w.source.Slot,
		"TIFFIN_FEEDBACK_DSN=" + w.feedback.DSN,
		"TIFFIN_KAFKA_BROKERS=" + strings.Join(kafka.PlainBrokers(), ","), "TIFFIN_KAFKA_GROUP=" + servers.Unique(t, "g"),
		"TIFFIN_KAFKA_INPUT=" + w.topic.in, "TIFFIN_KAFKA_OUTPUT=" + w.topic.out, "TIFFIN_KAFKA_DEAD_LETTER=" + w.topic.dead,
		"TIFFIN_KAFKA_START=earliest", "TIFFIN_HTTP_LISTEN=127.0.0.1:0",
	}
	var err error
	w.cl, err = kgo.NewClient(kgo.SeedBrokers(kafka.PlainBrokers()...), kgo.DefaultProduceTopic(w.topic.in),
		kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.cl.Close)
	return w
}

// process is one life of the program.
type process struct {
	cmd  *exec.Cmd
	log  syncBuffer
	done chan error
}

type syncBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

func (w *world) start(args ...string) *process {
	w.t.Helper()
	path, err := binary()
	if err != nil {
		w.t.Fatal(err)
	}
	p := &process{cmd: exec.Command(path, args...), done: make(chan error, 1)}
	p.cmd.Env = w.env
	p.cmd.Stdout, p.cmd.Stderr = io.Discard, &p.log
	p.cmd.SysProcAttr = mortal()
	if err := p.cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
	go func() { p.done <- p.cmd.Wait() }()
	w.t.Cleanup(func() {
		p.kill()
		if w.t.Failed() {
			w.t.Logf("log of the process:\n%s", p.log.String())
		}
	})
	return p
}

func (p *process) kill() {
	_ = p.cmd.Process.Kill()
	p.done <- <-p.done // leave it for whoever asks again
}

// stop asks the process to end and checks that it ends well.
func (w *world) stop(p *process) {
	w.t.Helper()
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		w.t.Fatal(err)
	}
	select {
	case err := <-p.done:
		p.done <- err
		if err != nil {
			w.t.Fatalf("after SIGTERM: %v", err)
		}
	case <-time.After(60 * time.Second):
		w.t.Fatal("still running 60 s after SIGTERM")
	}
}

// untilNow runs the program until the input is handled.
func (w *world) untilNow() {
	w.t.Helper()
	p := w.start("run", "--until-now")
	select {
	case err := <-p.done:
		p.done <- err
		if err != nil {
			w.t.Fatalf("run --until-now: %v", err)
		}
	case <-time.After(120 * time.Second):
		w.t.Fatal("run --until-now takes longer than 120 s")
	}
}

// ready waits until /readyz says 200.
func (w *world) ready(p *process) {
	w.t.Helper()
	w.eventually("readiness", func() bool {
		_, after, found := strings.Cut(p.log.String(), "http=")
		if !found {
			return false
		}
		address, _, _ := strings.Cut(after, "\n")
		resp, err := http.Get("http://" + strings.TrimSpace(address) + "/readyz")
		if err != nil {
			return false
		}
		defer func() { _ = resp.Body.Close() }()
		return resp.StatusCode == http.StatusOK
	})
}

func (w *world) eventually(what string, ok func() bool) {
	w.t.Helper()
	deadline := time.After(90 * time.Second)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			w.t.Fatalf("no sign of %s within 90 s", what)
		}
	}
}

// campaign is one message of the input topic, and what must become of it.
type campaign struct {
	value      []byte
	fields     string // the eight fields as the output shows them
	recipients []string
	partition  int32
	offset     int64
	at         time.Time // of publishing, where a test wants to know
}

func (w *world) publish(messages ...*campaign) {
	w.t.Helper()
	records := make([]*kgo.Record, len(messages))
	for i, m := range messages {
		records[i] = &kgo.Record{Partition: m.partition, Value: m.value}
	}
	if err := w.cl.ProduceSync(w.t.Context(), records...).FirstErr(); err != nil {
		w.t.Fatal(err)
	}
	for i, m := range messages {
		m.offset = records[i].Offset
	}
}

// wantBoth compares both sinks with what the messages must give, row for row and byte for
// byte; the time of the join is only required to be one per message and the same in both.
func (w *world) wantBoth(messages []*campaign) {
	w.t.Helper()
	want := w.expected(messages)
	records, times := w.records()
	compare(w.t, "records", records, want)
	rows := w.rows(times)
	compare(w.t, "rows", rows, want)
}

// expected is what the messages must give, as trigger, key and value up to the client id.
func (w *world) expected(messages []*campaign) (want []string) {
	w.t.Helper()
	for _, m := range messages {
		for _, client := range m.recipients {
			quoted, err := json.Marshal(client)
			if err != nil {
				w.t.Fatal(err)
			}
			want = append(want, fmt.Sprintf("%s/%d/%d %s %s,\"client_id\":%s", w.topic.in, m.partition, m.offset, client, m.fields, quoted))
		}
	}
	return want
}

// records are the committed records, as trigger, key and value up to the client id, and the
// time of each trigger's join.
func (w *world) records() ([]string, map[string]string) {
	w.t.Helper()
	times := map[string]string{}
	var found []string
	for _, r := range w.read(w.topic.out) {
		value, after, ok := strings.Cut(string(r.Value), `,"trigger_datetime_created":`)
		if !ok || len(r.Headers) != 1 || r.Headers[0].Key != "trigger" {
			w.t.Fatalf("record %q %v", r.Value, r.Headers)
		}
		trigger := string(r.Headers[0].Value)
		if at, seen := times[trigger]; seen && at != after {
			w.t.Fatalf("trigger %s has two times: %s and %s", trigger, at, after)
		}
		times[trigger] = after
		found = append(found, fmt.Sprintf("%s %s %s", trigger, r.Key, value))
	}
	return found, times
}

// rows are the feedback rows in the form of records; the manifest says which trigger each
// belongs to.
func (w *world) rows(times map[string]string) []string {
	w.t.Helper()
	conn := w.feedback.Connect(w.t)
	rows, err := conn.Query(w.t.Context(), `SELECT t.topic || '/' || t.partition || '/' || t.record_offset, f.client_id,
		'{"restaurant_id":' || to_json(f.restaurant_id) || ',"adv_campaign_id":' || to_json(adv_campaign_id::text) || ',"adv_campaign_content":' || to_json(adv_campaign_content)
		|| ',"adv_campaign_owner":' || to_json(adv_campaign_owner) || ',"adv_campaign_owner_contact":' || to_json(adv_campaign_owner_contact)
		|| ',"adv_campaign_datetime_start":' || adv_campaign_datetime_start || ',"adv_campaign_datetime_end":' || adv_campaign_datetime_end
		|| ',"datetime_created":' || datetime_created || ',"client_id":' || to_json(client_id), f.trigger_datetime_created || '}', f.feedback
		FROM (SELECT t.topic, t.partition, t.record_offset, lower(r) low, upper(r) high FROM tiffin.trigger t, unnest(t.feedback_ids) r) t
		JOIN (SELECT id, restaurant_id, adv_campaign_id, adv_campaign_content, adv_campaign_owner, adv_campaign_owner_contact, adv_campaign_datetime_start,
			adv_campaign_datetime_end, datetime_created, client_id, trigger_datetime_created, feedback FROM subscribers_feedback) f ON f.id >= t.low AND f.id < t.high`)
	if err != nil {
		w.t.Fatal(err)
	}
	var found []string
	var trigger, client, value, at, feedback string
	_, err = pgx.ForEachRow(rows, []any{&trigger, &client, &value, &at, &feedback}, func() error {
		if times[trigger] != at {
			w.t.Errorf("trigger %s: time %s in the row, %s in the records", trigger, at, times[trigger])
		}
		if feedback != "" {
			w.t.Errorf("feedback %q", feedback)
		}
		found = append(found, fmt.Sprintf("%s %s %s", trigger, client, value))
		return nil
	})
	if err != nil {
		w.t.Fatal(err)
	}
	if n := w.count(); n != len(found) {
		w.t.Errorf("%d rows in the table, %d of them known to the manifest", n, len(found))
	}
	return found
}

func (w *world) count() (n int) {
	w.t.Helper()
	if err := w.feedback.Connect(w.t).QueryRow(w.t.Context(), `SELECT count(*) FROM subscribers_feedback`).Scan(&n); err != nil {
		return 0 // not yet migrated
	}
	return n
}

// read returns all committed records of a topic.
func (w *world) read(topic string) []*kgo.Record {
	w.t.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(servers.Kafka(w.t).PlainBrokers()...), kgo.ConsumeTopics(topic), kgo.KeepControlRecords(),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	if err != nil {
		w.t.Fatal(err)
	}
	defer cl.Close()
	ctx, cancel := context.WithTimeout(w.t.Context(), 90*time.Second)
	defer cancel()
	ends, err := kadm.NewClient(cl).ListEndOffsets(ctx, topic)
	if err != nil {
		w.t.Fatal(err)
	}
	left := map[int32]int64{}
	ends.Each(func(o kadm.ListedOffset) {
		if o.Offset > 0 {
			left[o.Partition] = o.Offset
		}
	})
	var found []*kgo.Record
	for len(left) > 0 {
		fetches := cl.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			w.t.Fatalf("read %s: %v", topic, err)
		}
		for _, r := range fetches.Records() {
			if r.Offset+1 >= left[r.Partition] {
				delete(left, r.Partition)
			}
			if !r.Attrs.IsControl() {
				found = append(found, r)
			}
		}
	}
	return found
}

func compare(t *testing.T, what string, got, want []string) {
	t.Helper()
	sort.Strings(got)
	want = append([]string(nil), want...)
	sort.Strings(want)
	i, j, faults := 0, 0, 0
	for (i < len(got) || j < len(want)) && faults < 5 {
		switch {
		case j == len(want) || i < len(got) && got[i] < want[j]:
			t.Errorf("%s: not expected: %.400q", what, got[i])
			i++
			faults++
		case i == len(got) || want[j] < got[i]:
			t.Errorf("%s: missing: %.400q", what, want[j])
			j++
			faults++
		default:
			i++
			j++
		}
	}
	t.Logf("%s: %d, expected %d", what, len(got), len(want))
}

// copyRows is what pgx's CopyFrom reads.
func copyRows(rows [][]any) pgx.CopyFromSource { return pgx.CopyFromRows(rows) }
