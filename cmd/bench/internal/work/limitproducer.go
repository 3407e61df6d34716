package work

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync/atomic"

	"github.com/twmb/franz-go/pkg/kgo"

	"example.com/tiffin/cmd/bench/internal/testbed"
)

// limitProducer sends one batch at a time; records and their bytes are used again and again.
type limitProducer struct {
	plan    *limitPlan
	client  *kgo.Client
	topic   string
	records []kgo.Record
	bytes   []byte
	failed  atomic.Pointer[error]
	done    func(*kgo.Record, error)
}

func newLimitProducer(ctx context.Context, plan *limitPlan, lane *testbed.Lane, n int) (*limitProducer, error) {
	client, err := kgo.NewClient(
		kgo.SeedBrokers(lane.Brokers...), kgo.TransactionalID(lane.Group+"-limit-"+strconv.Itoa(n)),
		kgo.ProducerBatchCompression(kgo.Lz4Compression()), kgo.RequiredAcks(kgo.AllISRAcks()), kgo.MaxBufferedRecords(2*limitBatch),
	)
	if err != nil {
		return nil, err
	}
	p := &limitProducer{plan: plan, client: client, topic: lane.Output}
	p.done = func(_ *kgo.Record, err error) {
		if err != nil {
			p.failed.CompareAndSwap(nil, &err)
		}
	}
	if err := p.warmUp(ctx); err != nil {
		client.Close()
		return nil, fmt.Errorf("the limit's producer: %w", err)
	}
	return p, nil
}

// warmUp asks for ids, leaders and connections now, not when the clock runs; what it sends is aborted.
func (p *limitProducer) warmUp(ctx context.Context) error {
	if err := p.client.BeginTransaction(); err != nil {
		return err
	}
	p.client.Produce(ctx, &kgo.Record{Topic: p.topic}, p.done)
	return errors.Join(p.flush(ctx), p.client.EndTransaction(ctx, kgo.TryAbort))
}

func (p *limitProducer) close() { p.client.Close() }

// produce returns once the broker has the batch. A record's key is the client id within its value.
func (p *limitProducer) produce(ctx context.Context, b span) error {
	if err := p.client.BeginTransaction(); err != nil {
		return err
	}
	deliveries, bytes := p.plan.size(b)
	if cap(p.bytes) < bytes { // it may not grow later: records alias it
		p.bytes = make([]byte, 0, bytes)
	}
	if cap(p.records) < deliveries {
		p.records = make([]kgo.Record, deliveries)
	}
	buffer, records := p.bytes[:0], p.records[:deliveries]
	for n := b.from; n < b.to; n++ {
		head, tail, headers := p.plan.heads[n], p.plan.tails[n], p.plan.headers[n:n+1:n+1]
		for _, client := range p.plan.recipients(n, b) {
			from := len(buffer)
			key := from + len(head)
			buffer = append(append(append(buffer, head...), client...), tail...)
			records[0] = kgo.Record{Topic: p.topic, Key: buffer[key : key+len(client)], Value: buffer[from:], Headers: headers}
			p.client.Produce(ctx, &records[0], p.done)
			records = records[1:]
		}
	}
	return p.flush(ctx)
}

func (p *limitProducer) flush(ctx context.Context) error {
	err := p.client.Flush(ctx)
	if failed := p.failed.Load(); failed != nil {
		err = errors.Join(err, *failed)
	}
	if err != nil {
		return fmt.Errorf("the limit's records: %w", err)
	}
	return nil
}

func (p *limitProducer) commit(ctx context.Context) error {
	if err := p.client.EndTransaction(ctx, kgo.TryCommit); err != nil {
		return fmt.Errorf("the limit's records: commit: %w", err)
	}
	return nil
}
