package stream

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
)

// tallyRows adds what the manifest and the feedback rows say. Both are read in the order of
// the rows' ids, side by side, so that a row that no message names is seen too.
func (v *verifier) tallyRows(ctx context.Context, extra chan<- Difference) error {
	side := newTallySide(v.tally)
	if err := v.tallyRowless(ctx, side); err != nil {
		return err
	}
	low, high, err := v.db.window(ctx, &v.Kafka, v.spans)
	if err != nil {
		return err
	}
	if low < high {
		v.Progress.rowsAll.Store(high - low)
		m := rowMerge{v: v, side: side, print: newFingerprint(v.seeds[0], v.seeds[1]), extra: extra}
		if err := m.run(ctx, low, high); err != nil {
			return err
		}
	}
	return side.end()
}

// tallyRowless adds the messages that want a dead letter, and those that want rows but name none.
func (v *verifier) tallyRowless(ctx context.Context, side *tallySide) error {
	rows, err := v.db.ask.Query(ctx, `SELECT t.partition, t.record_offset, t.outcome = 'malformed', t.recipients, coalesce(t.reason, '')
		FROM tiffin.trigger t WHERE (t.outcome = 'malformed' OR t.recipients <> 0 AND coalesce(isempty(t.feedback_ids), true)) AND `+inSpans,
		spanParams(&v.Kafka, v.spans)...)
	if err != nil {
		return fmt.Errorf("read the manifest: %w", err)
	}
	var key tallyKey
	var recipients int64
	var reason []byte
	var malformed bool
	print := newFingerprint(v.seeds[0], v.seeds[1])
	_, err = pgx.ForEachRow(rows, []any{&key.partition, &key.offset, &malformed, &recipients, &reason}, func() error {
		if malformed {
			sum, err := side.of(tallyKey{key.partition, true, key.offset})
			a, b := print.of(nil, reason)
			sum.add(&sums{rows: 1, want: 1, a: a, b: b})
			if err != nil || recipients == 0 {
				return err
			}
		}
		sum, err := side.of(key)
		sum.want += recipients
		return err
	})
	if err != nil {
		return fmt.Errorf("read the manifest: %w", err)
	}
	return nil
}

// window is the range of ids that the messages of the spans name: [low, high).
func (s *snapshot) window(ctx context.Context, k *KafkaConfig, spans map[int32]*judged) (low, high int64, err error) {
	err = s.ask.QueryRow(ctx, `SELECT coalesce(min(lower(t.feedback_ids)), 0), coalesce(max(upper(t.feedback_ids)), 0)
		FROM tiffin.trigger t WHERE `+inSpans, spanParams(k, spans)...).Scan(&low, &high)
	if err != nil {
		return 0, 0, fmt.Errorf("read the manifest: %w", err)
	}
	return low, high, nil
}

// claimedIDs is a run of ids that a message of any group names.
type claimedIDs struct {
	low, high int64 // [low, high)
	ours      bool
	key       tallyKey
	// recipients is set on a message's first run only.
	recipients int64
	odd        bool // the outcome says that there are no rows
	restaurant *string
	campaign   *string
	now        *int64
}

// rowMerge walks through the runs of ids and the rows at the same time.
type rowMerge struct {
	v     *verifier
	side  *tallySide
	print *fingerprint
	extra chan<- Difference

	runs pgx.Rows
	next claimedIDs // the run that was read last, if there are more
	more bool
	open []claimedIDs // the runs that the next row may belong to, in order: one, unless ids were given out again

	envelopes envelopes
	alien     bool // the rows' envelope is not of the message of
	of        tallyKey
	value     []byte
	guesses   int // how often the message of an extra row was looked for
}

