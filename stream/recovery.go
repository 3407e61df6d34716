package stream

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
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

	p   *producer
	out int   // records in the open transaction
	all int64 // records sent in all
}

// run sends the missing records in one or more transactions; the last moves the group's
// offset to the ledger's.
func (r *recovery) run(ctx context.Context) (err error) {
	todo, err := r.s.ledger.manifest(ctx, r.partition, r.from.offset, r.to)
	if err != nil {
		return err
	}
	if r.p, err = r.s.rotation.take(ctx); err != nil {
		return err
	}
	defer r.s.rotation.give(r.p)
	if err := r.p.begin(); err != nil {
		return err
	}
	for _, rec := range todo {
		if err := r.resend(ctx, rec); err != nil {
			return fmt.Errorf("rebuild %s: %w", triggerID(r.s.topics.input.name, r.partition, rec.offset), err)
		}
	}
	if err := r.turn(ctx, position{offset: r.to}, false); err != nil {
		return err
	}
	r.s.metrics.recovered.Add(float64(r.all))
	r.s.log.Warn("records rebuilt from feedback rows", "partition", r.partition, "from_offset", r.from.offset,
		"already_sent", r.from.sent, "to_offset", r.to, "messages", len(todo), "records", r.all)
	return nil
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
// between is not resurrected: it is reported.
func (r *recovery) resendDeliveries(ctx context.Context, rec record) error {
	var sent int64
	if rec.offset == r.from.offset {
		sent = r.from.sent
	}
	ids := rec.ids.skip(sent)
	found := int64(0)
	builder := rowBuilder{r: r, offset: rec.offset, w: arenaWriter{p: r.p}}
	for _, run := range ids {
		n, err := r.readRun(ctx, run, rec, &builder)
		found += n
		if err != nil {
			return err
		}
	}
	builder.w.end()
	if gone := ids.count() - found; gone > 0 {
		r.s.log.Warn("feedback rows were deleted before their records went out; they are not sent",
			"trigger", triggerID(r.s.topics.input.name, r.partition, rec.offset), "rows", gone)
	}
	return nil
}

func (r *recovery) readRun(ctx context.Context, run idRange, rec record, builder *rowBuilder) (found int64, err error) {
	rows, err := r.s.pool.Query(ctx, `SELECT id::int8, restaurant_id::text, adv_campaign_id::text, adv_campaign_content::text,
			adv_campaign_owner::text, adv_campaign_owner_contact::text, adv_campaign_datetime_start::int8,
			adv_campaign_datetime_end::int8, datetime_created::int8, trigger_datetime_created::int8, client_id::text
		FROM `+r.s.cfg.FeedbackTable.Sanitize()+` WHERE id >= $1 AND id <= $2 ORDER BY id`,
		pgx.QueryResultFormats{pgtype.BinaryFormatCode}, run.first, run.last)
	if err != nil {
		return 0, err
	}
	defer rows.Close()
	for rows.Next() {
		values := rows.RawValues()
		if r.out >= r.s.cfg.MaxTransactionRecords {
			builder.w.end()
			id := int64(binary.BigEndian.Uint64(values[0])) //nolint:gosec // an int8 in binary form
			if err := r.turn(ctx, position{offset: rec.offset, sent: rec.ids.before(id)}, true); err != nil {
				return found, err
			}
		}
		if err := builder.add(ctx, values); err != nil {
			return found, err
		}
		r.out++
		r.all++
		found++
	}
	return found, rows.Err()
}

// rowBuilder turns feedback rows back into records, byte for byte what they were.
type rowBuilder struct {
	r        *recovery
	offset   int64
	w        arenaWriter
	campaign [][]byte // the raw columns that env was made of
	env      envelope
	headers  []kgo.RecordHeader
}

func (b *rowBuilder) add(ctx context.Context, values [][]byte) error {
	shared, client := values[1:10], values[10]
	if !slices.EqualFunc(b.campaign, shared, bytes.Equal) {
		b.campaign = b.campaign[:0]
		for _, v := range shared {
			b.campaign = append(b.campaign, bytes.Clone(v))
		}
		number := func(i int) int64 { return int64(binary.BigEndian.Uint64(shared[i])) } //nolint:gosec // an int8 in binary form
		c := Campaign{
			RestaurantID: string(shared[0]), ID: string(shared[1]), Content: string(shared[2]), Owner: string(shared[3]),
			OwnerContact: string(shared[4]), Start: number(5), End: number(6), Created: number(7),
		}
		b.env = newEnvelope(&c, number(8))
		id := triggerID(b.r.s.topics.input.name, b.r.partition, b.offset)
		b.headers = []kgo.RecordHeader{{Key: "trigger", Value: []byte(id)}}
	}
	return b.w.add(ctx, client, &b.env, b.headers)
}

// resendDeadLetter reads the malformed record again: the same bytes give the same verdict.
func (r *recovery) resendDeadLetter(ctx context.Context, rec record) error {
	record, err := r.s.fetchOne(ctx, r.partition, rec.offset)
	if err != nil {
		return err
	}
	if record == nil {
		r.s.log.Error("a malformed record is gone from the input topic; its dead letter can't be sent",
			"trigger", triggerID(r.s.topics.input.name, r.partition, rec.offset))
		return nil
	}
	fault := &MalformedError{}
	err = r.s.pool.QueryRow(ctx, `SELECT coalesce(reason, ''), coalesce(error, '') FROM tiffin.trigger
		WHERE consumer_group = $1 AND topic = $2 AND partition = $3 AND record_offset = $4`,
		r.s.cfg.Kafka.Group, r.s.topics.input.name, r.partition, rec.offset).Scan(&fault.Reason, &fault.Text)
	if err != nil {
		return fmt.Errorf("read its reason: %w", err)
	}
	if r.out >= r.s.cfg.MaxTransactionRecords {
		if err := r.turn(ctx, position{offset: rec.offset}, true); err != nil {
			return err
		}
	}
	r.out++
	return r.p.sendDeadLetter(ctx, &trigger{partition: r.partition, offset: rec.offset, fault: fault, record: record})
}

// turn commits what is open at a position, and begins anew if there is more to come.
func (r *recovery) turn(ctx context.Context, at position, more bool) error {
	if err := r.p.flush(ctx); err != nil {
		return err
	}
	offsets := map[int32]position{r.partition: at}
	if r.s.cfg.Mode == AtLeastOnce || r.out == 0 {
		if err := r.s.member.commit(ctx, offsets); err != nil {
			return err
		}
	} else if err := r.s.member.commitIn(ctx, r.p, offsets); err != nil {
		return err
	}
	if err := r.p.commit(ctx); err != nil {
		return err
	}
	r.out = 0
	if !more {
		return nil
	}
	return r.p.begin()
}

// fetchOne reads one record of the input topic; nil when it is no longer there.
func (s *session) fetchOne(ctx context.Context, partition int32, offset int64) (*kgo.Record, error) {
	cl, err := s.cfg.Kafka.newClient(kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{
		s.topics.input.name: {partition: kgo.NewOffset().At(offset)},
	}), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	if err != nil {
		return nil, err
	}
	defer cl.Close()
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	for {
		fetches := cl.PollRecords(ctx, 1)
		if err := fetches.Err(); err != nil {
			return nil, fmt.Errorf("read the input record again: %w", err)
		}
		for _, r := range fetches.Records() {
			if r.Offset == offset {
				return r, nil
			}
			if r.Offset > offset {
				return nil, nil
			}
		}
	}
}
