package stream_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"example.com/tiffin/internal/devstack"
	"example.com/tiffin/internal/devstack/devstacktest"
)

// One of three brokers is killed in a backlog, then all of them: readiness says so, and when
// they are back nothing is lost and nothing is doubled.
func TestKilledBrokersLoseNothing(t *testing.T) {
	t.Parallel()
	k := devstacktest.StartKafka(t, devstack.KafkaOptions{Brokers: 3, Settings: map[string]string{"min.insync.replicas": "2"}})
	list := clients(300)
	r := newRigOn(t, k, 3, map[string][]string{"r": list})
	r.cfg.MaxTransactionRecords = 200
	var want []delivery
	publish := func(from, to int) {
		for i := from; i < to; i++ {
			m := campaign("r", fmt.Sprint(i))
			partition := int32(i % 3)
			offset := r.publish(partition, m.json(t))
			for _, c := range list {
				want = append(want, r.expect(m, partition, offset, c))
			}
		}
	}
	publish(0, 30)
	e, stop := r.start()
	r.eventually("some deliveries", func() bool { return r.rowCount() >= 1000 })
	k.KillBroker(2)
	publish(30, 45)
	r.eventually("more deliveries", func() bool { return r.rowCount() >= 7_000 })
	k.Kill()
	lost := time.Now()
	r.eventually("the reason", func() bool { return len(e.Reasons()) > 0 })
	if d := time.Since(lost); d > 15*time.Second {
		t.Errorf("unready %s after the last broker was killed: want 15 s at most", d)
	}
	if err := k.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.admin.Close()
	var err error
	if r.admin, err = kgo.NewClient(kgo.SeedBrokers(k.PlainBrokers()...), kgo.RecordPartitioner(kgo.ManualPartitioner())); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.admin.Close)
	publish(45, 50)
	r.eventually("all deliveries", func() bool { return r.rowCount() == len(want) && len(e.Reasons()) == 0 })
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	r.wantBoth(want)
}

func (r *rig) rowCount() (n int) {
	r.t.Helper()
	conn := r.db.Connect(r.t)
	defer func() { _ = conn.Close(r.t.Context()) }()
	if err := conn.QueryRow(r.t.Context(), `SELECT count(*) FROM subscribers_feedback`).Scan(&n); err != nil {
		return 0 // not yet migrated
	}
	return n
}
