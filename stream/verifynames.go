package stream

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"hash/maphash"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// suspect is a message in which the sides differ, with its manifest.
type suspect struct {
	key   tallyKey
	sums  sums
	known bool // to the manifest

	outcome              Outcome
	recipients           int64
	ids                  idRanges
	restaurant, campaign *string
	now                  *int64
	reason               string

	found     int64    // rows
	gaps      idRanges // ids without a row, the first of them
	rowless   int64    // records without a row
	told      int64
	letters   []string // what the dead letters give as reason
	letterAts []string
}

// gapRuns is how many runs of missing ids are told one by one.
const gapRuns = 20

// nameDifferences reads the messages again in which the sides differ, a bounded number of
// deliveries at a time, and tells each difference.
func (v *verifier) nameDifferences(ctx context.Context) error {
	var some []*suspect
	weight := int64(0)
	flush := func() error {
		if len(some) == 0 {
			return nil
		}
		err := v.examine(ctx, some, weight)
		some, weight = nil, 0
		return err
	}
	err := v.tally.unbalanced(func(key tallyKey, s sums) error {
		if v.isGone(key, &s) {
			v.found.Gone += s.rows
			return nil
		}
		n := max(s.rows, s.want, s.records) + max(s.records, 0)
		if weight+n > int64(v.Memory) || len(some) >= v.Memory/8 {
			if err := flush(); err != nil {
				return err
			}
		}
		some = append(some, &suspect{key: key, sums: s})
		weight += n
		return nil
	})
	if err != nil {
		return err
	}
	return flush()
}

// isGone reports whether a message differs in nothing but records that retention may have
// removed, all of them.
func (v *verifier) isGone(key tallyKey, s *sums) bool {
	return s.records == 0 && s.rows == s.want && s.alien == 0 && s.overlaps == 0 && v.mayBeGone(key)
}

func (v *verifier) mayBeGone(key tallyKey) bool {
	span := v.spans[key.partition]
	switch {
	case span == nil:
		return false
	case key.letter:
		return key.offset <= span.lettersGone
	default:
		return key.offset <= span.goneBelow
	}
}

// examine tells every difference of some messages.
func (v *verifier) examine(ctx context.Context, some []*suspect, weight int64) error {
	slices.SortFunc(some, func(a, b *suspect) int {
		return cmp.Or(cmp.Compare(a.key.partition, b.key.partition), cmp.Compare(a.key.offset, b.key.offset))
	})
	v.Progress.pass()
	since, err := v.loadManifest(ctx, some)
	if err != nil {
		return err
	}
	if err := v.examineLetters(ctx, some, since); err != nil {
		return err
	}
	e := examination{v: v, some: some, at: map[tallyKey]int32{}}
	for i, s := range some {
		if !s.key.letter {
			e.at[s.key] = int32(i)
			e.topicToo = e.topicToo || s.sums.records != 0 || s.sums.rows != s.sums.want
		}
	}
	if len(e.at) == 0 {
		return nil
	}
	e.rounds = uint64(weight/int64(v.Memory) + 1)
	for e.round = 0; e.round < e.rounds; e.round++ {
		if err := e.run(ctx, since); err != nil {
			return err
		}
	}
	return e.tellRest()
}

