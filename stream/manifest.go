package stream

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5/pgtype"
)

// copyManifestFrom is how many triggers are worth a COPY, which takes a round trip of its own
// and a third of the server's time for a row; fewer go out with the commit behind them.
const copyManifestFrom = 200

const manifestColumns = `consumer_group, topic, partition, record_offset, outcome, restaurant_id, adv_campaign_id, ` +
	`trigger_datetime_created, fence_lsn, stale, recipients, feedback_ids, reason, error, traceparent, tracestate`

const insertManifest = `INSERT INTO tiffin.trigger (` + manifestColumns + `)
	SELECT $1::text, $2::text, u.partition, u.record_offset, u.outcome, u.restaurant_id, u.campaign_id, u.now,
		u.fence::pg_lsn, u.stale, u.recipients, u.ids::int8multirange, u.reason, u.error, u.traceparent, u.tracestate
	FROM unnest($3::int4[], $4::int8[], $5::text[], $6::text[], $7::text[], $8::int8[], $9::text[], $10::bool[],
		$11::int8[], $12::text[], $13::text[], $14::text[], $15::text[], $16::text[])
	AS u(partition, record_offset, outcome, restaurant_id, campaign_id, now, fence, stale, recipients, ids, reason, error, traceparent, tracestate)`

// finish writes the manifest and commits.
func (w *writer) finish(ctx context.Context, b *batch) (err error) {
	ctx, cancel := context.WithTimeout(ctx, timeoutOf(len(b.triggers)))
	defer cancel()
	var params [][]byte
	if len(b.triggers) < copyManifestFrom {
		params, err = w.manifestParams(b)
	} else {
		err = w.copyManifest(ctx, b)
	}
	if err != nil {
		return err
	}
	p := w.startPipe(ctx)
	defer func() { err = errors.Join(err, p.close()) }()
	if params != nil {
		p.command("manifest", int64(len(b.triggers)), params...)
	}
	p.command("commit", -1)
	return p.finish()
}

// copyManifest sends the manifest as Postgres' binary COPY (src/backend/commands/copyfromparse.c).
// It is encoded as a whole: batchTriggers bounds it.
func (w *writer) copyManifest(ctx context.Context, b *batch) error {
	w.encoded = append(w.encoded[:0], copyHeader...)
	for _, t := range b.triggers {
		w.encoded = w.appendManifest(w.encoded, t)
	}
	w.encoded = binary.BigEndian.AppendUint16(w.encoded, copyTrailer)
	tag, err := w.conn.PgConn().CopyFrom(ctx, bytes.NewReader(w.encoded), `COPY tiffin.trigger (`+manifestColumns+`) FROM STDIN (FORMAT binary)`)
	if err == nil && tag.RowsAffected() != int64(len(b.triggers)) {
		err = swallowed(int64(len(b.triggers)), tag.RowsAffected())
	}
	return err
}

func (w *writer) appendManifest(dst []byte, t *trigger) []byte {
	const columns = 16
	dst = binary.BigEndian.AppendUint16(dst, columns)
	dst = appendField(dst, w.group)
	dst = appendField(dst, w.topic)
	dst = binary.BigEndian.AppendUint32(appendLength(dst, 4), uint32(t.partition))
	dst = appendInt8(dst, t.offset)
	dst = appendField(dst, string(t.outcome))
	dst = appendNullable(dst, t.campaign.RestaurantID, t.untold(t.campaign.RestaurantID))
	dst = appendNullable(dst, t.campaign.ID, t.untold(t.campaign.ID))
	dst = appendInt8(dst, t.now)
	if t.mark.LSN == 0 {
		dst = appendNull(dst)
	} else {
		dst = appendInt8(dst, int64(t.mark.LSN)) // pg_lsn_send
	}
	stale := byte(0)
	if t.mark.Stale {
		stale = 1
	}
	dst = append(appendLength(dst, 1), stale)
	dst = appendInt8(dst, int64(t.deliveries()))
	dst = t.ids.appendMultirange(dst)
	if t.fault == nil {
		dst = appendNull(appendNull(dst))
	} else {
		dst = appendField(appendField(dst, t.fault.Reason), t.fault.Text)
	}
	if t.recipients == nil {
		return appendNull(appendNull(dst))
	}
	dst = appendNullable(dst, t.context.parent, t.context.parent == "")
	return appendNullable(dst, t.context.state, t.context.state == "")
}

// appendNullable appends a text, or null.
func appendNullable(dst []byte, text string, null bool) []byte {
	if null {
		return appendNull(dst)
	}
	return appendField(dst, text)
}

// manifestParams are those of insertManifest.
func (w *writer) manifestParams(b *batch) ([][]byte, error) {
	n := len(b.triggers)
	partitions, offsets, counts := make([]int32, n), make([]int64, n), make([]int64, n)
	outcomes, stale := make([]string, n), make([]bool, n)
	restaurants, campaigns, fences := make([]*string, n), make([]*string, n), make([]*string, n)
	ids, reasons, texts := make([]*string, n), make([]*string, n), make([]*string, n)
	nows := make([]int64, n)
	parents, states := make([]*string, n), make([]*string, n)
	for i, t := range b.triggers {
		partitions[i], offsets[i], counts[i] = t.partition, t.offset, int64(t.deliveries())
		outcomes[i], stale[i], nows[i] = string(t.outcome), t.mark.Stale, t.now
		restaurants[i] = orNull(&t.campaign.RestaurantID, t.untold(t.campaign.RestaurantID))
		campaigns[i] = orNull(&t.campaign.ID, t.untold(t.campaign.ID))
		if t.mark.LSN != 0 {
			text := t.mark.LSN.String()
			fences[i] = &text
		}
		if len(t.ids) > 0 {
			text := t.ids.multirange()
			ids[i] = &text
		}
		if t.recipients != nil {
			parents[i], states[i] = orNull(&t.context.parent, t.context.parent == ""), orNull(&t.context.state, t.context.state == "")
		}
		if t.fault != nil {
			reasons[i], texts[i] = &t.fault.Reason, &t.fault.Text
		}
	}
	params := [][]byte{[]byte(w.group), []byte(w.topic)}
	for _, arg := range []struct {
		oid   uint32
		value any
	}{
		{pgtype.Int4ArrayOID, partitions},
		{pgtype.Int8ArrayOID, offsets},
		{pgtype.TextArrayOID, outcomes},
		{pgtype.TextArrayOID, restaurants},
		{pgtype.TextArrayOID, campaigns},
		{pgtype.Int8ArrayOID, nows},
		{pgtype.TextArrayOID, fences},
		{pgtype.BoolArrayOID, stale},
		{pgtype.Int8ArrayOID, counts},
		{pgtype.TextArrayOID, ids},
		{pgtype.TextArrayOID, reasons},
		{pgtype.TextArrayOID, texts},
		{pgtype.TextArrayOID, parents},
		{pgtype.TextArrayOID, states},
	} {
		value, err := w.conn.TypeMap().Encode(arg.oid, pgtype.BinaryFormatCode, arg.value, nil)
		if err != nil {
			return nil, fmt.Errorf("encode a parameter: %w", err)
		}
		params = append(params, value)
	}
	return params, nil
}

func orNull(text *string, null bool) *string {
	if null {
		return nil
	}
	return text
}

// untold reports whether a text is one that a malformed message did not tell.
func (t *trigger) untold(text string) bool { return t.fault != nil && text == "" }