func (m *rowMerge) run(ctx context.Context, low, high int64) error {
	var err error
	m.runs, err = m.v.db.ranges.Query(ctx, `
		SELECT lower(r), upper(r), t.consumer_group = $1 AND t.topic = $2, t.partition, t.record_offset,
			CASE WHEN n = 1 THEN t.recipients ELSE 0 END, t.outcome <> 'delivered', t.restaurant_id, t.adv_campaign_id, t.trigger_datetime_created
		FROM tiffin.trigger t, unnest(t.feedback_ids) WITH ORDINALITY AS u(r, n)
		WHERE upper(r) > $3 AND lower(r) < $4 ORDER BY lower(r), upper(r)`, m.v.Kafka.Group, m.v.Kafka.Input, low, high)
	if err != nil {
		return fmt.Errorf("read the manifest: %w", err)
	}
	defer m.runs.Close()
	if err := m.nextRun(); err != nil {
		return err
	}
	err = eachRow(ctx, m.v.db.rows, m.v.db.table, low, high-1, func(r row) error {
		m.v.Progress.rows.Store(r.id - low)
		return m.add(ctx, &r)
	})
	for err == nil && m.more {
		err = m.nextRun() // the rest wants rows too
	}
	return err
}

// nextRun reads on; a message's recipients are wanted as soon as it is known.
func (m *rowMerge) nextRun() error {
	if m.more = m.runs.Next(); !m.more {
		if err := m.runs.Err(); err != nil {
			return fmt.Errorf("read the manifest: %w", err)
		}
		return nil
	}
	c := &m.next
	if err := m.runs.Scan(&c.low, &c.high, &c.ours, &c.key.partition, &c.key.offset, &c.recipients, &c.odd,
		&c.restaurant, &c.campaign, &c.now); err != nil {
		return fmt.Errorf("read the manifest: %w", err)
	}
	c.ours = c.ours && m.v.inScope(c.key.partition, c.key.offset)
	return m.want(c)
}

// want enters what a run asks for, whatever rows there are.
func (m *rowMerge) want(c *claimedIDs) error {
	if !c.ours || c.recipients == 0 && !c.odd {
		return nil
	}
	sum, err := m.side.of(c.key)
	sum.want += c.recipients
	if c.odd {
		sum.alien++
	}
	return err
}

func (m *rowMerge) add(ctx context.Context, r *row) error {
	for m.more && m.next.low <= r.id {
		m.open = append(m.open, m.next)
		if err := m.nextRun(); err != nil {
			return err
		}
	}
	m.open = slices.DeleteFunc(m.open, func(c claimedIDs) bool { return c.high <= r.id })
	c, err := m.owner(r)
	switch {
	case err != nil:
		return err
	case c == nil:
		return m.unclaimed(ctx, r)
	case !c.ours:
		return nil
	}
	m.v.found.Rows++
	fresh := m.envelopes.of(r)
	if fresh || m.of != c.key {
		m.of, m.alien = c.key, !c.tells(r)
	}
	m.value = m.envelopes.env.appendValue(m.value[:0], r.client)
	a, b := m.print.of(notNil(r.client), m.value)
	sum, err := m.side.of(c.key)
	sum.rows++
	sum.a += a
	sum.b += b
	if m.alien {
		sum.alien++
	}
	return err
}

// owner is the run that a row belongs to; nil for none. Where ids were given out again (TRUNCATE … RESTART IDENTITY, a
// table put in the place of another) the manifest of the rows before names them too: the row tells whose it is.
func (m *rowMerge) owner(r *row) (*claimedIDs, error) {
	if len(m.open) == 0 {
		return nil, nil
	}
	last := &m.open[len(m.open)-1]
	if len(m.open) == 1 {
		return last, nil
	}
	var told []*claimedIDs
	for i := range m.open {
		if m.open[i].tells(r) {
			told = append(told, &m.open[i])
		}
	}
	switch len(told) {
	case 0:
		return last, nil
	case 1:
		return told[0], nil
	}
	for _, c := range told {
		if !c.ours {
			continue
		}
		sum, err := m.side.of(c.key)
		if sum.overlaps++; err != nil {
			return nil, err
		}
	}
	return told[0], nil
}

// tells reports whether a row tells what the manifest of the run's message does.
func (c *claimedIDs) tells(r *row) bool { return isOf(r, c.restaurant, c.campaign, c.now) }