// loadManifest fills in what the manifest says; since is when the first of the messages was
// handled, nil where one is not known.
func (v *verifier) loadManifest(ctx context.Context, some []*suspect) (since *time.Time, err error) {
	partitions, offsets := make([]int32, len(some)), make([]int64, len(some))
	for i, s := range some {
		partitions[i], offsets[i] = s.key.partition, s.key.offset
	}
	rows, err := v.db.ask.Query(ctx, `SELECT u.n - 1, t.outcome, t.recipients, coalesce(t.feedback_ids::text, '{}'), t.restaurant_id,
			t.adv_campaign_id, t.trigger_datetime_created, coalesce(t.reason, ''), t.handled_at
		FROM unnest($3::int4[], $4::int8[]) WITH ORDINALITY AS u(partition, record_offset, n)
		JOIN tiffin.trigger t ON t.consumer_group = $1 AND t.topic = $2 AND t.partition = u.partition AND t.record_offset = u.record_offset`,
		v.Kafka.Group, v.Kafka.Input, partitions, offsets)
	if err != nil {
		return nil, fmt.Errorf("read the manifest: %w", err)
	}
	defer rows.Close()
	n := 0
	for rows.Next() {
		var i int
		var at suspect
		var ids string
		var handled time.Time
		if err := rows.Scan(&i, &at.outcome, &at.recipients, &ids, &at.restaurant, &at.campaign, &at.now, &at.reason, &handled); err != nil {
			return nil, fmt.Errorf("read the manifest: %w", err)
		}
		at.key, at.sums, at.known = some[i].key, some[i].sums, true
		if at.ids, err = parseMultirange(ids); err != nil {
			return nil, fmt.Errorf("manifest of %s: %w", at.key.trigger(v.Kafka.Input), err)
		}
		*some[i] = at
		if n++; since == nil || handled.Before(*since) {
			since = &handled
		}
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("read the manifest: %w", err)
	}
	if n < len(some) {
		since = v.since
	}
	return since, nil
}

// again is the stretch for another pass: it ends where the first one ended.
func (v *verifier) again(ctx context.Context, s *stretch, since *time.Time) (*stretch, error) {
	fresh, err := v.stretchOf(ctx, s.topic, since)
	if err != nil {
		return nil, err
	}
	for n, p := range fresh.parts {
		p.end = 0
		if before := s.parts[n]; before != nil {
			p.end = before.end
			p.begin = max(p.begin, before.begin)
		}
	}
	return fresh, nil
}

// examination names the differences of some messages. The deliveries are divided into rounds
// by a hash of the client, so that what is in memory is bounded also when one message of
// millions of recipients differs.
type examination struct {
	v             *verifier
	some          []*suspect
	at            map[tallyKey]int32
	topicToo      bool
	round, rounds uint64

	found map[name]*sighting
}

// name is a delivery: one client of one message.
type name struct {
	suspect int32
	null    bool // a record without a key
	client  string
}

// sighting is what both sinks show of a delivery.
type sighting struct {
	row           int64 // the first
	rows          int64
	a, b          uint64 // of the first row
	same, others  int64  // records: as the row has it, and not
	record, other string // where one of each lies
	value         []byte // of other
	unequalRows   bool
}

func (e *examination) run(ctx context.Context, since *time.Time) error {
	e.found = map[name]*sighting{}
	if err := e.readRows(ctx); err != nil {
		return err
	}
	if e.topicToo {
		if err := e.readRecords(ctx, since); err != nil {
			return err
		}
	}
	names := make([]name, 0, len(e.found))
	for n := range e.found {
		names = append(names, n)
	}
	slices.SortFunc(names, func(a, b name) int {
		return cmp.Or(cmp.Compare(a.suspect, b.suspect), cmp.Compare(a.client, b.client))
	})
	for _, n := range names {
		if err := e.tell(ctx, n, e.found[n]); err != nil {
			return err
		}
	}
	return nil
}

// mine reports whether a client belongs to this round.
func (e *examination) mine(client []byte) bool {
	return e.rounds == 1 || maphash.Bytes(e.v.seeds[2], client)%e.rounds == e.round
}

func (e *examination) readRows(ctx context.Context) error {
	print, env := newFingerprint(e.v.seeds[0], e.v.seeds[1]), envelopes{}
	var value []byte
	for _, i := range e.indices() {
		s := e.some[i]
		for _, run := range s.ids {
			next := run.first
			err := eachRow(ctx, e.v.db.rows, e.v.db.table, run.first, run.last, func(r row) error {
				if s.sums.alien == 0 && !isOf(&r, s.restaurant, s.campaign, s.now) {
					return nil // another message's, which took over the id
				}
				if e.round == 0 {
					s.found++
					s.missed(next, r.id-1)
					next = r.id + 1
				}
				if !e.mine(r.client) {
					return nil
				}
				env.of(&r)
				value = env.env.appendValue(value[:0], r.client)
				a, b := print.of(notNil(r.client), value)
				at := e.sight(name{suspect: i, client: string(r.client)})
				if at.rows++; at.rows == 1 {
					at.row, at.a, at.b = r.id, a, b
				} else if a != at.a || b != at.b {
					at.unequalRows = true
				}
				return nil
			})
			if err != nil {
				return err
			}
			if e.round == 0 {
				s.missed(next, run.last)
			}
		}
	}
	return nil
}

