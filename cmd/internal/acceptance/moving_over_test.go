package acceptance

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"example.com/tiffin/internal/devstack/devstacktest"
	"example.com/tiffin/internal/manual"
)

// What docs/moving-over.md says is typed as it stands: a trial beside the job, the comparison, the
// offsets of the job's checkpoint, the start at them, and the way back. The source's role has only what
// slotsetup plan grants. Through all of it each client gets each campaign once, in both sinks.
func TestMovingOverAndBackLosesAndDoublesNothing(t *testing.T) {
	t.Parallel()
	m := newMoving(t)
	sh := func(block string) { m.sh(block) }
	var running *daemon
	follow(t, "docs/moving-over.md", map[string]func(block string){
		"sh trial topics": sh,
		"yaml trial":      func(block string) { m.write("trial.yaml", block) },
		"sh trial": func(block string) {
			m.job.handle(1000, 1000)
			running = m.start(block)
			m.ready()
			m.publish(1200, 1187)
			m.job.lose, m.job.add = "c-1-1100", "c-0-1100"
			m.job.handle(1200, 1187)
		},
		"sql compare": func(block string) {
			m.handled("tiffin-trial", 1200, 1187)
			out := m.psql(m.feedback, "feedback", block)
			for _, line := range []string{" only the job |     1 | c-0-1100 | gone", " only tiffin  |     1 | c-1-1100 | ann"} {
				if !strings.Contains(out, line) {
					t.Errorf("the comparison says\n%s\nwant %s", out, line)
				}
			}
		},
		"sh explain": func(block string) {
			if out := m.sh(block); !strings.Contains(out, "delivered\nsent        2 of 2 records\n") || !strings.Contains(out, "bob") {
				t.Errorf("the explanation is %s", out)
			}
		},
		"sh checkpoint": func(block string) {
			m.stop(running)
			m.job.checkpoint()
			if out := m.sh(block); out != `{"campaigns":{"1":1187,"0":1200}}` {
				t.Errorf("the job ended at %s", out)
			}
			m.publish(1260, 1242) // while nobody is there
		},
		"sh start": func(block string) {
			running = m.start(block)
			m.ready()
			m.handled("tiffin", 1260, 1242)
		},
		"sh verify rights": sh,
		"sh verify": func(block string) {
			// The job's last records are moments old, and there are some in every partition of the topic.
			if out := m.sh(block); !strings.Contains(out, ": 0 differences\n") || !strings.Contains(out, "without the header trigger") {
				t.Errorf("the verdict is\n%s", out)
			}
		},
		"sh trial end": sh,
		"sh back": func(block string) {
			m.publish(1261, 1243) // the trial's end did no harm
			m.handled("tiffin", 1261, 1243)
			m.stop(running)
			out := m.sh(block)
			for _, line := range []string{"campaigns 0 1261 1261 0", "campaigns 1 1243 1243 0"} {
				if !strings.Contains(strings.Join(strings.Fields(out), " "), line) {
					t.Errorf("the group's offsets are\n%s\nwant %s", out, line)
				}
			}
		},
	})
	m.publish(1270, 1250)
	m.job.at = [2]int64{1261, 1243}
	m.job.handle(1270, 1250)
	m.again()
	m.wantAll()
}

// moving is a site whose deliveries are a job's until tiffin takes over.
type moving struct {
	*site
	client    *kgo.Client
	job       *job
	published [2]int64
}

func newMoving(t *testing.T) *moving {
	t.Helper()
	m := &moving{site: newSite(t)}
	dir, err := programs()
	if err != nil {
		t.Fatal(err)
	}
	m.env[0] = strings.Replace(m.env[0], "PATH=", "PATH="+dir+":", 1)
	m.client, err = kgo.NewClient(kgo.SeedBrokers(m.kafka.PlainBrokers()...), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.client.Close)
	m.job = &job{moving: m}
	m.prepareKafka()
	m.prepareRoles()
	m.exec(m.source, "app", "INSERT INTO subscribers_restaurants (client_id, restaurant_id) VALUES ('ann', 'r'), ('bob', 'r'), ('bob', 'r')")
	m.exec(m.feedback, "feedback", `CREATE TABLE subscribers_feedback (id bigserial PRIMARY KEY, restaurant_id text NOT NULL, adv_campaign_id text NOT NULL,
		adv_campaign_content text NOT NULL, adv_campaign_owner text NOT NULL, adv_campaign_owner_contact text NOT NULL, adv_campaign_datetime_start int8 NOT NULL,
		adv_campaign_datetime_end int8 NOT NULL, datetime_created int8 NOT NULL, client_id text NOT NULL, trigger_datetime_created int8 NOT NULL, feedback varchar NULL)`)
	m.publish(1000, 1000)
	return m
}

