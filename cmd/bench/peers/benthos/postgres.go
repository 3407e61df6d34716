package main

import (
	"bytes"
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/redpanda-data/benthos/v4/public/service"
)

// subscribers is a processor that asks the source database for each campaign's clients.
type subscribers struct{ pool *pgxpool.Pool }

func addSubscribers(e *service.Environment) error {
	spec := service.NewConfigSpec().Field(service.NewStringField("dsn"))
	return e.RegisterProcessor("subscribers", spec, func(conf *service.ParsedConfig, _ *service.Resources) (service.Processor, error) {
		pool, err := open(conf)
		if err != nil {
			return nil, err
		}
		_, err = pool.Exec(context.Background(), "CREATE INDEX IF NOT EXISTS subscribers_by_restaurant ON subscribers_restaurants (restaurant_id) INCLUDE (client_id)")
		return &subscribers{pool}, err
	})
}

func open(conf *service.ParsedConfig) (*pgxpool.Pool, error) {
	dsn, err := conf.FieldString("dsn")
	if err != nil {
		return nil, err
	}
	return pgxpool.New(context.Background(), dsn)
}

// Process implements service.Processor, as Close does.
func (s *subscribers) Process(ctx context.Context, message *service.Message) (service.MessageBatch, error) {
	content, err := message.AsStructuredMut()
	if err != nil {
		return nil, err
	}
	campaign, ok := content.(map[string]any)
	if !ok {
		return nil, fmt.Errorf("a campaign is an object, this is %T", content)
	}
	rows, err := s.pool.Query(ctx, "SELECT DISTINCT client_id FROM subscribers_restaurants WHERE restaurant_id = $1", campaign["restaurant_id"])
	if err != nil {
		return nil, fmt.Errorf("ask for subscribers: %w", err)
	}
	clients, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (any, error) { return pgx.RowTo[string](row) })
	if err != nil {
		return nil, fmt.Errorf("read subscribers: %w", err)
	}
	campaign["clients"] = clients
	message.SetStructuredMut(campaign)
	return service.MessageBatch{message}, nil
}

func (s *subscribers) Close(context.Context) error {
	s.pool.Close()
	return nil
}

// feedback is an output: one statement a batch.
type feedback struct {
	conf *service.ParsedConfig
	pool *pgxpool.Pool
}

func addFeedback(e *service.Environment) error {
	spec := service.NewConfigSpec().Field(service.NewStringField("dsn"))
	return e.RegisterBatchOutput("feedback", spec, func(conf *service.ParsedConfig, _ *service.Resources) (service.BatchOutput, service.BatchPolicy, int, error) {
		return &feedback{conf: conf}, service.BatchPolicy{}, polls, nil
	})
}

// Connect implements service.BatchOutput, as WriteBatch and Close do.
func (f *feedback) Connect(context.Context) (err error) {
	f.pool, err = open(f.conf)
	return err
}

const insert = `INSERT INTO subscribers_feedback (restaurant_id, adv_campaign_id, adv_campaign_content, adv_campaign_owner, adv_campaign_owner_contact,
		adv_campaign_datetime_start, adv_campaign_datetime_end, datetime_created, client_id, trigger_datetime_created, feedback)
	SELECT *, '' FROM jsonb_to_recordset($1) AS d (restaurant_id text, adv_campaign_id text, adv_campaign_content text, adv_campaign_owner text, adv_campaign_owner_contact text,
		adv_campaign_datetime_start int8, adv_campaign_datetime_end int8, datetime_created int8, client_id text, trigger_datetime_created int8)`

func (f *feedback) WriteBatch(ctx context.Context, batch service.MessageBatch) error {
	var all bytes.Buffer
	for i, message := range batch {
		delivery, err := message.AsBytes()
		if err != nil {
			return err
		}
		all.WriteByte("[,"[min(i, 1)])
		all.Write(delivery)
	}
	all.WriteByte(']')
	_, err := f.pool.Exec(ctx, insert, all.String())
	return err
}

func (f *feedback) Close(context.Context) error {
	if f.pool != nil {
		f.pool.Close()
	}
	return nil
}
