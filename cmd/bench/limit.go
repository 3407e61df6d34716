package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sync/errgroup"
)

// The shape of the limit: with 10,000 rows a transaction and two workers the servers gave most on
// the machines where it was tried.
const (
	limitBatch   = 10_000
	limitWorkers = 2
)

// limit is the plainest program that moves the same rows and records: for each batch one INSERT ...
// SELECT of constants and unnest a campaign, all sent at once in one Postgres transaction, and then
// one Kafka transaction of the same deliveries. No input, no join, no ledger, no offsets.
// It writes to a table and a topic of its own and returns the duration for all deliveries.
func limit(ctx context.Context, w *workload, s *servers, campaigns int) (time.Duration, error) {
	if err := createLimitTable(ctx, s); err != nil {
		return 0, err
	}
	batches := make(chan []int)
	var workers []*limitWorker
	for n := range limitWorkers {
		worker, err := newLimitWorker(ctx, w, s, n)
		if err != nil {
			return 0, err
		}
		defer worker.close()
		workers = append(workers, worker)
	}
	begun := time.Now()
	group, ctx := errgroup.WithContext(ctx)
	for _, worker := range workers {
		group.Go(func() error { return worker.run(ctx, batches) })
	}
	group.Go(func() error {
		defer close(batches)
		per := max(1, limitBatch/w.fanout)
		for from := 0; from < campaigns; from += per {
			select {
			case batches <- []int{from, min(from+per, campaigns)}:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		return nil
	})
	err := group.Wait()
	return time.Since(begun), err
}

func createLimitTable(ctx context.Context, s *servers) error {
	conn, err := pgx.Connect(ctx, s.feedback.DSN(feedbackDatabase))
	if err != nil {
		return fmt.Errorf("connect for the limit: %w", err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	const table = `DROP TABLE IF EXISTS limit_feedback; CREATE TABLE limit_feedback (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
		restaurant_id text NOT NULL, adv_campaign_id text NOT NULL, adv_campaign_content text NOT NULL,
		adv_campaign_owner text NOT NULL, adv_campaign_owner_contact text NOT NULL, adv_campaign_datetime_start int8 NOT NULL,
		adv_campaign_datetime_end int8 NOT NULL, datetime_created int8 NOT NULL, client_id text NOT NULL,
		trigger_datetime_created int8 NOT NULL, feedback varchar NULL); CHECKPOINT`
	if _, err := conn.PgConn().Exec(ctx, table).ReadAll(); err != nil {
		return fmt.Errorf("create the limit's table: %w", err)
	}
	return nil
}

type limitWorker struct {
	work   *workload
	conn   *pgx.Conn
	client *kgo.Client
}

func newLimitWorker(ctx context.Context, w *workload, s *servers, n int) (*limitWorker, error) {
	conn, err := pgx.Connect(ctx, s.feedback.DSN(feedbackDatabase))
	if err != nil {
		return nil, fmt.Errorf("connect for the limit: %w", err)
	}
	client, err := kgo.NewClient(
		kgo.SeedBrokers(s.kafka.Brokers()...), kgo.DefaultProduceTopic(limitTopic),
		kgo.TransactionalID("limit-"+strconv.Itoa(n)+"-"+strconv.FormatInt(time.Now().UnixNano(), 36)),
		kgo.ProducerBatchCompression(kgo.Lz4Compression()), kgo.RequiredAcks(kgo.AllISRAcks()), kgo.MaxBufferedRecords(2*limitBatch),
	)
	if err != nil {
		return nil, errors.Join(err, conn.Close(context.WithoutCancel(ctx)))
	}
	return &limitWorker{work: w, conn: conn, client: client}, nil
}

func (l *limitWorker) close() {
	l.client.Close()
	_ = l.conn.Close(context.Background())
}

func (l *limitWorker) run(ctx context.Context, batches <-chan []int) error {
	for b := range batches {
		if err := l.deliver(ctx, b[0], b[1]); err != nil {
			return fmt.Errorf("the limit: %w", err)
		}
	}
	return nil
}

// deliver produces while Postgres works, as tiffin may, and ends the Kafka transaction after it.
func (l *limitWorker) deliver(ctx context.Context, from, to int) error {
	if err := l.client.BeginTransaction(); err != nil {
		return err
	}
	trigger := time.Now().Unix()
	var faults kgo.FirstErrPromise
	inserted := make(chan error, 1)
	go func() { inserted <- l.insert(ctx, from, to, trigger) }()
	for n := from; n < to; n++ {
		head, tail, err := l.work.envelope(n, trigger)
		if err != nil {
			return errors.Join(err, <-inserted)
		}
		buffer := make([]byte, 0, l.work.fanout*(len(head)+len(tail)+uuidLength)) // one for the campaign: values alias it
		for _, client := range l.work.recipients(n) {
			from := len(buffer)
			buffer = append(append(append(buffer, head...), client...), tail...)
			l.client.Produce(ctx, &kgo.Record{Key: []byte(client), Value: buffer[from:]}, faults.Promise())
		}
	}
	if err := errors.Join(<-inserted, l.client.Flush(ctx), faults.Err()); err != nil {
		return err
	}
	return l.client.EndTransaction(ctx, kgo.TryCommit)
}

func (l *limitWorker) insert(ctx context.Context, from, to int, trigger int64) error {
	const sql = `INSERT INTO limit_feedback (restaurant_id, adv_campaign_id, adv_campaign_content, adv_campaign_owner, adv_campaign_owner_contact,
		adv_campaign_datetime_start, adv_campaign_datetime_end, datetime_created, client_id, trigger_datetime_created, feedback)
		SELECT $1, $2, $3, $4, $5, $6, $7, $8, unnest($9::text[]), $10, ''`
	var batch pgx.Batch
	for n := from; n < to; n++ {
		c := l.work.campaign(n)
		batch.Queue(sql, c.Restaurant, c.ID, c.Content, c.Owner, c.OwnerContact, c.Start, c.End, c.Created, l.work.recipients(n), trigger)
	}
	return pgx.BeginFunc(ctx, l.conn, func(tx pgx.Tx) error { return tx.SendBatch(ctx, &batch).Close() })
}