func (e *examination) indices() []int32 {
	var list []int32
	for i, s := range e.some {
		if !s.key.letter {
			list = append(list, int32(i))
		}
	}
	return list
}

// missed keeps ids without a row.
func (s *suspect) missed(first, last int64) {
	if first <= last && len(s.gaps) < gapRuns {
		s.gaps.add(first, last)
	}
}

func (e *examination) sight(n name) *sighting {
	at := e.found[n]
	if at == nil {
		at = &sighting{}
		e.found[n] = at
	}
	return at
}

func (e *examination) readRecords(ctx context.Context, since *time.Time) error {
	s, err := e.v.again(ctx, e.v.output, since)
	if err != nil {
		return err
	}
	print := newFingerprint(e.v.seeds[0], e.v.seeds[1])
	names := triggerNames{prefix: []byte(e.v.Kafka.Input + "/")}
	return e.v.read(ctx, s, func(r *kgo.Record) error {
		partition, offset, ours := names.of(r)
		i, asked := e.at[tallyKey{partition: partition, offset: offset}]
		if !ours || !asked || !e.mine(r.Key) {
			return nil
		}
		at := e.sight(name{suspect: i, client: string(r.Key), null: r.Key == nil})
		where := triggerID(s.topic, r.Partition, r.Offset)
		if a, b := print.of(r.Key, r.Value); at.rows > 0 && a == at.a && b == at.b {
			at.same++
			at.record = where
			return nil
		}
		if at.others++; at.others == 1 {
			at.other, at.value = where, bytes.Clone(r.Value)
		}
		return nil
	})
}

// tell says what is wrong with one delivery, if anything is.
func (e *examination) tell(ctx context.Context, n name, at *sighting) error {
	s := e.some[n.suspect]
	d := Difference{Trigger: s.key.trigger(e.v.Kafka.Input), Client: &n.client, Row: at.row}
	switch {
	case at.rows == 0:
		s.rowless++
		d.Record, d.Times = at.other, at.others
		d.Kind, d.Text = s.withoutRow(at)
	case at.rows > 1:
		if at.same == at.rows && at.others == 0 && !at.unequalRows {
			return nil // both sinks say the same; the manifest's count tells
		}
		d.Kind = ExtraRow
		d.Text = fmt.Sprintf("%s of this client among the message's rows, the first with id %d, and %s", counted(at.rows, "row"), at.row, counted(at.same+at.others, "record"))
	case at.others > 0:
		d.Kind, d.Record, d.Times = DifferentRecord, at.other, at.same+at.others
		if err := e.describe(ctx, at, &d); err != nil {
			return err
		}
	case at.same == 0:
		if e.v.mayBeGone(s.key) {
			e.v.found.Gone++
			s.told++
			return nil
		}
		d.Kind, d.Text = MissingRecord, e.v.whyMissing(s, at.row)
	case at.same > 1:
		d.Kind, d.Record, d.Times = DuplicateRecord, at.record, at.same
		d.Text = fmt.Sprintf("%d records, byte for byte the same, one of them %s, for row %d", at.same, at.record, at.row)
		if e.v.Mode == AtLeastOnce {
			d.Text += "; in at_least_once mode a crash may leave that"
		}
	default:
		return nil
	}
	s.told++
	return e.v.say(d)
}

func (s *suspect) withoutRow(at *sighting) (DifferenceKind, string) {
	switch {
	case !s.known:
		return ExtraRecord, fmt.Sprintf("%s names a message that the ledger does not know", at.other)
	case len(s.gaps) > 0:
		return MissingRow, fmt.Sprintf("record %s is there, its row is not: rows of this message were deleted (ids %s)", at.other, s.gapText())
	default:
		return ExtraRecord, fmt.Sprintf("record %s is there, and the message has no row for it", at.other)
	}
}

