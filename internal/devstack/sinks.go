package devstack

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// AddTable adds every row of the feedback table to f.
func (f *Fingerprint) AddTable(ctx context.Context, conn *pgx.Conn, table pgx.Identifier) error {
	return EachRow(ctx, conn, table, func(d Delivery) error { f.Add(d); return nil })
}

// EachRow calls do with every row of a feedback table, in no order, and returns its first error. The
// rows are streamed.
func EachRow(ctx context.Context, conn *pgx.Conn, table pgx.Identifier, do func(Delivery) error) error {
	const columns = `restaurant_id, adv_campaign_id, adv_campaign_content, adv_campaign_owner, adv_campaign_owner_contact,
		adv_campaign_datetime_start, adv_campaign_datetime_end, datetime_created, client_id, trigger_datetime_created`
	rows, err := conn.Query(ctx, "SELECT "+columns+" FROM "+table.Sanitize())
	if err != nil {
		return fmt.Errorf("read %s: %w", table.Sanitize(), err)
	}
	var d Delivery
	into := []any{&d.Restaurant, &d.CampaignID, &d.Content, &d.Owner, &d.OwnerContact, &d.Start, &d.End, &d.Created, &d.Client, &d.Trigger}
	if _, err := pgx.ForEachRow(rows, into, func() error { return do(d) }); err != nil {
		return fmt.Errorf("read %s: %w", table.Sanitize(), err)
	}
	return nil
}

// AddTopic adds every committed record that the topic holds now to f. It reads up to the last stable
// offset: an open transaction's records are not there yet.
func (f *Fingerprint) AddTopic(ctx context.Context, brokers []string, topic string) error {
	return EachCommitted(ctx, brokers, topic, func(r *kgo.Record) error {
		d, err := ParseDelivery(r.Value)
		if err != nil {
			return err
		}
		f.Add(d)
		return nil
	})
}

// EachCommitted calls do with every committed record that a topic of a plaintext broker holds now,
// also those whose commit was answered just now, partition by partition in any order, and returns
// its first error.
func EachCommitted(ctx context.Context, brokers []string, topic string, do func(*kgo.Record) error) error {
	client, err := kgo.NewClient(
		kgo.SeedBrokers(brokers...), kgo.ConsumeTopics(topic),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.KeepControlRecords(), // the last offset of a partition is usually a transaction's marker
	)
	if err != nil {
		return fmt.Errorf("read topic %s: %w", topic, err)
	}
	defer client.Close()
	left, err := unread(ctx, client, topic)
	if err != nil {
		return fmt.Errorf("read topic %s: %w", topic, err)
	}
	for len(left) > 0 {
		fetches := client.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			return fmt.Errorf("read topic %s: %w", topic, err)
		}
		for iter := fetches.RecordIter(); !iter.Done(); {
			r := iter.Next()
			end, open := left[r.Partition]
			if !open || r.Offset >= end {
				continue // came after the question
			}
			if r.Offset == end-1 {
				delete(left, r.Partition)
			}
			if r.Attrs.IsControl() {
				continue
			}
			if err := do(r); err != nil {
				return err
			}
		}
	}
	return nil
}

// stable is how long EachCommitted waits for transactions to end.
const stable = 10 * time.Second

// stableEnds are the last stable offsets. A broker answers a commit before it has written the markers
// that make it stable, so they are waited for; behind a transaction that stays open for longer
// nothing can be read.
func stableEnds(ctx context.Context, admin *kadm.Client, topic string) (kadm.ListedOffsets, error) {
	written, err := admin.ListEndOffsets(ctx, topic)
	if err == nil {
		err = written.Error()
	}
	if err != nil {
		return nil, err
	}
	again := time.NewTicker(5 * time.Millisecond)
	defer again.Stop()
	for patience := time.After(stable); ; {
		ends, err := admin.ListCommittedOffsets(ctx, topic)
		if err == nil {
			err = ends.Error()
		}
		if err != nil {
			return nil, err
		}
		open := false
		written.Each(func(w kadm.ListedOffset) {
			end, ok := ends.Lookup(topic, w.Partition)
			open = open || !ok || end.Offset < w.Offset
		})
		if !open {
			return ends, nil
		}
		select {
		case <-again.C:
		case <-patience:
			return ends, nil
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// unread is the last stable offset of every partition that is not empty.
func unread(ctx context.Context, client *kgo.Client, topic string) (map[int32]int64, error) {
	admin := kadm.NewClient(client)
	starts, err := admin.ListStartOffsets(ctx, topic)
	if err != nil {
		return nil, err
	}
	ends, err := stableEnds(ctx, admin, topic)
	if err != nil {
		return nil, err
	}
	left := map[int32]int64{}
	ends.Each(func(end kadm.ListedOffset) {
		if start, ok := starts.Lookup(topic, end.Partition); !ok || start.Offset < end.Offset {
			left[end.Partition] = end.Offset
		}
	})
	return left, nil
}