// guessLimit bounds how many extra rows' messages are looked for: each look reads the manifest.
const guessLimit = 100

// unclaimed tells a row that no message names. Its content may say which one it imitates.
func (m *rowMerge) unclaimed(ctx context.Context, r *row) error {
	c, now := r.campaign()
	client := string(r.client)
	d := Difference{
		Kind: ExtraRow, Client: &client, Row: r.id,
		Text: fmt.Sprintf("row %d (restaurant %q, campaign %q) belongs to no campaign message that the manifest knows", r.id, shorten(c.RestaurantID), shorten(c.ID)),
	}
	if m.guesses < guessLimit {
		m.guesses++
		var key tallyKey
		err := m.v.db.ask.QueryRow(ctx, `SELECT partition, record_offset FROM tiffin.trigger WHERE consumer_group = $1 AND topic = $2
			AND restaurant_id = $3 AND adv_campaign_id = $4 AND trigger_datetime_created = $5 ORDER BY partition, record_offset LIMIT 1`,
			m.v.Kafka.Group, m.v.Kafka.Input, c.RestaurantID, c.ID, now).Scan(&key.partition, &key.offset)
		if err == nil {
			d.Trigger = key.trigger(m.v.Kafka.Input)
			d.Text += ", though it looks like those of this one"
		} else if ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
	return send(ctx, m.extra, d)
}

// isOf reports whether a row tells the restaurant, campaign and time of a message's manifest.
func isOf(r *row, restaurant, campaign *string, now *int64) bool {
	same := func(text *string, value []byte) bool { return text != nil && *text == string(value) }
	return same(restaurant, r.shared[0]) && same(campaign, r.shared[1]) &&
		now != nil && *now == int64(binary.BigEndian.Uint64(r.shared[sharedColumns-1]))
}

// envelopes keeps the envelope of the row before: rows of a message share it.
type envelopes struct {
	made [sharedColumns][]byte
	env  envelope
}

// of readies env for a row; fresh says that it is not that of the row before.
func (e *envelopes) of(r *row) (fresh bool) {
	if e.env.head != nil {
		same := true
		for i := range e.made {
			same = same && bytes.Equal(e.made[i], r.shared[i])
		}
		if same {
			return false
		}
	}
	for i, value := range r.shared {
		e.made[i] = append(e.made[i][:0], value...)
	}
	c, now := r.campaign()
	e.env = newEnvelope(&c, now)
	return true
}

// notNil is what a delivery's key is: empty, never null.
func notNil(client []byte) []byte {
	if client == nil {
		return []byte{}
	}
	return client
}

// querier is a connection or a pool.
type querier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
}

// eachRow streams the feedback rows with ids from first to last, ascending.
func eachRow(ctx context.Context, db querier, table string, first, last int64, each func(row) error) error {
	rows, err := db.Query(ctx, `SELECT id::int8, restaurant_id::text, adv_campaign_id::text, adv_campaign_content::text,
			adv_campaign_owner::text, adv_campaign_owner_contact::text, adv_campaign_datetime_start::int8,
			adv_campaign_datetime_end::int8, datetime_created::int8, trigger_datetime_created::int8, client_id::text
		FROM `+table+` WHERE id >= $1 AND id <= $2 ORDER BY id`,
		pgx.QueryResultFormats{pgtype.BinaryFormatCode}, first, last)
	if err != nil {
		return fmt.Errorf("read feedback rows %d to %d: %w", first, last, err)
	}
	defer rows.Close()
	for rows.Next() {
		values := rows.RawValues()
		r := row{id: int64(binary.BigEndian.Uint64(values[0])), client: values[sharedColumns+1]}
		copy(r.shared[:], values[1:])
		if slices.ContainsFunc(values, func(v []byte) bool { return v == nil }) {
			return fmt.Errorf("feedback row %d: a column of the contract is NULL: somebody changed it", r.id)
		}
		if err := each(r); err != nil {
			return err
		}
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("read feedback rows %d to %d: %w", first, last, err)
	}
	return nil
}
