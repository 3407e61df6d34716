package daemon

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"example.com/tiffin/cmd/internal/settings"
	"example.com/tiffin/internal/devstack"
	"example.com/tiffin/internal/devstack/devstacktest"
)

// servers is shared by the tests of the package, as TestMain demands.
var servers devstacktest.Servers

func TestMain(m *testing.M) { os.Exit(servers.Main(m)) }

// patience bounds what a test waits for; it is reached only by a fault.
const patience = 60 * time.Second

// world is one source and feedback database, one broker, and the settings that lead there.
type world struct {
	db      *devstacktest.Database
	broker  *devstack.FakeBroker
	environ []string
}

func newWorld(t *testing.T) *world {
	t.Helper()
	return newWorldOn(t, servers.Database(t))
}

func newWorldOn(t *testing.T, db *devstacktest.Database) *world {
	t.Helper()
	broker, err := devstack.StartFakeBroker(t.Context(), devstack.FakeBrokerOptions{
		Topics: map[string]int32{"campaigns": 2, "deliveries": 2, "campaigns.dlq": 1},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(broker.Close)
	db.Exec(t, "CREATE TABLE subscribers_restaurants (id serial PRIMARY KEY, client_id varchar NOT NULL, restaurant_id varchar NOT NULL)",
		"INSERT INTO subscribers_restaurants (client_id, restaurant_id) VALUES ('ann', 'r1'), ('bob', 'r1'), ('cid', 'r2')")
	return &world{db: db, broker: broker, environ: []string{
		"TIFFIN_SOURCE_DSN=" + db.DSN, "TIFFIN_FEEDBACK_DSN=" + db.DSN, "TIFFIN_SOURCE_SLOT=" + db.Slot,
		"TIFFIN_KAFKA_BROKERS=" + strings.Join(broker.Brokers(), ","), "TIFFIN_KAFKA_START=earliest", "TIFFIN_HTTP_LISTEN=127.0.0.1:0",
	}}
}

func (w *world) publish(t *testing.T, restaurant string) {
	t.Helper()
	w.send(t, w.campaign(restaurant))
}

// campaign is a message of a restaurant.
func (w *world) campaign(restaurant string) *kgo.Record {
	return &kgo.Record{Topic: "campaigns", Value: fmt.Appendf(nil, `{"restaurant_id":%q,"adv_campaign_id":"c","adv_campaign_content":"x","adv_campaign_owner":"o","adv_campaign_owner_contact":"k",`+
		`"adv_campaign_datetime_start":0,"adv_campaign_datetime_end":99999999999,"datetime_created":1}`, restaurant)}
}

func (w *world) send(t *testing.T, records ...*kgo.Record) {
	t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(w.broker.Brokers()...))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if err := client.ProduceSync(t.Context(), records...).FirstErr(); err != nil {
		t.Fatal(err)
	}
}

// clients reads n committed records of the output topic and returns their keys' set.
func (w *world) clients(t *testing.T, n int) map[string]int {
	t.Helper()
	keys := map[string]int{}
	for _, r := range w.deliveries(t, n) {
		keys[string(r.Key)]++
	}
	return keys
}

// deliveries reads n committed records of the output topic.
func (w *world) deliveries(t *testing.T, n int) (records []*kgo.Record) {
	t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(w.broker.Brokers()...), kgo.ConsumeTopics("deliveries"),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.FetchIsolationLevel(kgo.ReadCommitted()))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for len(records) < n {
		fetches := client.PollFetches(ctx)
		if err := fetches.Err0(); err != nil {
			t.Fatalf("%d of %d records came: %v", len(records), n, err)
		}
		records = append(records, fetches.Records()...)
	}
	return records
}

