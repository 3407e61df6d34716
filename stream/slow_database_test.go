package stream_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"example.com/tiffin/stream"
)

// Insertions wait for a lock for longer than the group waits for anybody, while two processes deliver
// and a third one joins. Each rebalance is to take everything from everybody (eager): those two cannot give
// up what they have in hand in time, are put out of the group, and the third takes it over. When the lock
// is gone all of it is in both sinks, once.
func TestDatabaseSlowerThanTheGroupsTimeouts(t *testing.T) {
	t.Parallel()
	const session, rebalance = 3 * time.Second, 5 * time.Second
	r := newRig(t, 4, map[string][]string{"r": clients(40)})
	log := r.logging()
	r.cfg.Kafka.SessionTimeout = session
	r.cfg.Kafka.Options = []kgo.Opt{kgo.RebalanceTimeout(rebalance)}
	r.cfg.FeedbackDSN += "&lock_timeout=0" // otherwise that would end the waiting
	var want []delivery
	publish := func(n int) {
		t.Helper()
		for i := range n {
			m := campaign("r", fmt.Sprint(len(want)))
			partition := int32(i % 4)
			offset := r.publish(partition, m.json(t))
			for _, c := range clients(40) {
				want = append(want, r.expect(m, partition, offset, c))
			}
		}
	}
	member := func(name string) (stop func() error) {
		t.Helper()
		cfg := r.cfg
		cfg.Kafka.Process, cfg.Kafka.InstanceID = name, name
		e, err := stream.New(cfg, r.index, noFence{})
		if err != nil {
			t.Fatal(err)
		}
		e.ShareBy(kgo.RangeBalancer())
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- e.Run(ctx) }()
		t.Cleanup(func() {
			cancel()
			if err := <-done; err != nil {
				t.Logf("%s ended with: %v", name, err)
			}
		})
		return func() error { cancel(); err := <-done; done <- err; return err }
	}
	owned := func(by string) int {
		return r.number(`SELECT count(*) FROM tiffin.progress WHERE owner = $1`, by)
	}
	stops := []func() error{member("one"), member("two")}
	publish(8)
	r.eventually("the first deliveries", func() bool { return r.rowCount() == len(want) && owned("one") > 0 && owned("two") > 0 })

	// Insertions wait; a session can be opened, which a lock of the table itself would not allow.
	r.db.Exec(t, `CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_advisory_xact_lock_shared(42); RETURN NULL; END $$`,
		`CREATE TRIGGER wait BEFORE INSERT ON subscribers_feedback FOR EACH STATEMENT EXECUTE FUNCTION wait()`)
	other := r.db.Connect(t)
	if _, err := other.Exec(t.Context(), `SELECT pg_advisory_lock(42)`); err != nil {
		t.Fatal(err)
	}
	publish(40)
	r.eventually("insertions of both that wait", func() bool {
		return r.number(`SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype = 'advisory' AND objid = 42`) >= 2
	})
	locked := time.Now()
	stops = append(stops, member("three"))
	r.eventually("partitions of the third", func() bool { return owned("three") > 0 })
	<-time.After(time.Until(locked.Add(2 * (session + rebalance))))
	if _, err := other.Exec(t.Context(), `SELECT pg_advisory_unlock(42)`); err != nil {
		t.Fatal(err)
	}
	r.eventuallyOr("all deliveries", func() bool {
		handled := int64(0)
		for partition := range int32(4) {
			handled += r.groupOffset(partition)
		}
		return r.rowCount() == len(want) && handled == int64(len(want)/40)
	}, func() string { return fmt.Sprintf("%d rows of %d", r.rowCount(), len(want)) })
	for _, stop := range stops {
		if err := stop(); err != nil {
			t.Error(err)
		}
	}
	r.wantBoth(want)
	log.wants(t, "ending what a process left that did not give its partitions up")
	log.wants(t, "delivery interrupted")
}
