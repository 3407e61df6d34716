package soak

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"strconv"

	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kgo"

	"example.com/tiffin/internal/devstack"
)

// place is where a campaign message lies in the input topic.
type place struct {
	partition int32
	offset    int64
}

func (p place) String() string { return fmt.Sprintf("%s/%d/%d", inputTopic, p.partition, p.offset) }

// message is one campaign message of the input topic and everything that became of it.
type message struct {
	*publication
	number int // of the publication

	handled    bool // the manifest has it
	outcome    string
	now        int64 // time of the join, Unix seconds
	fence      uint64
	began      int64 // of the transaction that wrote it, Unix microseconds
	recipients int64

	head, tail []byte // of its records' values, around the client id
	rows       []string
	records    []string
	letters    int
}

// evidence is everything that the topics and the databases hold in the end.
type evidence struct {
	messages map[place]*message
	ids      []idRange // of rows, as the manifest names them
	verdict  *verdict
}

// idRange are the rows [first, last] of one message.
type idRange struct {
	first, last int64
	message     *message
}

// readInput finds every publication in the input topic.
func (e *evidence) readInput(ctx context.Context, brokers []string, sent []*publication) error {
	found := make([]int, len(sent))
	err := devstack.EachCommitted(ctx, brokers, inputTopic, func(r *kgo.Record) error {
		n, err := strconv.Atoi(string(r.Key))
		if err != nil || n >= len(sent) {
			return fmt.Errorf("input record with the unknown key %q", r.Key)
		}
		found[n]++
		e.messages[place{r.Partition, r.Offset}] = &message{publication: sent[n], number: n}
		return nil
	})
	if err != nil {
		return err
	}
	for n, times := range found {
		if times > 1 || times == 0 && sent[n].acked {
			return fmt.Errorf("campaign %d (acknowledged: %t) is %d times in the input topic: this Kafka cannot be trusted", n, sent[n].acked, times)
		}
	}
	return nil
}