// gapText lists the missing ids, both ends included.
func (s *suspect) gapText() string {
	var runs []string
	for _, g := range s.gaps {
		if g.first == g.last {
			runs = append(runs, fmt.Sprint(g.first))
		} else {
			runs = append(runs, fmt.Sprintf("%d-%d", g.first, g.last))
		}
	}
	if len(runs) == gapRuns {
		runs = append(runs, "…")
	}
	return strings.Join(runs, ", ")
}

func (v *verifier) whyMissing(s *suspect, row int64) string {
	if span := v.spans[s.key.partition]; span != nil && span.held >= 0 && s.key.offset >= span.held {
		return fmt.Sprintf("row %d is there, its record is not out yet: group %s stands at %d; `tiffin run` sends it", row, v.Kafka.Group, span.held)
	}
	return fmt.Sprintf("row %d is there, topic %s has no record of it", row, v.Kafka.Output)
}

// describe says in which fields the record differs from the row.
func (e *examination) describe(ctx context.Context, at *sighting, d *Difference) error {
	var want []byte
	err := eachRow(ctx, e.v.db.rows, e.v.db.table, at.row, at.row, func(r row) error {
		c, now := r.campaign()
		env := newEnvelope(&c, now)
		want = env.appendValue(nil, r.client)
		return nil
	})
	if err != nil {
		return err
	}
	d.Fields = differing(want, at.value)
	switch {
	case !json.Valid(at.value):
		d.Fields, d.Text = nil, fmt.Sprintf("the value of record %s is not JSON: %q", at.other, shorten(string(at.value)))
	case len(d.Fields) == 0:
		d.Text = fmt.Sprintf("record %s has the fields of row %d, but not the same bytes: order, spaces or escapes", at.other, at.row)
	default:
		d.Text = fmt.Sprintf("record %s and row %d differ in %s", at.other, at.row, strings.Join(d.Fields, ", "))
	}
	return nil
}

// differing names the fields of two JSON objects that are not the same, byte for byte.
func differing(want, got []byte) []string {
	var one, other map[string]json.RawMessage
	_, _ = json.Unmarshal(want, &one), json.Unmarshal(got, &other) // what is no object has no fields
	var fields []string
	for field, value := range one {
		if !bytes.Equal(value, other[field]) {
			fields = append(fields, field)
		}
	}
	for field := range other {
		if _, known := one[field]; !known {
			fields = append(fields, field)
		}
	}
	slices.Sort(fields)
	return fields
}

// tellRest says what is wrong with messages as a whole.
func (e *examination) tellRest() error {
	for _, i := range e.indices() {
		s := e.some[i]
		d := Difference{Trigger: s.key.trigger(e.v.Kafka.Input)}
		switch gone := s.ids.count() - s.found; {
		case !s.known:
			continue
		case s.ids.count() != s.recipients:
			d.Kind = WrongManifest
			d.Text = fmt.Sprintf("the manifest counts %s but names %s", counted(s.recipients, "recipient"), counted(s.ids.count(), "row"))
		case gone > s.rowless:
			d.Kind = MissingRow
			d.Text = fmt.Sprintf("%s of the message were deleted (ids %s); of %d of them there is no record either", counted(gone, "row"), s.gapText(), gone-s.rowless)
		case s.told > 0:
			continue
		case s.sums.overlaps > 0:
			d.Kind, d.Text = WrongManifest, "the manifest gives this message rows that it gives another one too"
		case s.outcome != Delivered && s.recipients > 0:
			d.Kind, d.Text = WrongManifest, fmt.Sprintf("the manifest says %s, and counts %s", s.outcome, counted(s.recipients, "recipient"))
		case s.sums.alien > 0:
			d.Kind, d.Text = WrongManifest, "restaurant, campaign or time of the manifest are not those of the message's rows"
		default:
			continue
		}
		if err := e.v.say(d); err != nil {
			return err
		}
	}
	return nil
}
