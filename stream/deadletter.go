package stream

import (
	"bytes"
	"context"
	"fmt"
	"slices"

	"github.com/twmb/franz-go/pkg/kgo"
)

// sendDeadLetter produces what came, whole: key, value and headers, null and empty kept
// apart, behind them why and where from. What the dead-letter topic cannot hold even
// compressed goes without its value, and says so: a record must never stop the stream, and
// the original stays where `trigger` points to.
func (p *producer) sendDeadLetter(ctx context.Context, t *trigger) error {
	r := &kgo.Record{
		Topic: p.topics.deadLetter.name,
		Key:   t.record.Key,
		Value: t.record.Value,
		Headers: append(slices.Clone(t.record.Headers),
			kgo.RecordHeader{Key: "reason", Value: []byte(t.fault.Reason)},
			kgo.RecordHeader{Key: "trigger", Value: []byte(triggerID(p.topics.input.name, t.partition, t.offset))},
			kgo.RecordHeader{Key: "error", Value: []byte(t.fault.Text)}),
	}
	limit := int(p.topics.deadLetter.maxMessage)
	size := plainSize(r)
	if size > limit && !compressesBelow(r, limit) {
		r.Headers[len(r.Headers)-1].Value = fmt.Appendf(nil, "%s; its value of %d bytes is larger than %s takes (max.message.bytes %d)",
			t.fault.Text, len(r.Value), r.Topic, limit)
		r.Value = nil
		if size = plainSize(r); size > limit && !compressesBelow(r, limit) { // what came with it is too large already
			own := r.Headers[len(t.record.Headers):]
			own[len(own)-1].Value = append(own[len(own)-1].Value, "; so are its key and headers"...)
			r.Key, r.Headers = nil, own
			size = plainSize(r)
		}
	}
	// Records that go out together share the limit: a batch is one message to the broker.
	if p.deadBytes > 0 && p.deadBytes+size > limit {
		if err := p.flush(ctx); err != nil {
			return err
		}
	}
	p.deadBytes += size
	p.writesTo(r.Topic)
	p.cl.Produce(ctx, r, func(_ *kgo.Record, err error) {
		if err != nil {
			p.fail(&p.topics.deadLetter, err)
		}
	})
	return nil
}

func plainSize(r *kgo.Record) int {
	headers := 0
	for _, h := range r.Headers {
		headers += len(h.Key) + len(h.Value) + 10 // two varints
	}
	return recordSize(len(r.Key), len(r.Value), headers)
}

// compressesBelow tries what the client will do.
func compressesBelow(r *kgo.Record, limit int) bool {
	var plain bytes.Buffer
	plain.Write(r.Key)
	plain.Write(r.Value)
	for _, h := range r.Headers {
		plain.WriteString(h.Key)
		plain.Write(h.Value)
	}
	out, _ := lz4Blocks{}.Compress(new(bytes.Buffer), plain.Bytes())
	return recordOverhead+len(out)+len(out)/64 <= limit
}
