package work

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kgo"

	"example.com/tiffin/cmd/bench/internal/testbed"
	"example.com/tiffin/migrations"
)

// Least is the limit with what the interface asks of tiffin besides: it reads the campaigns' topic, without a look into
// a message, and writes a row of the manifest a message, in the transaction of its rows. Still no join, no fence, no
// ledger, no offsets: of programs that keep a manifest none can be expected to be quicker. The campaigns are published.
func Least(ctx context.Context, w *Workload, lane *testbed.Lane, campaigns int, form LimitForm) (time.Duration, error) {
	plan, err := planLimit(w, lane, campaigns, false)
	if err != nil {
		return 0, err
	}
	if err := migrateLane(ctx, lane); err != nil {
		return 0, err
	}
	plan.encodeManifest(w, lane)
	input, err := inputOf(lane)
	if err != nil {
		return 0, err
	}
	defer input.Close()
	return plan.timed(ctx, lane, form, func(ctx context.Context) error {
		return readCampaigns(ctx, input, campaigns, func(*kgo.Record) {})
	})
}

// inputOf reads the campaigns' topic from its start.
func inputOf(lane *testbed.Lane) (*kgo.Client, error) {
	input, err := kgo.NewClient(kgo.SeedBrokers(lane.Brokers...), kgo.ConsumeTopics(lane.Input), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	if err != nil {
		return nil, fmt.Errorf("read the campaigns: %w", err)
	}
	return input, nil
}

// readCampaigns returns when so many messages have been read.
func readCampaigns(ctx context.Context, input *kgo.Client, campaigns int, each func(*kgo.Record)) error {
	for read := 0; read < campaigns; {
		fetches := input.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			return fmt.Errorf("read the campaigns: %w", err)
		}
		fetches.EachRecord(each)
		read += fetches.NumRecords()
	}
	return nil
}

// migrateLane makes the manifest's table as tiffin does.
func migrateLane(ctx context.Context, lane *testbed.Lane) error {
	conn, err := pgx.Connect(ctx, lane.FeedbackDSN)
	if err != nil {
		return fmt.Errorf("connect for the manifest: %w", err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	if _, err := migrations.Migrate(ctx, conn, migrations.Options{FeedbackTable: pgx.Identifier{"public", "subscribers_feedback"}}); err != nil {
		return fmt.Errorf("make the manifest: %w", err)
	}
	return nil
}

const manifestOfLeast = `COPY tiffin.trigger (partition, record_offset, consumer_group, topic, outcome, restaurant_id, adv_campaign_id,
	trigger_datetime_created, fence_lsn, recipients, feedback_ids) FROM STDIN (FORMAT binary)`

// encodeManifest encodes each campaign's row in COPY's binary format. Its ids are as long as the true ones, and no more.
func (p *limitPlan) encodeManifest(w *Workload, lane *testbed.Lane) {
	p.manifest = make([][]byte, len(p.heads))
	for n := range p.manifest {
		c := w.Campaign(n)
		row := binary.BigEndian.AppendUint16(nil, 11)
		row = binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(row, 4), uint32(n%w.Partitions))
		row = appendNumber(row, int64(n/w.Partitions))
		for _, text := range []string{lane.Group, lane.Input, "delivered", c.Restaurant, c.ID} {
			row = appendText(row, text)
		}
		row = appendNumber(appendNumber(appendNumber(row, p.trigger), 1<<32), int64(p.fanout(n)))
		p.manifest[n] = appendRange(row, int64(p.starts[n]), int64(p.starts[n+1]))
	}
}

// appendRange is an int8multirange of one range, from included, to not: multirange_recv and range_recv in
// src/backend/utils/adt.
func appendRange(row []byte, from, to int64) []byte {
	const lowerIncluded = 0x02                                           // RANGE_LB_INC, rangetypes.h
	for _, word := range []uint32{4 + 4 + 1 + 2*(4+8), 1, 1 + 2*(4+8)} { // its length, ranges, the length of one
		row = binary.BigEndian.AppendUint32(row, word)
	}
	return appendNumber(appendNumber(append(row, lowerIncluded), from), to)
}

// insertWithManifest is insert with the manifest's rows in the same transaction.
func (w *limitWriter) insertWithManifest(ctx context.Context, b span) error {
	if _, err := w.conn.Exec(ctx, "BEGIN").ReadAll(); err != nil {
		return fmt.Errorf("begin: %w", err)
	}
	if err := w.insertRows(ctx, b); err != nil {
		return err
	}
	rows := []byte(copyBegins)
	for n := b.from; n < b.to && b.first == 0; n++ { // a campaign that is cut has one row
		rows = append(rows, w.plan.manifest[n]...)
	}
	rows = binary.BigEndian.AppendUint16(rows, copyEnds)
	if _, err := w.conn.CopyFrom(ctx, bytes.NewReader(rows), manifestOfLeast); err != nil {
		return fmt.Errorf("the manifest: %w", err)
	}
	if _, err := w.conn.Exec(ctx, "COMMIT").ReadAll(); err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	return nil
}