// readManifest takes what the ledger says of every message.
func (e *evidence) readManifest(ctx context.Context, conn *pgx.Conn) error {
	rows, err := conn.Query(ctx, `SELECT partition, record_offset, outcome, coalesce(trigger_datetime_created, 0), coalesce(fence_lsn::text, ''), stale,
		recipients, (extract(epoch FROM handled_at) * 1000000)::bigint,
		coalesce((SELECT array_agg(lower(r) ORDER BY r) FROM unnest(feedback_ids) r), '{}'),
		coalesce((SELECT array_agg(upper(r) - 1 ORDER BY r) FROM unnest(feedback_ids) r), '{}')
		FROM tiffin.trigger WHERE consumer_group = $1 AND topic = $2`, group, inputTopic)
	if err != nil {
		return fmt.Errorf("read the manifest: %w", err)
	}
	var at place
	var m message
	var fence string
	var stale bool
	var firsts, lasts []int64
	_, err = pgx.ForEachRow(rows, []any{&at.partition, &at.offset, &m.outcome, &m.now, &fence, &stale, &m.recipients, &m.began, &firsts, &lasts}, func() error {
		known := e.messages[at]
		if known == nil {
			e.verdict.differ("the manifest has %v, which is not in the input topic", at)
			return nil
		}
		known.handled, known.outcome, known.now, known.recipients, known.began = true, m.outcome, m.now, m.recipients, m.began
		if stale {
			e.verdict.stale("%v is marked stale", at)
		}
		if fence != "" {
			if known.fence, err = parseLSN(fence); err != nil {
				return err
			}
		}
		for i := range firsts {
			e.ids = append(e.ids, idRange{firsts[i], lasts[i], known})
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("read the manifest: %w", err)
	}
	return nil
}

// readRows holds every row of the feedback table against the message that the manifest names.
func (e *evidence) readRows(ctx context.Context, conn *pgx.Conn) error {
	rows, err := conn.Query(ctx, `SELECT id::bigint, restaurant_id, adv_campaign_id, adv_campaign_content, adv_campaign_owner, adv_campaign_owner_contact,
		adv_campaign_datetime_start, adv_campaign_datetime_end, datetime_created, client_id, trigger_datetime_created, feedback
		FROM subscribers_feedback ORDER BY id`)
	if err != nil {
		return fmt.Errorf("read the feedback table: %w", err)
	}
	var id, now int64
	var f fields
	var client, feedback string
	next := 0
	_, err = pgx.ForEachRow(rows, []any{
		&id, &f.Restaurant, &f.ID, &f.Content, &f.Owner, &f.OwnerContact, &f.Start, &f.End, &f.Created, &client, &now, &feedback,
	}, func() error {
		for next < len(e.ids) && e.ids[next].last < id {
			next++
		}
		if next == len(e.ids) || id < e.ids[next].first {
			e.verdict.twice("row %d (campaign %s, client %q) belongs to no message of the manifest", id, f.ID, client)
			return nil
		}
		m := e.ids[next].message
		if f != m.fields || now != m.now || feedback != "" && feedback != seen {
			e.verdict.differ("row %d is not what message %d must give: %+v, client %q, time %d, feedback %q", id, m.number, f, client, now, feedback)
		}
		m.rows = append(m.rows, client)
		return nil
	})
	if err != nil {
		return fmt.Errorf("read the feedback table: %w", err)
	}
	return nil
}

// readRecords holds every record of the output topic against the message that its header names, and
// the order of each client's.
func (e *evidence) readRecords(ctx context.Context, brokers []string) error {
	type lane struct {
		client string
		from   int32 // partition of the input
	}
	last := map[lane]int64{}
	home := map[string]int32{}
	return devstack.EachCommitted(ctx, brokers, outputTopic, func(r *kgo.Record) error {
		at, m := e.cause(r)
		if m == nil {
			return nil
		}
		client := string(r.Key)
		m.records = append(m.records, client)
		if want := m.record(client); !bytes.Equal(r.Value, want) {
			e.verdict.differ("record %d/%d of %v is %.600q, want %.600q", r.Partition, r.Offset, at, r.Value, want)
		}
		if before, ok := last[lane{client, at.partition}]; ok && before > at.offset {
			e.verdict.order("client %q got %v after offset %d (record %d/%d)", client, at, before, r.Partition, r.Offset)
		}
		last[lane{client, at.partition}] = at.offset
		if p, ok := home[client]; ok && p != r.Partition {
			e.verdict.order("client %q has records in the output partitions %d and %d", client, p, r.Partition)
		}
		home[client] = r.Partition
		return nil
	})
}

// cause is the message that a record or dead letter says it comes from; nil for none.
func (e *evidence) cause(r *kgo.Record) (place, *message) {
	said := header(r, "trigger")
	at, ok := parsePlace(said)
	m := e.messages[at]
	if !ok || m == nil {
		e.verdict.twice("%s/%d/%d has the trigger %q, which is no campaign message", r.Topic, r.Partition, r.Offset, said)
		return at, nil
	}
	return at, m
}

// record is the value that the message gives for a client.
func (m *message) record(client string) []byte {
	if m.head == nil {
		value := m.json()
		m.head = append(bytes.Clone(value[:len(value)-1]), `,"client_id":`...)
		m.tail = fmt.Appendf(nil, `,"trigger_datetime_created":%d}`, m.now)
	}
	var quoted bytes.Buffer
	encoder := json.NewEncoder(&quoted)
	encoder.SetEscapeHTML(false)
	_ = encoder.Encode(client) // a string: cannot fail
	return append(append(bytes.Clone(m.head), bytes.TrimSuffix(quoted.Bytes(), []byte("\n"))...), m.tail...)
}

// readLetters holds every dead letter against the message that it names.
func (e *evidence) readLetters(ctx context.Context, brokers []string) error {
	return devstack.EachCommitted(ctx, brokers, deadLetterTopic, func(r *kgo.Record) error {
		at, m := e.cause(r)
		if m == nil {
			return nil
		}
		m.letters++
		same := (r.Value == nil) == (m.value == nil) && bytes.Equal(r.Value, m.value) && string(r.Key) == strconv.Itoa(m.number)
		if !same || header(r, "reason") == "" || header(r, "error") == "" {
			e.verdict.differ("the dead letter of %v is %q=%.300q %v, want %.300q", at, r.Key, r.Value, r.Headers, m.value)
		}
		return nil
	})
}

func header(r *kgo.Record, key string) string {
	for _, h := range r.Headers {
		if h.Key == key {
			return string(h.Value)
		}
	}
	return ""
}

func parsePlace(trigger string) (place, bool) {
	var at place
	n, err := fmt.Sscanf(trigger, inputTopic+"/%d/%d", &at.partition, &at.offset)
	return at, err == nil && n == 2 && at.String() == trigger
}
