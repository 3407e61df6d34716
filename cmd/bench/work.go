package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"example.com/tiffin/internal/devstack"
)

// workload is what both the daemon and the limit are given: campaign n is of restaurant n modulo
// restaurants, each of which has fanout clients.
type workload struct {
	restaurants, fanout, clients int
	campaigns                    int
	partitions                   int
	made                         devstack.Campaigns
	source                       *devstack.SourceTable
	clientIDs                    []string // made once: the limit is not to be held up by them
}

// uuidLength is that of every client id.
const uuidLength = 36

func newWorkload(restaurants, fanout, campaigns int, now time.Time) (*workload, error) {
	w := &workload{
		restaurants: restaurants, fanout: fanout, clients: restaurants * fanout / 5, campaigns: campaigns,
		partitions: 4, // two for each core
		made:       devstack.Campaigns{Seed: 42, Now: now},
	}
	var err error
	if w.source, err = w.subscriptions().Layout(); err != nil {
		return nil, err
	}
	for n := range w.clients {
		w.clientIDs = append(w.clientIDs, w.source.Client(n))
	}
	return w, nil
}

func (w *workload) subscriptions() devstack.Subscriptions {
	return devstack.Subscriptions{Seed: 7, Rows: w.restaurants * w.fanout, Restaurants: w.restaurants, Clients: w.clients}
}

func (w *workload) deliveries() int { return w.campaigns * w.fanout }

func (w *workload) campaign(n int) devstack.Campaign {
	return w.made.Campaign(n, w.source.Restaurant(n%w.restaurants))
}

// recipients are the clients of campaign n.
func (w *workload) recipients(n int) []string {
	restaurant := n % w.restaurants
	list := make([]string, w.fanout)
	for i := range list {
		list[i] = w.clientIDs[w.source.Subscriber(restaurant, i)]
	}
	return list
}

// envelope is the value of campaign n's records before and behind the client id.
func (w *workload) envelope(n int, trigger int64) (head, tail []byte, err error) {
	const client = "CLIENT" // no campaign has it
	var value bytes.Buffer
	encoder := json.NewEncoder(&value)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(w.campaign(n).Delivery(client, trigger)); err != nil {
		return nil, nil, fmt.Errorf("encode campaign %d: %w", n, err)
	}
	head, tail, _ = bytes.Cut(bytes.TrimSpace(value.Bytes()), []byte(client))
	return head, tail, nil
}

// load fills the source table and the input topic.
func (w *workload) load(ctx context.Context, servers *servers) error {
	conn, err := pgx.Connect(ctx, servers.source.DSN(sourceDatabase))
	if err != nil {
		return fmt.Errorf("connect to the source database: %w", err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	if _, err := w.subscriptions().Load(ctx, conn, pgx.Identifier{"public", "subscribers_restaurants"}); err != nil {
		return err
	}
	if err := servers.createTopics(ctx, w.partitions, inputTopic, outputTopic, deadLetterTopic, limitTopic); err != nil {
		return err
	}
	return w.publish(ctx, servers.kafka.Brokers())
}

// publish spreads the campaigns evenly over the partitions.
func (w *workload) publish(ctx context.Context, brokers []string) error {
	client, err := kgo.NewClient(kgo.SeedBrokers(brokers...), kgo.DefaultProduceTopic(inputTopic), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		return fmt.Errorf("publish the campaigns: %w", err)
	}
	defer client.Close()
	var faults kgo.FirstErrPromise
	for n := range w.campaigns {
		client.Produce(ctx, &kgo.Record{Value: w.campaign(n).JSON(), Partition: int32(n % w.partitions)}, faults.Promise())
	}
	if err := errors.Join(client.Flush(ctx), faults.Err()); err != nil {
		return fmt.Errorf("publish the campaigns: %w", err)
	}
	return nil
}

// The names that the run uses.
const (
	sourceDatabase   = "source"
	feedbackDatabase = "feedback"
	inputTopic       = "campaigns"
	outputTopic      = "deliveries"
	deadLetterTopic  = "campaigns.dlq"
	limitTopic       = "limit"
	group            = "tiffin"
)

// servers are the real ones that are measured together with tiffin. The source database has a
// server of its own, as where another team guards it: on a shared one the replication slot would
// have to decode what the feedback table's rows write to the log.
type servers struct {
	source   *devstack.Postgres
	feedback *devstack.Postgres
	kafka    *devstack.Kafka
}

// The settings that differ from the defaults of both products, with which every contender runs.
const (
	kafkaHeapMB   = 1024
	sharedBuffers = "512MB"
	maxWAL        = "8GB" // no checkpoint by size in the middle of a run
)

func startServers(ctx context.Context, o options) (*servers, error) {
	s := &servers{}
	var err error
	for database, server := range map[string]**devstack.Postgres{sourceDatabase: &s.source, feedbackDatabase: &s.feedback} {
		if *server, err = startPostgres(ctx, o, database); err != nil {
			return nil, errors.Join(err, s.close())
		}
	}
	s.kafka, err = devstack.StartKafka(ctx, devstack.KafkaOptions{Dir: o.dir, Production: true, HeapMB: kafkaHeapMB})
	if err != nil {
		return nil, errors.Join(err, s.close())
	}
	return s, nil
}

func startPostgres(ctx context.Context, o options, database string) (*devstack.Postgres, error) {
	server, err := devstack.StartPostgres(ctx, devstack.PostgresOptions{
		Dir: o.dir, Durable: true,
		Settings: map[string]string{"shared_buffers": sharedBuffers, "max_wal_size": maxWAL, "checkpoint_timeout": "30min"},
	})
	if err != nil {
		return nil, err
	}
	if err := server.CreateDatabase(ctx, database); err != nil {
		return nil, errors.Join(err, server.Close())
	}
	return server, nil
}

func (s *servers) close() error {
	var err error
	if s.kafka != nil {
		err = s.kafka.Close()
	}
	for _, server := range []*devstack.Postgres{s.source, s.feedback} {
		if server != nil {
			err = errors.Join(err, server.Close())
		}
	}
	return err
}

func (s *servers) createTopics(ctx context.Context, partitions int, names ...string) error {
	client, err := kgo.NewClient(kgo.SeedBrokers(s.kafka.Brokers()...))
	if err != nil {
		return fmt.Errorf("create topics: %w", err)
	}
	defer client.Close()
	created, err := kadm.NewClient(client).CreateTopics(ctx, int32(partitions), 1, nil, names...)
	if err == nil {
		err = created.Error()
	}
	if err != nil {
		return fmt.Errorf("create topics %s: %w", strings.Join(names, ", "), err)
	}
	return nil
}
