package work

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"

	"example.com/tiffin/cmd/bench/internal/testbed"
	"example.com/tiffin/internal/devstack"
)

const limitColumns = `restaurant_id, adv_campaign_id, adv_campaign_content, adv_campaign_owner, adv_campaign_owner_contact,
	adv_campaign_datetime_start, adv_campaign_datetime_end, datetime_created, client_id, trigger_datetime_created, feedback`

// limitWriter stores one batch at a time.
type limitWriter struct {
	plan    *limitPlan
	conn    *pgconn.PgConn
	params  [][]byte
	clients []byte
}

// Names of prepared statements are a session's own.
const limitInsert = "limit"

func newLimitWriter(ctx context.Context, plan *limitPlan, lane *testbed.Lane) (*limitWriter, error) {
	conn, err := pgconn.Connect(ctx, lane.FeedbackDSN)
	if err != nil {
		return nil, fmt.Errorf("connect for the limit: %w", err)
	}
	w := &limitWriter{plan: plan, conn: conn}
	_, err = conn.Prepare(ctx, limitInsert, "INSERT INTO subscribers_feedback ("+limitColumns+`)
		SELECT $1::text, $2::text, $3::text, $4::text, $5::text, $6::int8, $7::int8, $8::int8, c, $10::int8, '' FROM unnest($9::text[]) AS c`, nil)
	if err != nil {
		w.close()
		return nil, fmt.Errorf("prepare the limit's rows: %w", err)
	}
	return w, nil
}

func (w *limitWriter) close() { _ = w.conn.Close(context.Background()) }

// insert commits a batch.
func (w *limitWriter) insert(ctx context.Context, b span) error {
	if w.plan.manifest != nil {
		return w.insertWithManifest(ctx, b)
	}
	return w.insertRows(ctx, b)
}

// insertRows inserts a batch's rows. Statements up to one Sync are a transaction without BEGIN and COMMIT: a
// round trip in all.
func (w *limitWriter) insertRows(ctx context.Context, b span) error {
	if w.plan.copied(b) {
		source := &copyReader{plan: w.plan, span: b, next: b.from}
		if _, err := w.conn.CopyFrom(ctx, source, "COPY subscribers_feedback ("+limitColumns+") FROM STDIN (FORMAT binary)"); err != nil {
			return fmt.Errorf("the limit's rows: %w", err)
		}
		return nil
	}
	var batch pgconn.Batch
	binaryAll := []int16{pgx.BinaryFormatCode}
	trigger := binary.BigEndian.AppendUint64(nil, uint64(w.plan.trigger))
	for n := b.from; n < b.to; n++ {
		w.clients = appendTexts(w.clients[:0], w.plan.recipients(n, b))
		w.params = append(append(w.params[:0], w.plan.shared[n]...), w.clients, trigger)
		batch.ExecPrepared(limitInsert, w.params, binaryAll, nil) // encoded at once: both are used again
	}
	if err := w.conn.ExecBatch(ctx, &batch).Close(); err != nil {
		return fmt.Errorf("the limit's rows: %w", err)
	}
	return nil
}

// sharedColumns are the eight columns of a campaign in Postgres' binary format.
func sharedColumns(c devstack.Campaign) (columns [][]byte) {
	for _, text := range []string{c.Restaurant, c.ID, c.Content, c.Owner, c.OwnerContact} {
		columns = append(columns, []byte(text))
	}
	for _, number := range []int64{c.Start, c.End, c.Created} {
		columns = append(columns, binary.BigEndian.AppendUint64(nil, uint64(number)))
	}
	return columns
}

// appendTexts is text[] in binary format: src/backend/utils/adt/arrayfuncs.c, array_recv.
func appendTexts(to []byte, texts []string) []byte {
	for _, word := range []uint32{1, 0, pgtype.TextOID, uint32(len(texts)), 1} { // dimensions, no nulls, type; length and lower bound
		to = binary.BigEndian.AppendUint32(to, word)
	}
	for _, text := range texts {
		to = appendText(to, text)
	}
	return to
}

// copyRow is a row of a campaign in COPY's binary format, up to the client id (Postgres' manual,
// COPY, "Binary Format").
func copyRow(columns [][]byte) []byte {
	row := binary.BigEndian.AppendUint16(nil, 11)
	for _, column := range columns {
		row = append(binary.BigEndian.AppendUint32(row, uint32(len(column))), column...)
	}
	return row
}

func appendNumber(row []byte, number int64) []byte {
	return binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint32(row, 8), uint64(number))
}

func appendText(row []byte, text string) []byte {
	return append(binary.BigEndian.AppendUint32(row, uint32(len(text))), text...)
}

// What COPY's binary format begins and ends with: signature, flags, length of the header's extension; and the trailer.
const (
	copyBegins = "PGCOPY\n\xff\r\n\x00" + "\x00\x00\x00\x00" + "\x00\x00\x00\x00"
	copyEnds   = 0xffff
)

// copyReader encodes the rows of a batch where pgx wants them: nothing is copied twice.
type copyReader struct {
	plan         *limitPlan
	span         span
	next, client int // of the next row
	begun, ended bool
}

// Read implements io.Reader. It wants room for a whole row; pgx gives it 64 KiB.
func (r *copyReader) Read(into []byte) (int, error) {
	const around = 64 // bytes: more than a row's lengths, trigger time and feedback, the header or the trailer
	out := into[:0]
	if !r.begun {
		r.begun = true
		out = append(out, copyBegins...)
	}
	for ; r.next < r.span.to; r.next, r.client = r.next+1, 0 {
		row, clients := r.plan.rows[r.next], r.plan.recipients(r.next, r.span)
		for ; r.client < len(clients); r.client++ {
			if cap(out)-len(out) < len(row)+len(clients[r.client])+around {
				return r.given(out)
			}
			out = appendText(append(out, row...), clients[r.client])
			out = appendNumber(out, r.plan.trigger)
			out = binary.BigEndian.AppendUint32(out, 0)
		}
	}
	if r.ended {
		return 0, io.EOF
	}
	if cap(out)-len(out) < around {
		return r.given(out)
	}
	r.ended = true
	return len(binary.BigEndian.AppendUint16(out, copyEnds)), nil
}

func (r *copyReader) given(out []byte) (int, error) {
	if len(out) == 0 {
		return 0, io.ErrShortBuffer
	}
	return len(out), nil
}
