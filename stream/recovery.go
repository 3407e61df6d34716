package stream

import (
	"bytes"
	"context"
	"fmt"
	"slices"

	"github.com/twmb/franz-go/pkg/kgo"
)

// recovery brings Kafka level with the ledger: the messages in [K, P) are committed in
// Postgres, and their records are not (all) out. They are rebuilt from the feedback rows,
// never joined again: the index has moved on.
type recovery struct {
	s         *session
	partition int32
	from      position // K
	to        int64    // P
	// asked says that the group's offset was moved back by an operator: these records went out
	// before.
	asked bool

	l   *lane // nil: it is not to be cut, nor looked at
	p   *producer
	out int   // records in the open transaction
	all int64 // records sent in all

	rowsGone, rowsAlien, lettersGone remark
	unknown                          unknownMessages

	headers headerRoom
	traces  recovered // of the messages in the open transaction
}

// run sends the missing records in one or more transactions; the last moves the group's
// offset to the ledger's. It may be cut between two of them.
func (r *recovery) run(ctx context.Context, l *lane) (err error) {
	r.l = l
	r.rowsGone = remark{log: r.s.log.Warn, text: "feedback rows were deleted before their records went out, or are in another table than feedback.table names now; they are not sent", unit: "rows"}
	r.rowsAlien = remark{log: r.s.log.Error, text: "feedback rows are not the message's any more: they were changed, or their ids given out again (TRUNCATE … RESTART IDENTITY), or feedback.table was another when they were written; they are not sent", unit: "rows"}
	r.lettersGone = remark{log: r.s.log.Error, text: "a malformed record is gone from the input topic; its dead letter can't be sent"}
	defer r.lettersGone.end()
	defer r.rowsGone.end()
	defer r.rowsAlien.end()
	r.unknown = newUnknownMessages(r.s, r.partition)
	defer r.unknown.end()
	if r.asked {
		r.s.log.Warn("the group's offset was moved back by an operator; the records of the messages from there on, which were handled before, now come again",
			"partition", r.partition, "from_offset", r.from.offset, "to_offset", r.to)
	}
	if err := r.begin(ctx); err != nil {
		return err
	}
	defer r.end()
	messages, err := r.resendAll(ctx)
	if err != nil {
		return err
	}
	if err := r.commit(ctx, position{offset: r.to}); err != nil {
		return err
	}
	r.s.metrics.recovered.Add(float64(r.all))
	what := []any{
		"partition", r.partition, "from_offset", r.from.offset, "already_sent", r.from.sent,
		"to_offset", r.to, "messages", messages, "records", r.all,
	}
	if r.asked {
		r.s.log.Warn("records sent again from feedback rows, as the group's offset was moved back", what...)
	} else {
		r.s.log.Warn("records rebuilt from feedback rows", what...)
	}
	return nil
}

func (r *recovery) resendAll(ctx context.Context) (messages int, err error) {
	for next := r.from.offset; ; {
		page, err := r.s.store.manifest(ctx, r.partition, next, r.to)
		if err != nil {
			return messages, err
		}
		if err := r.unknown.between(ctx, next, r.to, page); err != nil || len(page) == 0 {
			return messages, err
		}
		for _, rec := range page {
			if err := r.resend(ctx, rec); err != nil {
				return messages, fmt.Errorf("rebuild %s: %w", triggerID(r.s.topics.input.name, r.partition, rec.offset), err)
			}
			next = rec.offset + 1
		}
		messages += len(page)
	}
}

func (r *recovery) resend(ctx context.Context, rec record) error {
	switch rec.outcome {
	case Malformed:
		return r.resendDeadLetter(ctx, rec)
	case Delivered:
		return r.resendDeliveries(ctx, rec)
	default:
		return nil
	}
}

// resendDeliveries reads a trigger's rows in record order. A row that somebody deleted in
// between is not resurrected, and one that is another message's by now is not sent under this
// one's name: both are reported.
func (r *recovery) resendDeliveries(ctx context.Context, rec record) error {
	var sent int64
	if rec.offset == r.from.offset {
		sent = r.from.sent
	}
	ids := rec.ids.skip(sent)
	if r.l != nil {
		r.l.progress.total.Add(ids.count())
	}
	var found, alien int64
	builder := rowBuilder{r: r, rec: rec}
	r.traces.begin(r.s.cfg, r.partition, &rec, &fields{made: rec.trace})
	for _, run := range ids {
		err := r.s.store.rows(ctx, run, func(row row) error {
			found++
			if !isOf(&row, rec.restaurant, rec.campaign, rec.now) {
				alien++
				return nil
			}
			return builder.add(ctx, row)
		})
		if err != nil {
			return err
		}
	}
	name := triggerID(r.s.topics.input.name, r.partition, rec.offset)
	gone := ids.count() - found
	if gone > 0 {
		r.rowsGone.add(name, gone)
	}
	if alien > 0 {
		r.rowsAlien.add(name, alien)
	}
	if gone+alien > 0 {
		r.s.metrics.lost.WithLabelValues(lostRows).Inc()
	}
	return nil
}