func (w *world) rows(t *testing.T) (n int) {
	t.Helper()
	if err := w.db.Connect(t).QueryRow(t.Context(), "SELECT count(*) FROM subscribers_feedback").Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

// running is a daemon at work.
type running struct {
	url   string
	ready chan struct{}
	done  chan error
	stop  context.CancelFunc
}

func start(t *testing.T, environ []string, change func(*Options)) *running {
	t.Helper()
	s, err := settings.Load(settings.Input{Environ: environ})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	r := &running{ready: make(chan struct{}), done: make(chan error, 1), stop: cancel}
	endpoint := make(chan net.Addr, 1)
	o := Options{
		Settings: s, Log: slog.New(slog.NewTextHandler(testLog{t}, nil)), Version: "test",
		Started: func(addr net.Addr) { endpoint <- addr }, Ready: func() { close(r.ready) },
	}
	if change != nil {
		change(&o)
	}
	ended := make(chan struct{})
	go func() { defer close(ended); r.done <- Run(ctx, o) }()
	t.Cleanup(func() { cancel(); <-ended })
	if addr := <-endpoint; addr != nil {
		r.url = "http://" + addr.String()
	}
	return r
}

// testLog writes the daemon's log to the test's.
type testLog struct{ t *testing.T }

func (l testLog) Write(line []byte) (int, error) {
	l.t.Log(strings.TrimSuffix(string(line), "\n"))
	return len(line), nil
}

func (r *running) waitReady(t *testing.T) {
	t.Helper()
	select {
	case <-r.ready:
	case err := <-r.done:
		t.Fatalf("the daemon ended before it was ready: %v", err)
	case <-time.After(patience):
		_, reasons := r.probe(t)
		t.Fatalf("the daemon is not ready: %q", reasons)
	}
}

// end waits until Run has returned.
func (r *running) end(t *testing.T) error {
	t.Helper()
	select {
	case err := <-r.done:
		return err
	case <-time.After(patience):
		t.Fatal("the daemon goes on")
		return nil
	}
}

func (r *running) probe(t *testing.T) (status int, reasons []string) {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Get(r.url + "/readyz")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	var body struct{ Reasons []string }
	if err := json.NewDecoder(response.Body).Decode(&body); err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, body.Reasons
}

func (r *running) metrics(t *testing.T) string {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Get(r.url + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestDaemonDeliversToBothSinksAndStopsWhenAsked(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	r := start(t, w.environ, nil)
	r.waitReady(t)
	if status, reasons := r.probe(t); status != http.StatusOK || len(reasons) != 0 {
		t.Errorf("ready, but /readyz is %d %q", status, reasons)
	}
	w.db.Exec(t, "INSERT INTO subscribers_restaurants (client_id, restaurant_id) VALUES ('dan', 'r1')")
	w.publish(t, "r1")
	if got := w.clients(t, 3); fmt.Sprint(got) != "map[ann:1 bob:1 dan:1]" {
		t.Errorf("delivered to %v", got)
	}
	text := r.metrics(t)
	for _, name := range []string{
		`tiffin_campaigns_total{outcome="delivered"} 1`, "tiffin_deliveries_total 3", "tiffin_delivery_seconds_count 1", "tiffin_fence_seconds_count",
		"tiffin_index_subscriptions 4", "tiffin_index_restaurants 2", "tiffin_index_bytes ", `tiffin_index_lookups_total{result="filled"}`,
		`tiffin_index_lookups_total{result="resident"}`, `tiffin_index_lookups_total{result="empty"}`, "tiffin_cdc_transactions_total 1",
		`tiffin_cdc_changes_total{op="insert"} 1`, "tiffin_cdc_lag_bytes ", "tiffin_cdc_visible_seconds_count 1", "tiffin_slot_retained_bytes ",
		"tiffin_slot_retained_limit_bytes 8.589934592e+09", "tiffin_recovered_deliveries_total 0", "tiffin_build_info{",
		`tiffin_kafka_connects_total{client="consumer",node_id=`, `tiffin_kafka_produce_bytes_total{client="producer-`,
	} {
		if !strings.Contains(text, name) {
			t.Errorf("the metrics lack %s", name)
		}
	}
	r.stop()
	if err := r.end(t); err != nil {
		t.Errorf("asked to stop, Run returned %v", err)
	}
	if n := w.rows(t); n != 3 {
		t.Errorf("%d feedback rows for 3 records", n)
	}
}

// Each outcome and each kind of change counts as what it is; every value of a label is there from the start,
// since an alert sees a first event only as the increase of a counter.
func TestEveryOutcomeAndChangeIsCountedAsWhatItIs(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	r := start(t, w.environ, nil)
	r.waitReady(t)
	want := map[string]map[string]float64{
		"tiffin_campaigns_total":   zeroes("delivered", "inactive", "no_subscribers", "malformed"),
		"tiffin_cdc_changes_total": zeroes("insert", "update", "delete", "truncate"),
		"tiffin_dead_letters_total": zeroes("tombstone", "empty", "invalid_utf8", "byte_order_mark", "not_json", "not_an_object", "missing_field", "null_field",
			"wrong_type", "out_of_range", "lone_surrogate", "nul_character", "too_large", "refused_by_table"),
		"tiffin_rebuilds_total": zeroes("slot_missing", "slot_invalidated", "retained_wal", "gap", "inconsistent", "system", "timeline", "history", "table", "columns",
			"identity", "partitions", "publication", "rewritten", "footing"),
		"tiffin_sink_retries_total": zeroes("postgres", "kafka"),
	}
	if got := r.counted(t, want); !reflect.DeepEqual(got, want) {
		t.Errorf("at the start: %v\nwant %v", got, want)
	}
	for _, change := range []string{
		"UPDATE subscribers_restaurants SET restaurant_id = 'r3' WHERE client_id = 'ann'", "DELETE FROM subscribers_restaurants WHERE client_id = 'bob'",
		"TRUNCATE subscribers_restaurants", "INSERT INTO subscribers_restaurants (client_id, restaurant_id) VALUES ('dan', 'r1'), ('eve', 'r1')",
	} {
		w.db.Exec(t, change)
	}
	past := devstack.Campaign{Restaurant: "r1", ID: "past", End: 1}
	w.publishCampaign(t, campaignOf("r1", "delivered"), past.JSON(), campaignOf("r2", "nobody's since the truncation"), []byte("no JSON"))
	for name, counts := range map[string]map[string]float64{
		"tiffin_campaigns_total":    {"delivered": 1, "inactive": 1, "no_subscribers": 1, "malformed": 1},
		"tiffin_cdc_changes_total":  {"insert": 2, "update": 1, "delete": 1, "truncate": 1},
		"tiffin_dead_letters_total": {"not_json": 1},
	} {
		maps.Copy(want[name], counts)
	}
	var got map[string]map[string]float64
	defer func() {
		if t.Failed() {
			t.Logf("counted %v\nwant    %v", got, want)
		}
	}()
	eventually(t, func() bool { got = r.counted(t, want); return reflect.DeepEqual(got, want) }, "all is counted, and nothing else")
	if all := read(t, r.metrics(t)); all.sum("tiffin_cdc_transactions_total") != 4 || all.sum("tiffin_deliveries_total") != 2 {
		t.Errorf("%v transactions and %v deliveries, want 4 and 2", all.sum("tiffin_cdc_transactions_total"), all.sum("tiffin_deliveries_total"))
	}
}

func zeroes(labels ...string) map[string]float64 {
	counts := map[string]float64{}
	for _, label := range labels {
		counts[label] = 0
	}
	return counts
}

// counted reads counters with a label, those that are in like.
func (r *running) counted(t *testing.T, like map[string]map[string]float64) map[string]map[string]float64 {
	t.Helper()
	all, found := read(t, r.metrics(t)), map[string]map[string]float64{}
	for name := range like {
		found[name] = map[string]float64{}
		for _, m := range all[name].GetMetric() {
			found[name][m.GetLabel()[0].GetValue()] = m.GetCounter().GetValue()
		}
	}
	return found
}

func TestUntilNowHandlesWhatIsThereAndEnds(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for range 2 { // successive runs miss nothing
		w.publish(t, "r1")
		w.publish(t, "r2")
		r := start(t, w.environ, func(o *Options) { o.UntilNow = true })
		if err := r.end(t); err != nil {
			t.Fatal(err)
		}
	}
	if n := w.rows(t); n != 6 {
		t.Errorf("%d rows, want 6", n)
	}
	if got := w.clients(t, 6); fmt.Sprint(got) != "map[ann:2 bob:2 cid:2]" {
		t.Errorf("delivered to %v", got)
	}
}

func TestKafkaClientsAreCountedInEverySession(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	r := start(t, w.environ, nil)
	r.waitReady(t)
	const none = `tiffin_sink_retries_total{sink="postgres"} 0`
	w.db.Exec(t, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()")
	w.publish(t, "r1")
	w.clients(t, 2)
	eventually(t, func() bool {
		text := r.metrics(t)
		all := !strings.Contains(text, none)
		for _, client := range []string{"consumer", "producer-0", "producer-1", "producer-2"} {
			all = all && strings.Contains(text, `tiffin_kafka_connects_total{client="`+client+`"`)
		}
		return all
	}, "every client is counted in the session after the first")
}
