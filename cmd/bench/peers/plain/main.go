// Command plain is what a Go team would write first instead of tiffin: a consumer group that asks
// the source database for each campaign's subscribers, copies the rows, produces the records, and
// then commits the offsets. At least once: a crash in between repeats both. It takes what is usual
// in such a service and pays: an index on restaurant_id, one COPY a poll, partitions side by side,
// asynchronous produce, lz4.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sync/errgroup"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if err := run(ctx); err != nil && ctx.Err() == nil {
		_, _ = fmt.Fprintln(os.Stderr, "plain:", err) // there is nowhere else to say it
		os.Exit(1)                                    //nolint:gocritic // the handler goes with the process
	}
}

// service is the running program.
type service struct {
	source, feedback *pgxpool.Pool
	client           *kgo.Client
	output, dead     string
}

// perPoll is how many campaigns are taken at once.
const perPoll = 500

func run(ctx context.Context) error {
	s := &service{output: os.Getenv("PEER_OUTPUT"), dead: os.Getenv("PEER_DEAD_LETTERS")}
	var err error
	if s.source, err = pgxpool.New(ctx, os.Getenv("PEER_SOURCE_DSN")); err != nil {
		return fmt.Errorf("source database: %w", err)
	}
	defer s.source.Close()
	if _, err := s.source.Exec(ctx, "CREATE INDEX IF NOT EXISTS subscribers_by_restaurant ON subscribers_restaurants (restaurant_id) INCLUDE (client_id)"); err != nil {
		return fmt.Errorf("source database: add the index: %w", err)
	}
	if s.feedback, err = pgxpool.New(ctx, os.Getenv("PEER_FEEDBACK_DSN")); err != nil {
		return fmt.Errorf("feedback database: %w", err)
	}
	defer s.feedback.Close()
	s.client, err = kgo.NewClient(
		kgo.SeedBrokers(strings.Split(os.Getenv("PEER_BROKERS"), ",")...),
		kgo.ConsumerGroup(os.Getenv("PEER_GROUP")), kgo.ConsumeTopics(os.Getenv("PEER_INPUT")),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.DisableAutoCommit(),
		kgo.RequiredAcks(kgo.AllISRAcks()), kgo.ProducerBatchCompression(kgo.Lz4Compression()), kgo.ProducerLinger(2*time.Millisecond),
		kgo.OnPartitionsAssigned(func(context.Context, *kgo.Client, map[string][]int32) {
			_, _ = fmt.Fprintln(os.Stdout, "ready") // the harness reads it
		}),
	)
	if err != nil {
		return fmt.Errorf("kafka: %w", err)
	}
	defer s.client.CloseAllowingRebalance()
	for {
		fetches := s.client.PollRecords(ctx, perPoll)
		if err := errors.Join(ctx.Err(), fetches.Err0()); err != nil {
			return err
		}
		if err := s.handle(ctx, fetches); err != nil {
			return err
		}
	}
}

// handle delivers one poll and commits its offsets.
func (s *service) handle(ctx context.Context, fetches kgo.Fetches) error {
	group, working := errgroup.WithContext(ctx)
	fetches.EachPartition(func(p kgo.FetchTopicPartition) {
		group.Go(func() error { return s.deliver(working, p.Records) })
	})
	if err := group.Wait(); err != nil {
		return err
	}
	if err := s.client.CommitUncommittedOffsets(ctx); err != nil {
		return fmt.Errorf("commit the offsets: %w", err)
	}
	return nil
}

// campaign and delivery have the contract's fields, in its order.
type campaign struct {
	Restaurant   *string `json:"restaurant_id"`
	ID           *string `json:"adv_campaign_id"`
	Content      *string `json:"adv_campaign_content"`
	Owner        *string `json:"adv_campaign_owner"`
	OwnerContact *string `json:"adv_campaign_owner_contact"`
	Start        *int64  `json:"adv_campaign_datetime_start"`
	End          *int64  `json:"adv_campaign_datetime_end"`
	Created      *int64  `json:"datetime_created"`
}

type delivery struct {
	campaign
	Client  string `json:"client_id"`
	Trigger int64  `json:"trigger_datetime_created"`
}

func (c *campaign) whole() bool {
	return c.Restaurant != nil && c.ID != nil && c.Content != nil && c.Owner != nil && c.OwnerContact != nil && c.Start != nil && c.End != nil && c.Created != nil
}

// deliver brings the campaigns of one partition to both sinks.
func (s *service) deliver(ctx context.Context, records []*kgo.Record) error {
	var all []delivery
	var faults kgo.FirstErrPromise
	for _, r := range records {
		var c campaign
		if err := json.Unmarshal(r.Value, &c); err != nil || !c.whole() {
			s.client.Produce(ctx, &kgo.Record{Topic: s.dead, Key: r.Key, Value: r.Value}, faults.Promise())
			continue
		}
		now := time.Now().Unix()
		if now < *c.Start || now > *c.End {
			continue
		}
		clients, err := s.subscribers(ctx, *c.Restaurant)
		if err != nil {
			return err
		}
		for _, client := range clients {
			all = append(all, delivery{c, client, now})
		}
	}
	if err := s.store(ctx, all); err != nil {
		return err
	}
	for i := range all {
		var value bytes.Buffer
		encoder := json.NewEncoder(&value)
		encoder.SetEscapeHTML(false)
		if err := encoder.Encode(&all[i]); err != nil {
			return fmt.Errorf("encode a delivery: %w", err)
		}
		s.client.Produce(ctx, &kgo.Record{Topic: s.output, Key: []byte(all[i].Client), Value: bytes.TrimSuffix(value.Bytes(), []byte("\n"))}, faults.Promise())
	}
	if err := errors.Join(s.client.Flush(ctx), faults.Err()); err != nil {
		return fmt.Errorf("produce: %w", err)
	}
	return nil
}

func (s *service) subscribers(ctx context.Context, restaurant string) ([]string, error) {
	rows, err := s.source.Query(ctx, "SELECT DISTINCT client_id FROM subscribers_restaurants WHERE restaurant_id = $1", restaurant)
	if err != nil {
		return nil, fmt.Errorf("ask for subscribers: %w", err)
	}
	clients, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, fmt.Errorf("read subscribers: %w", err)
	}
	return clients, nil
}

// store copies the rows in one transaction.
func (s *service) store(ctx context.Context, all []delivery) error {
	if len(all) == 0 {
		return nil
	}
	columns := []string{
		"restaurant_id", "adv_campaign_id", "adv_campaign_content", "adv_campaign_owner", "adv_campaign_owner_contact",
		"adv_campaign_datetime_start", "adv_campaign_datetime_end", "datetime_created", "client_id", "trigger_datetime_created", "feedback",
	}
	_, err := s.feedback.CopyFrom(ctx, pgx.Identifier{"subscribers_feedback"}, columns, pgx.CopyFromSlice(len(all), func(i int) ([]any, error) {
		d := &all[i]
		return []any{*d.Restaurant, *d.ID, *d.Content, *d.Owner, *d.OwnerContact, *d.Start, *d.End, *d.Created, d.Client, d.Trigger, ""}, nil
	}))
	if err != nil {
		return fmt.Errorf("store deliveries: %w", err)
	}
	return nil
}