// prepareKafka makes the README's topics, with the two partitions of the document, and its rights.
func (m *moving) prepareKafka() {
	m.t.Helper()
	for topic, partitions := range map[string]int32{"campaigns": 2, "deliveries": 3, "campaigns.dlq": 1} {
		devstacktest.CreateTopic(m.t, m.kafka.PlainBrokers(), topic, partitions, nil)
	}
	m.sh(manual.Named(m.t, "README.md", "sh rights"))
}

// prepareRoles has a DBA run what slotsetup plan prints, and nothing else on the source.
func (m *moving) prepareRoles() {
	m.t.Helper()
	m.settings(manual.Named(m.t, "README.md", "yaml settings"))
	m.sh(fmt.Sprintf("TIFFIN_SETUP_DSN=postgres://postgres@%s/app slotsetup plan -c tiffin.yaml | psql -X -v ON_ERROR_STOP=1 -p %d app\n", m.source.Address(), m.source.Port()))
	m.exec(m.source, "app", "ALTER ROLE tiffin_reader PASSWORD '"+readersPassword+"'")
	m.exec(m.feedback, "feedback", "CREATE ROLE tiffin_writer LOGIN PASSWORD '"+writersPassword+"'; GRANT CONNECT ON DATABASE feedback TO tiffin_writer")
}

// publish publishes messages up to these offsets of the two partitions, each with an id of its own.
func (m *moving) publish(upTo ...int64) {
	m.t.Helper()
	var records []*kgo.Record
	for p, end := range upTo {
		for ; m.published[p] < end; m.published[p]++ {
			records = append(records, &kgo.Record{Topic: "campaigns", Partition: int32(p), Value: message("r", campaignID(p, m.published[p]), "x", 0, 1<<40, nil).value})
		}
	}
	if err := m.client.ProduceSync(m.t.Context(), records...).FirstErr(); err != nil {
		m.t.Fatal(err)
	}
}

func campaignID(partition int, offset int64) string { return fmt.Sprintf("c-%d-%d", partition, offset) }

func (m *moving) ready() {
	m.t.Helper()
	m.until("curl -s "+m.address+"/readyz", `{"ready":true,"reasons":[]}`)
}

// again is what the document's last sentence says.
func (m *moving) again() {
	m.t.Helper()
	offsets := kadm.Offsets{}
	offsets.AddOffset("campaigns", 0, 1270, -1)
	offsets.AddOffset("campaigns", 1, 1250, -1)
	if _, err := kadm.NewClient(m.client).CommitOffsets(m.t.Context(), "tiffin", offsets); err != nil {
		m.t.Fatal(err)
	}
	m.publish(1280, 1260)
	begun := time.Now().Format(time.RFC3339Nano)
	m.sh("tiffin run --until-now --ledger-behind skip -c tiffin.yaml")
	if out := m.sh("tiffin verify --from " + begun + " -c tiffin.yaml"); !strings.Contains(out, "20 messages, 40 rows, 40 records, 0 dead letters compared: 0 differences\n") {
		m.t.Errorf("the verdict is\n%s", out)
	}
}

// handled waits until tiffin's ledger is at these offsets.
func (m *moving) handled(group string, upTo ...int64) {
	m.t.Helper()
	m.until(fmt.Sprintf("psql -X -A -t feedback -c \"SELECT string_agg(next_offset::text, ' ' ORDER BY partition) FROM tiffin.progress WHERE consumer_group = '%s'\"", group),
		fmt.Sprintf("%d %d\n", upTo[0], upTo[1]))
}

// wantAll counts the pairs of campaign and client in both sinks.
func (m *moving) wantAll() {
	m.t.Helper()
	want := map[string]int{"c-0-1100 gone": 1}
	for p, end := range m.published {
		for offset := range end {
			for _, client := range []string{"ann", "bob"} {
				want[campaignID(p, offset)+" "+client]++
			}
		}
	}
	delete(want, "c-1-1100 ann")
	differ(m.t, "rows", m.rows(), want)
	differ(m.t, "records", m.records(), want)
}

func (m *moving) rows() map[string]int {
	m.t.Helper()
	found := map[string]int{}
	for line := range strings.Lines(m.ask("psql -X -A -t feedback -c \"SELECT adv_campaign_id || ' ' || client_id FROM subscribers_feedback\"")) {
		found[strings.TrimSpace(line)]++
	}
	return found
}

