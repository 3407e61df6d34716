package work

import (
	"context"
	"fmt"
	"hash/maphash"
	"iter"

	"github.com/dustin/go-humanize"
	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kgo"

	"example.com/tiffin/cmd/bench/internal/harness"
	"example.com/tiffin/cmd/bench/internal/testbed"
	"example.com/tiffin/internal/devstack"
)

// content is what a sink holds: as it is, and with the trigger times blanked, to be compared with
// what was expected without knowing when it would happen.
type content struct{ exact, timeless devstack.Fingerprint }

func (c *content) add(d devstack.Delivery) {
	c.exact.Add(d)
	d.Trigger = 0
	c.timeless.Add(d)
}

// each calls do with every delivery of a sink, or of what was expected, and returns its first error.
type each func(do func(devstack.Delivery) error) error

// Verify reads both sinks of a lane to their ends and compares them with each other and, row for
// row, with what these campaigns have to lead to. The verdict's Case and Who are the caller's.
func Verify(ctx context.Context, w *Workload, lane *testbed.Lane, campaigns iter.Seq[int]) (harness.Verdict, error) {
	conn, err := pgx.Connect(ctx, lane.FeedbackDSN)
	if err != nil {
		return harness.Verdict{}, fmt.Errorf("read the feedback table: %w", err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	rows := func(do func(devstack.Delivery) error) error {
		return devstack.EachRow(ctx, conn, pgx.Identifier{"public", "subscribers_feedback"}, do)
	}
	records := func(do func(devstack.Delivery) error) error {
		return devstack.EachCommitted(ctx, lane.Brokers, lane.Output, func(r *kgo.Record) error {
			d, err := deliveryOf(r)
			if err != nil {
				return err
			}
			return do(d)
		})
	}
	return judge(w.expected(campaigns), rows, records)
}

// deliveryOf is what a record says. Under another key than its client's it is another one.
func deliveryOf(r *kgo.Record) (devstack.Delivery, error) {
	d, err := devstack.ParseDelivery(r.Value)
	if string(r.Key) != d.Client {
		d.Client += " under the key " + string(r.Key)
	}
	return d, err
}

// UpTo are the campaigns from 0 up to n, that excluded.
func UpTo(n int) iter.Seq[int] {
	return func(yield func(int) bool) {
		for i := range n {
			if !yield(i) {
				return
			}
		}
	}
}

func (w *Workload) expected(campaigns iter.Seq[int]) each {
	return func(do func(devstack.Delivery) error) error {
		for n := range campaigns {
			campaign := w.Campaign(n)
			for _, client := range w.Recipients(n) {
				if err := do(campaign.Delivery(client, 0)); err != nil {
					return err
				}
			}
		}
		return nil
	}
}

// judge sees also that a campaign has one trigger time. Each sink is read once, and nothing but a
// number a campaign is kept, unless something is wrong.
func judge(expected, rows, records each) (harness.Verdict, error) {
	var want content
	want.exact = devstack.NewFingerprint()
	want.timeless = want.exact
	table, topic := want, want
	if err := expected(func(d devstack.Delivery) error { want.add(d); return nil }); err != nil {
		return harness.Verdict{}, err
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
		return harness.Verdict{}, err
	}
	if err := records(func(d devstack.Delivery) error { topic.add(d); return nil }); err != nil {
		return harness.Verdict{}, err
	}
	comma := humanize.Comma
	if table.timeless.Equal(want.timeless) && table.exact.Equal(topic.exact) && mixed == 0 {
		return harness.Verdict{Exact: true, Text: fmt.Sprintf("equal, and exactly as expected: %s rows, %s records", comma(table.exact.Count), comma(topic.exact.Count))}, nil
	}
	inTable, err := compare(expected, rows)
	if err != nil {
		return harness.Verdict{}, err
	}
	inTopic, err := compare(expected, records)
	if err != nil {
		return harness.Verdict{}, err
	}
	return harness.Verdict{Text: fmt.Sprintf("DIFFER: expected %s deliveries; %s rows (%s), %s records (%s); equal to each other: %t; rows with another trigger time than their campaign: %s",
		comma(want.exact.Count), comma(table.exact.Count), inTable, comma(topic.exact.Count), inTopic, table.exact.Equal(topic.exact), comma(int64(mixed)))}, nil
}

// difference is between a sink and what was expected of it, trigger times apart.
type difference struct{ missing, extra int64 }

func (d difference) String() string {
	return fmt.Sprintf("%s missing, %s too many", humanize.Comma(d.missing), humanize.Comma(d.extra))
}

// compare keeps a number of 8 bytes for every delivery.
func compare(expected, sink each) (d difference, err error) {
	seed := maphash.MakeSeed()
	balance := map[uint64]int32{}
	count := func(by int32) func(devstack.Delivery) error {
		return func(d devstack.Delivery) error {
			d.Trigger = 0
			balance[maphash.Comparable(seed, d)] += by
			return nil
		}
	}
	if err := expected(count(1)); err != nil {
		return d, err
	}
	if err := sink(count(-1)); err != nil {
		return d, err
	}
	for _, n := range balance {
		d.missing += int64(max(n, 0))
		d.extra += int64(max(-n, 0))
	}
	return d, nil
}
