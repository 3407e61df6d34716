package devstack

import (
	"context"
	"encoding/json"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kgo"
)

// Both sinks give the same fingerprint exactly when they hold the same deliveries; an aborted
// transaction's records do not count, and its marker at the end of the topic is no obstacle.
func TestFingerprintTellsSinksApart(t *testing.T) {
	t.Parallel()
	broker, err := StartFakeBroker(t.Context(), FakeBrokerOptions{Topics: map[string]int32{"deliveries": 3, "empty": 2}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(broker.Close)
	server := startPostgres(t, PostgresOptions{})
	conn, err := pgx.Connect(t.Context(), server.DSN("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.WithoutCancel(t.Context())) })
	createFeedback(t, conn)
	client := newClient(t, kgo.SeedBrokers(broker.Brokers()...), kgo.DefaultProduceTopic("deliveries"), kgo.TransactionalID("t"))
	for i := range 30 {
		d := Delivery{Restaurant: "r", CampaignID: `<"&>`, Client: string(rune('a' + i)), Start: int64(i), Trigger: 7}
		insertFeedback(t, conn, d)
		transact(t, client, d, kgo.TryCommit)
		transact(t, client, Delivery{Client: "aborted"}, kgo.TryAbort)
	}
	table, topic := bothSinks(t, conn, broker)
	if table.Count != 30 || !table.Equal(topic) {
		t.Fatalf("table %+v, topic %+v: want equal, 30 each", table, topic)
	}
	for _, change := range []string{
		"UPDATE subscribers_feedback SET client_id = 'someone else' WHERE client_id = 'a'",
		"UPDATE subscribers_feedback SET client_id = 'a' WHERE client_id = 'someone else'; DELETE FROM subscribers_feedback WHERE client_id = 'b'",
	} {
		if _, err := conn.Exec(t.Context(), change, pgx.QueryExecModeSimpleProtocol); err != nil {
			t.Fatal(err)
		}
		if table, topic := bothSinks(t, conn, broker); table.Equal(topic) {
			t.Fatalf("equal after %s", change)
		}
	}
	empty := NewFingerprint()
	if err := empty.AddTopic(t.Context(), broker.Brokers(), "empty"); err != nil || empty.Count != 0 {
		t.Fatalf("empty topic: %d records, %v", empty.Count, err)
	}
}

func bothSinks(t *testing.T, conn *pgx.Conn, broker *FakeBroker) (table, topic Fingerprint) {
	t.Helper()
	table = NewFingerprint()
	topic = table
	if err := table.AddTable(t.Context(), conn, pgx.Identifier{"subscribers_feedback"}); err != nil {
		t.Fatal(err)
	}
	if err := topic.AddTopic(t.Context(), broker.Brokers(), "deliveries"); err != nil {
		t.Fatal(err)
	}
	return table, topic
}

func createFeedback(t *testing.T, conn *pgx.Conn) {
	t.Helper()
	if _, err := conn.Exec(t.Context(), `CREATE TABLE subscribers_feedback (id serial PRIMARY KEY, restaurant_id text, adv_campaign_id text,
		adv_campaign_content text, adv_campaign_owner text, adv_campaign_owner_contact text, adv_campaign_datetime_start int8,
		adv_campaign_datetime_end int8, datetime_created int8, client_id text, trigger_datetime_created int8, feedback varchar)`); err != nil {
		t.Fatal(err)
	}
}

func insertFeedback(t *testing.T, conn *pgx.Conn, d Delivery) {
	t.Helper()
	if _, err := conn.Exec(t.Context(), `INSERT INTO subscribers_feedback VALUES (DEFAULT, $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, '')`,
		d.Restaurant, d.CampaignID, d.Content, d.Owner, d.OwnerContact, d.Start, d.End, d.Created, d.Client, d.Trigger); err != nil {
		t.Fatal(err)
	}
}

func transact(t *testing.T, client *kgo.Client, d Delivery, end kgo.TransactionEndTry) {
	t.Helper()
	value, err := json.Marshal(d)
	if err != nil {
		t.Fatal(err)
	}
	if err := client.BeginTransaction(); err != nil {
		t.Fatal(err)
	}
	if err := client.ProduceSync(t.Context(), &kgo.Record{Key: []byte(d.Client), Value: value}).FirstErr(); err != nil {
		t.Fatal(err)
	}
	if err := client.EndTransaction(t.Context(), end); err != nil {
		t.Fatal(err)
	}
}

// A broker answers a commit before its markers are written: who reads right after that sees it all
// the same. Here the commit itself comes a little later than the question.
func TestEachCommittedWaitsForTheMarkers(t *testing.T) {
	t.Parallel()
	broker, err := StartFakeBroker(t.Context(), FakeBrokerOptions{Topics: map[string]int32{"deliveries": 1}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(broker.Close)
	client := newClient(t, kgo.SeedBrokers(broker.Brokers()...), kgo.DefaultProduceTopic("deliveries"), kgo.TransactionalID("t"))
	if err := client.BeginTransaction(); err != nil {
		t.Fatal(err)
	}
	if err := client.ProduceSync(t.Context(), kgo.StringRecord("x")).FirstErr(); err != nil {
		t.Fatal(err)
	}
	committed := make(chan error, 1)
	time.AfterFunc(200*time.Millisecond, func() { committed <- client.EndTransaction(t.Context(), kgo.TryCommit) })
	n := 0
	if err := EachCommitted(t.Context(), broker.Brokers(), "deliveries", func(*kgo.Record) error { n++; return nil }); err != nil {
		t.Fatal(err)
	}
	if err := <-committed; err != nil || n != 1 {
		t.Errorf("%d records, %v, want the one that was written before the question", n, err)
	}
}
