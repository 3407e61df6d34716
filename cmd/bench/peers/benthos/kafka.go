package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/redpanda-data/benthos/v4/public/service"
	"github.com/twmb/franz-go/pkg/kgo"
)

// perPoll is how many campaigns make a batch at most.
const perPoll = 500

// polls is how many batches are on their way at once.
const polls = 4

// campaigns is an input: a consumer group, whose offsets are committed for what was acknowledged
// and everything before it.
type campaigns struct {
	brokers      []string
	topic, group string

	client *kgo.Client

	mu   sync.Mutex
	open []*poll // in the order of reading
}

type poll struct {
	records []*kgo.Record
	done    bool
}

func addCampaigns(e *service.Environment) error {
	spec := service.NewConfigSpec().Fields(service.NewStringField("brokers"), service.NewStringField("topic"), service.NewStringField("group"))
	return e.RegisterBatchInput("campaigns", spec, func(conf *service.ParsedConfig, _ *service.Resources) (service.BatchInput, error) {
		brokers, err := conf.FieldString("brokers")
		if err != nil {
			return nil, err
		}
		c := &campaigns{brokers: strings.Split(brokers, ",")}
		if c.topic, err = conf.FieldString("topic"); err != nil {
			return nil, err
		}
		if c.group, err = conf.FieldString("group"); err != nil {
			return nil, err
		}
		return service.InputBatchedWithMaxInFlight(polls, service.AutoRetryNacksBatched(c)), nil
	})
}

// Connect implements service.BatchInput, as ReadBatch and Close do.
func (c *campaigns) Connect(context.Context) (err error) {
	c.client, err = kgo.NewClient(
		kgo.SeedBrokers(c.brokers...), kgo.ConsumerGroup(c.group), kgo.InstanceID(c.group), kgo.ConsumeTopics(c.topic),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.AutoCommitMarks(), kgo.AutoCommitInterval(time.Second),
		kgo.OnPartitionsAssigned(func(context.Context, *kgo.Client, map[string][]int32) {
			_, _ = fmt.Fprintln(os.Stdout, "ready") // the harness reads it
		}),
	)
	return err
}

func (c *campaigns) ReadBatch(ctx context.Context) (service.MessageBatch, service.AckFunc, error) {
	fetches := c.client.PollRecords(ctx, perPoll)
	if err := errors.Join(ctx.Err(), fetches.Err()); err != nil {
		return nil, nil, err
	}
	p := &poll{records: fetches.Records()}
	if len(p.records) == 0 {
		return nil, nil, context.Canceled // asks again
	}
	c.mu.Lock()
	c.open = append(c.open, p)
	c.mu.Unlock()
	batch := make(service.MessageBatch, len(p.records))
	for i, r := range p.records {
		batch[i] = service.NewMessage(r.Value)
	}
	return batch, func(context.Context, error) error { c.acknowledge(p); return nil }, nil
}

func (c *campaigns) acknowledge(p *poll) {
	c.mu.Lock()
	defer c.mu.Unlock()
	p.done = true
	for len(c.open) > 0 && c.open[0].done {
		c.client.MarkCommitRecords(c.open[0].records...)
		c.open = c.open[1:]
	}
}

func (c *campaigns) Close(ctx context.Context) error {
	if c.client == nil {
		return nil
	}
	err := c.client.CommitMarkedOffsets(ctx)
	c.client.CloseAllowingRebalance()
	return err
}

// records is an output: each message a record, its key the client id.
type records struct {
	brokers []string
	topic   string

	client *kgo.Client
}

func addRecords(e *service.Environment) error {
	spec := service.NewConfigSpec().Fields(service.NewStringField("brokers"), service.NewStringField("topic"))
	return e.RegisterBatchOutput("records", spec, func(conf *service.ParsedConfig, _ *service.Resources) (service.BatchOutput, service.BatchPolicy, int, error) {
		brokers, err := conf.FieldString("brokers")
		if err != nil {
			return nil, service.BatchPolicy{}, 0, err
		}
		r := &records{brokers: strings.Split(brokers, ",")}
		r.topic, err = conf.FieldString("topic")
		return r, service.BatchPolicy{}, polls, err
	})
}

// Connect implements service.BatchOutput, as WriteBatch and Close do.
func (r *records) Connect(context.Context) (err error) {
	r.client, err = kgo.NewClient(kgo.SeedBrokers(r.brokers...), kgo.DefaultProduceTopic(r.topic),
		kgo.RequiredAcks(kgo.AllISRAcks()), kgo.ProducerBatchCompression(kgo.Lz4Compression()), kgo.ProducerLinger(2*time.Millisecond))
	return err
}

func (r *records) WriteBatch(ctx context.Context, batch service.MessageBatch) error {
	list := make([]*kgo.Record, len(batch))
	for i, message := range batch {
		value, err := message.AsBytes()
		if err != nil {
			return err
		}
		list[i] = &kgo.Record{Value: value, Key: clientOf(message)}
	}
	return r.client.ProduceSync(ctx, list...).FirstErr()
}

// clientOf is nil for what is not a delivery.
func clientOf(message *service.Message) []byte {
	content, err := message.AsStructured()
	if err != nil {
		return nil
	}
	delivery, _ := content.(map[string]any)
	if client, ok := delivery["client_id"].(string); ok {
		return []byte(client)
	}
	return nil
}

func (r *records) Close(context.Context) error {
	if r.client != nil {
		r.client.Close()
	}
	return nil
}
