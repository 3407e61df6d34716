package work

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"example.com/tiffin/cmd/bench/internal/testbed"
)

// askEvery is rare: asking costs the servers time that is being measured. When a twentieth of the work is left, or the
// last campaigns, it is asked more often: half of askEvery is a hundredth of a backlog's time.
const (
	askEvery      = 50 * time.Millisecond
	askAtTheEnd   = 5 * time.Millisecond
	nearlyTheEnd  = 0.95 // of the work
	lastCampaigns = 2    // large ones may end at the same time
)

// partOf is how much of the work is done, from 0 to 1: with the last campaigns left nearlyTheEnd at least.
func partOf(campaigns, done int64) float64 {
	part := float64(done) / float64(campaigns)
	if done < campaigns && campaigns-done <= lastCampaigns {
		return max(part, nearlyTheEnd)
	}
	return part
}

// Ender is a process that is waited for as long as it runs.
type Ender interface {
	Exited() <-chan struct{}
	Ended(when string) error
}

// AwaitGroup returns the moment at which the lane's consumer group has committed so many campaigns.
// tiffin commits offsets in the Kafka transaction of the records, which follows that of the rows.
func AwaitGroup(ctx context.Context, lane *testbed.Lane, campaigns int, of Ender, progress func(done int64)) (time.Time, error) {
	client, err := kgo.NewClient(kgo.SeedBrokers(lane.Brokers...))
	if err != nil {
		return time.Time{}, fmt.Errorf("watch the group: %w", err)
	}
	defer client.Close()
	admin := kadm.NewClient(client)
	return await(ctx, of, func() (float64, error) {
		var done int64
		if offsets, err := admin.FetchOffsets(ctx, lane.Group); err == nil { // an answer that fails is asked for again
			offsets.Each(func(o kadm.OffsetResponse) { done += max(o.At, 0) })
		}
		progress(done)
		return partOf(int64(campaigns), done), nil
	})
}

// await asks which part of the work is done until that is all of it.
func await(ctx context.Context, of Ender, done func() (float64, error)) (time.Time, error) {
	for {
		part, err := done()
		if err != nil {
			return time.Time{}, err
		}
		if part >= 1 {
			return time.Now(), nil
		}
		again := askEvery
		if part >= nearlyTheEnd {
			again = askAtTheEnd
		}
		select {
		case <-of.Exited():
			return time.Time{}, of.Ended("in the middle of the work")
		case <-ctx.Done():
			return time.Time{}, fmt.Errorf("wait for the work's end: %w", ctx.Err())
		case <-time.After(again):
		}
	}
}

// For how long nothing may have changed in the sinks of a contender that does not say when it has done
// its work: soon if they have what is expected, later if they may still get it, and after a kill as
// long as a group may wait for its dead member (45 s by default) and more.
const (
	stillWithAll   = 3 * time.Second
	StillWithout   = 45 * time.Second
	StillAfterKill = 150 * time.Second
)

// AwaitSinks returns the moment of the last change in both sinks of a contender that commits no
// offsets to wait for. It looks at the topic's last stable offsets and at the table's ids, which
// costs the servers next to nothing, and waits until they rest. With less than the expected
// deliveries it gives up when nothing has changed for patience, and the oracle tells what is missing.
func AwaitSinks(ctx context.Context, lane *testbed.Lane, deliveries int, of Ender, patience time.Duration, progress func(done int64)) (time.Time, error) {
	client, err := kgo.NewClient(kgo.SeedBrokers(lane.Brokers...))
	if err != nil {
		return time.Time{}, fmt.Errorf("watch the output topic: %w", err)
	}
	defer client.Close()
	conn, err := pgx.Connect(ctx, lane.FeedbackDSN)
	if err != nil {
		return time.Time{}, fmt.Errorf("watch the feedback table: %w", err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	admin := kadm.NewClient(client)
	var records, rows int64
	changed := time.Now()
	_, err = await(ctx, of, func() (part float64, err error) {
		nowRecords, nowRows, err := sizes(ctx, admin, conn, lane.Output)
		if err != nil {
			return 0, err
		}
		if nowRecords != records || nowRows != rows {
			records, rows, changed = nowRecords, nowRows, time.Now()
		}
		progress(min(records, rows))
		still := patience
		if min(records, rows) >= int64(deliveries) {
			still = stillWithAll
		}
		if time.Since(changed) >= still {
			return 1, nil
		}
		return min(float64(min(records, rows))/float64(deliveries), nearlyTheEnd), nil
	})
	return changed, err
}

// AwaitDelivered waits until both sinks have so many more deliveries than they had, whoever wrote
// them, and returns when that was and how many they have then.
func AwaitDelivered(ctx context.Context, lane *testbed.Lane, had, more int64, of Ender) (at time.Time, has int64, err error) {
	client, err := kgo.NewClient(kgo.SeedBrokers(lane.Brokers...))
	if err != nil {
		return at, 0, fmt.Errorf("watch the output topic: %w", err)
	}
	defer client.Close()
	conn, err := pgx.Connect(ctx, lane.FeedbackDSN)
	if err != nil {
		return at, 0, fmt.Errorf("watch the feedback table: %w", err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	admin := kadm.NewClient(client)
	at, err = await(ctx, of, func() (float64, error) {
		records, rows, err := sizes(ctx, admin, conn, lane.Output)
		has = min(records, rows)
		return float64(has-had) / float64(more), err
	})
	return at, has, err
}

// sizes are upper bounds of what the sinks hold: a transaction's end takes an offset, a rolled back
// row an id.
func sizes(ctx context.Context, admin *kadm.Client, conn *pgx.Conn, topic string) (records, rows int64, err error) {
	ends, err := admin.ListCommittedOffsets(ctx, topic)
	if err := errors.Join(err, ends.Error()); err != nil {
		return 0, 0, fmt.Errorf("watch the output topic: %w", err)
	}
	ends.Each(func(end kadm.ListedOffset) { records += end.Offset })
	// Of committed rows, by the primary key: a lookup, not a scan.
	err = conn.QueryRow(ctx, "SELECT coalesce(max(id), 0) FROM subscribers_feedback").Scan(&rows)
	if err != nil {
		return 0, 0, fmt.Errorf("watch the feedback table: %w", err)
	}
	return records, rows, nil
}