// rowBuilder turns a trigger's feedback rows back into records, byte for byte what they were.
type rowBuilder struct {
	r       *recovery
	rec     record
	made    [sharedColumns][]byte // the columns that env was made of
	env     envelope
	headers []kgo.RecordHeader
}

func (b *rowBuilder) add(ctx context.Context, row row) error {
	if b.r.out >= b.r.s.cfg.MaxTransactionRecords {
		if err := b.r.turn(ctx, position{offset: b.rec.offset, sent: b.rec.ids.before(row.id)}); err != nil {
			return err
		}
		b.r.traces.begin(b.r.s.cfg, b.r.partition, &b.rec, &fields{made: b.rec.trace})
	}
	if b.headers == nil || !slices.EqualFunc(b.made[:], row.shared[:], bytes.Equal) {
		for i, value := range row.shared {
			b.made[i] = bytes.Clone(value)
		}
		c, now := row.campaign()
		b.env = newEnvelope(&c, now)
		b.headers = b.r.headers.of(b.r.s.topics.input.name, b.r.partition, b.rec.offset, b.rec.trace)
	}
	limit := int(b.r.s.topics.output.maxMessage)
	if size := b.size(row.client, limit); size > limit {
		return b.r.halt(ctx, position{offset: b.rec.offset, sent: b.rec.ids.before(row.id)}, size, limit)
	}
	if err := b.r.count(); err != nil {
		return err
	}
	b.r.all++
	return b.r.p.records.add(ctx, row.client, &b.env, b.headers)
}

// size bounds the size of the record for a client, closely where it may be beyond the limit.
func (b *rowBuilder) size(client []byte, limit int) int {
	headers := len(b.headers[0].Key) + len(b.headers[0].Value) + 10
	size := recordSize(len(client), b.env.maxValue(len(client)), headers)
	if size > limit {
		size = recordSize(len(client), len(b.env.appendValue(nil, client)), headers)
	}
	return size
}

// halt commits what is out and says that the record at a position is larger than the topic takes.
func (r *recovery) halt(ctx context.Context, at position, size, limit int) error {
	if r.out > 0 {
		if err := r.commit(ctx, at); err != nil {
			return err
		}
	}
	return &oversizeError{r.s.topics.output.name, triggerID(r.s.topics.input.name, r.partition, at.offset), size, limit}
}

// resendDeadLetter reads the malformed record again. One that retention has removed is lost: no
// waiting brings it back, so it is told, counted and passed over.
func (r *recovery) resendDeadLetter(ctx context.Context, rec record) error {
	came, err := r.s.fetchOne(ctx, r.partition, rec.offset)
	if err != nil {
		return err
	}
	if came == nil {
		r.s.metrics.lost.WithLabelValues(lostDeadLetter).Inc()
		r.lettersGone.add(triggerID(r.s.topics.input.name, r.partition, rec.offset), 0)
		return nil
	}
	if r.out >= r.s.cfg.MaxTransactionRecords {
		if err := r.turn(ctx, position{offset: rec.offset}); err != nil {
			return err
		}
	}
	if err := r.count(); err != nil {
		return err
	}
	r.traces.begin(r.s.cfg, r.partition, &rec, &fields{record: came})
	return r.p.sendDeadLetter(ctx, &trigger{partition: r.partition, offset: rec.offset, fault: &rec.fault, record: came})
}

// turn commits what is open at a position, and begins anew.
func (r *recovery) turn(ctx context.Context, at position) error {
	if err := r.commit(ctx, at); err != nil {
		return err
	}
	r.end()
	if r.l != nil && r.l.cut.Err() != nil {
		return errCut
	}
	return r.begin(ctx)
}

func (r *recovery) begin(ctx context.Context) error {
	p, err := r.s.rotation.borrow(ctx)
	if err != nil {
		return err
	}
	r.p, r.out = p, 0
	if r.l != nil {
		r.l.pulse.Beat()
	}
	return nil
}

// count is called before each record. The first begins the transaction: where there is nothing to
// send none may stay open behind the recovery.
func (r *recovery) count() error {
	if r.out == 0 {
		if err := r.p.begin(); err != nil {
			return err
		}
	}
	r.out++
	return nil
}

// end gives the producer back, for others to have their turn.
func (r *recovery) end() {
	r.traces.end(r.s.cfg.Now, "the rebuilt records were not committed in this attempt")
	if r.p != nil {
		r.s.rotation.giveBack(r.p)
		r.p = nil
	}
}

func (r *recovery) commit(ctx context.Context, at position) error {
	offsets := map[int32]position{r.partition: at}
	if r.out == 0 { // an empty transaction carries no offsets
		return r.s.member.commit(ctx, offsets)
	}
	if err := r.s.conclude(ctx, r.p, offsets); err != nil {
		return err
	}
	r.traces.end(r.s.cfg.Now, "")
	if r.l != nil {
		r.l.progress.records.Store(r.all)
	}
	return nil
}
