package stream_test

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"example.com/tiffin/cache"
)

// Messages that are polled one after the other while no writer is free share a batch: a backlog has full
// ones, however small the polls are.
func TestPollsShareABatchWhileNoWriterIsFree(t *testing.T) {
	t.Parallel()
	fan := map[string]int{"full": 20, "small": 3}
	r := newRig(t, 1, map[string][]string{"full": clients(fan["full"]), "small": clients(fan["small"])})
	r.cfg.MaxTransactionRecords = fan["full"]
	conn := r.db.Connect(t)
	release := r.holdCommits(conn)
	fence := &countedFence{}
	stop := r.member("one", r.index, fence)
	var want []delivery
	for i, restaurant := range []string{"full", "full", "small", "small", "small"} { // the first two take both writers
		m := campaign(restaurant, fmt.Sprint(i))
		r.publishAPoll(fence, m)
		for _, c := range clients(fan[restaurant]) {
			want = append(want, r.expect(m, 0, int64(i), c))
		}
	}
	release()
	r.eventually("all rows", func() bool { return r.rowCount() == len(want) })
	stop()
	r.wantBoth(want)
	// When the fifth poll's fence is raised the fourth is in the hand of who plans; the fifth may find a writer free.
	if got := strings.Join(r.batches(conn), " "); got != "0 1 2,3,4" && got != "0 1 2,3 4" {
		t.Errorf("batches of messages %s", got)
	}
}

// However long the database takes, and however little the messages deliver, what waits for it is bounded in bytes.
func TestBatchIsBoundedInBytes(t *testing.T) {
	t.Parallel()
	const size, fit = 900_000, 10 // the tenth is behind 8 MiB
	r := newRig(t, 1, map[string][]string{"full": clients(20)})
	r.cfg.MaxTransactionRecords = 20
	conn := r.db.Connect(t)
	release := r.holdCommits(conn)
	fence := &countedFence{}
	stop := r.member("one", r.index, fence)
	for i := range 2 {
		r.publishAPoll(fence, campaign("full", fmt.Sprint(i)))
	}
	over := campaign("full", "over")
	over.Start, over.End, over.Content = 1, 2, noise(size)
	for range fit + 1 {
		r.publishAPoll(fence, over)
	}
	for range 3 {
		r.publish(0, over.json(t))
	}
	release()
	r.eventually("all to be handled", func() bool { return r.groupOffset(0) == 2+fit+1+3 })
	stop()
	most := 0
	for _, batch := range r.batches(conn) {
		most = max(most, strings.Count(batch, ",")+1)
	}
	if most != fit {
		t.Errorf("%d messages of %d bytes are a batch, want %d", most, size, fit)
	}
}

// Where messages take long to be planned, and a writer is free, those that were planned go to it.
func TestPlannedMessagesDoNotWaitForLong(t *testing.T) {
	t.Parallel()
	const fan = 3
	r := newRig(t, 1, map[string][]string{"r": clients(fan)})
	if err := r.cfg.Prepare(t.Context(), r.db.Connect(t)); err != nil {
		t.Fatal(err)
	}
	var want []delivery
	var values [][]byte
	for i := range 3 {
		m := campaign("r", fmt.Sprint(i))
		values = append(values, m.json(t))
		for _, c := range clients(fan) {
			want = append(want, r.expect(m, 0, int64(i), c))
		}
	}
	r.publish(0, values...) // and all are polled at once
	index := &steppedIndex{Index: r.index, step: make(chan struct{})}
	stop := r.member("one", index, noFence{})
	index.step <- struct{}{}
	r.eventually("the second to be looked up", func() bool { return index.begun.Load() == 2 })
	planned := time.Now()
	r.eventually("the first to have waited for long enough", func() bool { return time.Since(planned) > 200*time.Millisecond })
	index.step <- struct{}{}
	r.eventually("two to be delivered while the third is looked up", func() bool { return r.rowCount() == 2*fan })
	close(index.step)
	r.eventually("all rows", func() bool { return r.rowCount() == len(want) })
	stop()
	r.wantBoth(want)
}

// steppedIndex looks up one restaurant a step.
type steppedIndex struct {
	*cache.Index
	begun atomic.Int32
	step  chan struct{}
}

func (i *steppedIndex) LookupReading(ctx context.Context, restaurant string, rows int) (*cache.Recipients, error) {
	i.begun.Add(1)
	select {
	case <-i.step:
		return i.Index.LookupReading(ctx, restaurant, rows)
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// publishAPoll publishes a message to the first partition, and waits until it is polled, alone.
func (r *rig) publishAPoll(fence *countedFence, m message) {
	r.t.Helper()
	before := fence.polls.Load()
	r.publish(0, m.json(r.t))
	r.eventually("a poll", func() bool { return fence.polls.Load() == before+1 })
}

// batches are the offsets of the messages that were stored in one transaction each, by the first of them.
func (r *rig) batches(conn *pgx.Conn) []string {
	r.t.Helper()
	rows, err := conn.Query(r.t.Context(), `SELECT string_agg(record_offset::text, ',' ORDER BY record_offset)
		FROM tiffin.trigger GROUP BY xmin::text ORDER BY min(record_offset)`)
	if err != nil {
		r.t.Fatal(err)
	}
	batches, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		r.t.Fatal(err)
	}
	return batches
}
