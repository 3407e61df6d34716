package stream

import (
	"context"
	"errors"

	"github.com/twmb/franz-go/pkg/kgo"

	"example.com/tiffin/cache"
)

// Index answers which clients subscribe to a restaurant, in one state of the source table.
// Both are called from several goroutines. Lookup may wait; the recipients stay valid and unchanged
// until they are released.
type Index interface {
	Lookup(ctx context.Context, restaurant string) (*cache.Recipients, error)
	// LookupReading fails with cache.ErrManyRows where Lookup would have to read more than so many
	// rows of the source.
	LookupReading(ctx context.Context, restaurant string, rows int) (*cache.Recipients, error)
}

// Fence waits until the index holds every transaction that the source had acknowledged when
// Wait was called, and says how far that is. It is called once per poll.
type Fence interface {
	Wait(ctx context.Context) (cache.Mark, error)
}

// planner decides what becomes of campaign messages.
type planner struct {
	cfg    *Config
	index  Index
	topics topics
	reader campaignDecoder
}

// plan decides one message, once. The caller owns the recipients. An error is the index's,
// and no verdict on the message. What takes long to look up is left to findRecipients: the
// trigger then is cold, and undecided.
func (p *planner) plan(ctx context.Context, m message) (*trigger, error) {
	trace := p.begin(m)
	t, err := p.decide(ctx, m, trace)
	if err != nil {
		trace.failed(err)
		return nil, err
	}
	trace.planned()
	return t, nil
}

func (p *planner) decide(ctx context.Context, m message, trace *traced) (*trigger, error) {
	r := m.Record
	t := &trigger{
		partition: r.Partition,
		leader:    r.LeaderEpoch + 1,
		offset:    r.Offset,
		claim:     m.claim,
		published: r.Timestamp,
		now:       p.cfg.Now().Unix(),
		mark:      m.mark,
		trace:     trace,
		context:   trace.context(),
	}
	campaign, fault := p.reader.decode(r.Value)
	t.campaign = campaign
	if fault != nil {
		t.reject(r, fault)
		return t, nil
	}
	if !campaign.Active(t.now) {
		t.outcome = Inactive
		return t, nil
	}
	recipients, err := p.index.LookupReading(ctx, campaign.RestaurantID, p.cfg.MaxTransactionRecords)
	if errors.Is(err, cache.ErrManyRows) {
		t.cold = true
		return t, nil
	}
	if err != nil {
		return nil, err // which names the restaurant
	}
	p.complete(t, r, recipients)
	return t, nil
}

// findRecipients completes the plan of a cold trigger, whatever has to be read for it.
func (p *planner) findRecipients(ctx context.Context, t *trigger, r *kgo.Record) error {
	recipients, err := p.index.Lookup(ctx, t.campaign.RestaurantID)
	if err != nil {
		return err
	}
	t.cold = false
	p.complete(t, r, recipients)
	return nil
}

// complete decides a message to an active campaign; it takes the recipients over.
func (p *planner) complete(t *trigger, r *kgo.Record, recipients *cache.Recipients) {
	if recipients.Len() == 0 {
		recipients.Release()
		t.outcome = NoSubscribers
		return
	}
	if fault := p.checkSize(t, recipients); fault != nil {
		recipients.Release()
		t.reject(r, fault)
		return
	}
	t.outcome, t.recipients = Delivered, recipients
}

func (t *trigger) reject(r *kgo.Record, fault *MalformedError) {
	t.outcome, t.fault, t.record = Malformed, fault, r
}

// bulkyRecord is the size, in bytes, from which the brokers are asked before Postgres commits:
// a topic's limit may have been lowered since it was read, and rows whose record is refused
// must not stay behind.
const bulkyRecord = 32 << 10

// checkSize refuses a campaign of which any record would be larger than the output topic
// takes: as a whole, so that neither sink holds a part of it.
func (p *planner) checkSize(t *trigger, recipients *cache.Recipients) *MalformedError {
	limit := int(p.topics.output.maxMessage)
	if n := t.campaign.bound(len(p.topics.input.name), recipients.MaxLen()) + t.context.size(); n <= min(limit, bulkyRecord) {
		return nil
	}
	longest := 0 // of this campaign's clients: the longest that the index has ever held says little
	for client := range recipients.Range(0, recipients.Len()) {
		longest = max(longest, len(client))
	}
	env := newEnvelope(&t.campaign, t.now)
	headers := len("trigger") + len(triggerID(p.topics.input.name, t.partition, t.offset)) + 10 + t.context.size()
	size := func(client int) int { return recordSize(client, env.maxValue(client), headers) }
	most := size(longest)
	t.bulky = most > bulkyRecord
	if most <= limit {
		return nil
	}
	var value []byte
	for client := range recipients.Range(0, recipients.Len()) {
		value = env.appendValue(value[:0], client)
		if n := recordSize(len(client), len(value), headers); n > limit {
			return malformed(reasonTooLarge, "a record of %d bytes with its client id added is larger than topic %s takes (max.message.bytes %d)",
				n, p.topics.output.name, limit)
		}
	}
	return nil
}
