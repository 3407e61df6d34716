package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"example.com/tiffin/internal/devstack"
)

// waitHandled returns the moment at which the group's committed offsets are at the end of the input
// topic: they are committed in the Kafka transaction of the records, which follows that of the rows.
func waitHandled(ctx context.Context, s *servers, daemon *tiffin, progress func(done, of int64)) (time.Time, error) {
	client, err := kgo.NewClient(kgo.SeedBrokers(s.kafka.Brokers()...))
	if err != nil {
		return time.Time{}, fmt.Errorf("watch the group: %w", err)
	}
	defer client.Close()
	admin := kadm.NewClient(client)
	ends, err := admin.ListEndOffsets(ctx, inputTopic)
	if err != nil {
		return time.Time{}, fmt.Errorf("watch the group: %w", err)
	}
	var total int64
	ends.Each(func(end kadm.ListedOffset) { total += end.Offset })
	ticker := time.NewTicker(50 * time.Millisecond) // asking costs the broker time that is being measured
	defer ticker.Stop()
	for {
		var done int64
		if offsets, err := admin.FetchOffsets(ctx, group); err == nil { // an answer that fails is asked for again
			offsets.Each(func(o kadm.OffsetResponse) { done += max(o.At, 0) })
		}
		if done >= total {
			return time.Now(), nil
		}
		progress(done, total)
		select {
		case <-daemon.exited:
			return time.Time{}, daemon.failure(errors.New("ended in the middle"))
		case <-ctx.Done():
			return time.Time{}, fmt.Errorf("wait for the backlog's end (%d of %d campaigns are handled): %w", done, total, ctx.Err())
		case <-ticker.C:
		}
	}
}

// content is what a sink holds: as it is, and with the trigger times blanked, to be compared with
// what was expected without knowing when it would happen.
type content struct{ exact, timeless devstack.Fingerprint }

func (c *content) add(d devstack.Delivery) {
	c.exact.Add(d)
	d.Trigger = 0
	c.timeless.Add(d)
}

// verify reads both sinks to their ends and judges them.
func verify(ctx context.Context, w *workload, s *servers) error {
	conn, err := pgx.Connect(ctx, s.feedback.DSN(feedbackDatabase))
	if err != nil {
		return fmt.Errorf("read the feedback table: %w", err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	rows := func(do func(devstack.Delivery) error) error {
		return devstack.EachRow(ctx, conn, pgx.Identifier{"public", "subscribers_feedback"}, do)
	}
	records := func(do func(devstack.Delivery) error) error {
		return devstack.EachCommitted(ctx, s.kafka.Brokers(), outputTopic, func(r *kgo.Record) error {
			d, err := devstack.ParseDelivery(r.Value)
			if err != nil {
				return err
			}
			return do(d)
		})
	}
	return judge(w, rows, records)
}

// judge compares the sinks with each other and with the workload, and sees that a campaign has one
// trigger time. Each sink is read once; nothing but a number a campaign is kept.
func judge(w *workload, rows, records func(func(devstack.Delivery) error) error) error {
	var expected content
	expected.exact = devstack.NewFingerprint()
	expected.timeless = expected.exact
	table, topic := expected, expected
	for n := range w.campaigns {
		campaign := w.campaign(n)
		for _, client := range w.recipients(n) {
			expected.add(campaign.Delivery(client, 0))
		}
	}
	times := map[string]int64{} // campaign id -> trigger time
	mixed := 0
	err := rows(func(d devstack.Delivery) error {
		if first, ok := times[d.CampaignID]; ok && first != d.Trigger {
			mixed++
		}
		times[d.CampaignID] = d.Trigger
		table.add(d)
		return nil
	})
	if err != nil {
		return err
	}
	if err := records(func(d devstack.Delivery) error { topic.add(d); return nil }); err != nil {
		return err
	}
	if table.timeless.Equal(expected.timeless) && table.exact.Equal(topic.exact) && mixed == 0 {
		return nil
	}
	return fmt.Errorf("%w: expected %d; %d rows, as expected: %t; %d records, as expected: %t; equal to each other: %t; rows with another trigger time than their campaign: %d",
		errDiffer, expected.exact.Count, table.exact.Count, table.timeless.Equal(expected.timeless),
		topic.exact.Count, topic.timeless.Equal(expected.timeless), table.exact.Equal(topic.exact), mixed)
}
