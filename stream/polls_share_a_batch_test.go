package stream_test

import (
	"context"
	"fmt"
	"testing"

	"example.com/tiffin/stream"
)

// Messages that are polled one after the other while no writer is free share a batch: a backlog has full
// ones, however small the polls are. A message that comes while a writer is free waits for no other.
func TestPollsShareABatchWhileNoWriterIsFree(t *testing.T) {
	t.Parallel()
	r := newRig(t, 1, map[string][]string{"large": clients(10), "small": clients(3)})
	conn := r.db.Connect(t)
	release := r.holdCommits(conn)
	cfg := r.cfg
	cfg.MaxTransactionRecords = 20
	fence := &countedFence{}
	e, err := stream.New(cfg, r.index, fence)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- e.Run(ctx) }()

	// Each comes in a poll of its own; the first two, of half a batch and more, take both writers.
	var want []delivery
	for i, restaurant := range []string{"large", "large", "small", "small", "small"} {
		m := campaign(restaurant, fmt.Sprint(i))
		offset := r.publish(0, m.json(t))
		n := map[string]int{"large": 10, "small": 3}[restaurant]
		for _, c := range clients(n) {
			want = append(want, r.expect(m, 0, offset, c))
		}
		r.eventuallyOr("poll "+fmt.Sprint(i), func() bool { return int(fence.polls.Load()) == i+1 }, func() string { return fmt.Sprint(e.Reasons()) })
	}
	release()
	r.eventually("all rows", func() bool { return r.rowCount() == len(want) })
	stop()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	r.wantBoth(want)
	var batches string
	if err := conn.QueryRow(t.Context(), `SELECT string_agg(offsets, ' ' ORDER BY offsets)
		FROM (SELECT string_agg(record_offset::text, ',' ORDER BY record_offset) AS offsets FROM tiffin.trigger GROUP BY xmin::text) AS batch`).Scan(&batches); err != nil {
		t.Fatal(err)
	}
	// When the fence of the fifth poll is raised the fourth is in the hand of who plans; the fifth may come when a writer is free.
	if batches != "0 1 2,3,4" && batches != "0 1 2,3 4" {
		t.Errorf("batches of messages %s", batches)
	}
}