func (m *moving) records() map[string]int {
	m.t.Helper()
	found := map[string]int{}
	for line := range strings.Lines(m.ask("kcat -C -b broker:9092 -t deliveries -o beginning -e -q -X isolation.level=read_committed -f '%s\\n'")) {
		_, id, _ := strings.Cut(line, `"adv_campaign_id":"`)
		id, _, _ = strings.Cut(id, `"`)
		_, client, _ := strings.Cut(line, `"client_id":"`)
		client, _, _ = strings.Cut(client, `"`)
		found[id+" "+client]++
	}
	return found
}

// ask is for an answer of thousands of lines, which the test's log need not have.
func (m *moving) ask(command string) string {
	m.t.Helper()
	out, errs, err := m.try("", command)
	if err != nil {
		m.t.Fatalf("%s: %v\n%s", command, err, errs)
	}
	return out
}

func differ(t *testing.T, what string, got, want map[string]int) {
	t.Helper()
	faults := 0
	for pair, n := range want {
		if got[pair] != n && faults < 5 {
			t.Errorf("%s: %s is there %d times, want %d", what, pair, got[pair], n)
			faults++
		}
	}
	if len(got) != len(want) {
		t.Errorf("%s: %d pairs, want %d", what, len(got), len(want))
	}
}

// job stands in for the old one: what it would have written of the messages up to an offset, with its
// known defects: a pair that a broken batch lost, and one of somebody who had gone before.
type job struct {
	*moving
	at        [2]int64
	lose, add string // campaigns
}

func (j *job) handle(upTo ...int64) {
	j.t.Helper()
	conn := j.connect(j.feedback, "feedback")
	var records []*kgo.Record
	var rows [][]any
	for p, end := range upTo {
		for ; j.at[p] < end; j.at[p]++ {
			id := campaignID(p, j.at[p])
			for _, client := range []string{"ann", "bob", "gone"} {
				if client == "gone" && id != j.add || client == "ann" && id == j.lose {
					continue
				}
				value := fields("r", id, "x", 0, 1<<40) + `,"client_id":"` + client + `","trigger_datetime_created":1700000000}`
				records = append(records, &kgo.Record{Topic: "deliveries", Key: []byte(client), Value: []byte(value)})
				rows = append(rows, []any{"r", id, "x", "Ivanov <i&i>", "iivanov@restaurant.example", 0, int64(1 << 40), 1659131516, client, 1700000000, ""})
			}
		}
	}
	columns := []string{
		"restaurant_id", "adv_campaign_id", "adv_campaign_content", "adv_campaign_owner", "adv_campaign_owner_contact",
		"adv_campaign_datetime_start", "adv_campaign_datetime_end", "datetime_created", "client_id", "trigger_datetime_created", "feedback",
	}
	if _, err := conn.CopyFrom(j.t.Context(), []string{"subscribers_feedback"}, columns, copyRows(rows)); err != nil {
		j.t.Fatal(err)
	}
	if err := j.client.ProduceSync(context.WithoutCancel(j.t.Context()), records...).FirstErr(); err != nil {
		j.t.Fatal(err)
	}
}

// checkpoint is what Spark 3.5 leaves of the last batches, byte for byte but for most of the settings in the
// middle line: offsets are written before a batch, commits after, checksums beside both, no newline at the
// end, and the partitions stand in no order. What is being written is hidden.
func (j *job) checkpoint() {
	j.t.Helper()
	for _, dir := range []string{"commits", "offsets", "sources/0"} {
		if err := os.MkdirAll(filepath.Join(j.dir, "checkpoint", dir), 0o755); err != nil {
			j.t.Fatal(err)
		}
	}
	const head = "v1\n{\"batchWatermarkMs\":0,\"batchTimestampMs\":1700000000000,\"conf\":{\"spark.sql.shuffle.partitions\":\"200\"}}\n"
	j.write("checkpoint/metadata", `{"id":"993c6169-2932-4c2b-b641-f24ad159f8c0"}`)
	for batch, offsets := range map[string]string{"9": `{"1":1100,"0":1100}`, "10": fmt.Sprintf(`{"1":%d,"0":%d}`, j.at[1], j.at[0])} {
		j.write("checkpoint/offsets/"+batch, head+`{"campaigns":`+offsets+"}")
		j.write("checkpoint/offsets/."+batch+".crc", "crc\x00")
		j.write("checkpoint/commits/"+batch, "v1\n{\"nextBatchWatermarkMs\":0}")
		j.write("checkpoint/commits/."+batch+".crc", "crc\x00")
	}
	j.write("checkpoint/commits/.11.8f5a642a-514a-470d-8d39-34b3aba50b13.tmp", "v1\n")
}
