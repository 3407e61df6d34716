package work

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"github.com/jackc/pgx/v5"

	"example.com/tiffin/cmd/bench/internal/testbed"
)

// What the limit is compared with is the same work: every form of it (statements, COPY, campaigns
// cut into batches or merged, both in turn) leaves both sinks as a contender must.
// A limit that cannot move everything says so.
func TestLimitIsExact(t *testing.T) {
	t.Parallel()
	broker := fakeBroker(t)
	s, err := testbed.Start(t.Context(), "", testbed.Given{
		Brokers: broker.Brokers(), Source: servers.Postgres(t).DSN("postgres"), Feedback: servers.Postgres(t).DSN("postgres"),
	})
	if err != nil {
		t.Fatal(err)
	}
	limitFailsAloud(t, s)
	limitUnderLoadIsExact(t, s)
	leastIsExact(t, s)
	for name, shape := range map[string]Shape{
		"COPY, merged":       {Campaigns: 2_500, Restaurants: 2_500, Subscriptions: 12_500},
		"statements, merged": {Campaigns: 110, Restaurants: 110, Subscriptions: 13_200},
		"cut":                {Campaigns: 2, Restaurants: 2, Subscriptions: 25_002},
		"one row":            {Campaigns: 1, Restaurants: 1, Subscriptions: 1},
		"mixed":              {Campaigns: 60, Restaurants: 60, Subscriptions: 12_000, Zipf: 1},
	} {
		w, lane := limitRig(t, s, shape)
		if _, err := Limit(t.Context(), w, lane, w.Campaigns, LimitForms()[0]); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if v, err := Verify(t.Context(), w, lane, UpTo(w.Campaigns)); err != nil || !v.Exact {
			t.Errorf("%s: %s, %v", name, v.Text, err)
		}
	}
}

// limitUnderLoadIsExact is the same for the limit of latencies, where each campaign goes alone.
func limitUnderLoadIsExact(t *testing.T, s *testbed.Servers) {
	t.Helper()
	for name, limit := range map[string]func(*OpenLoop, context.Context) (*hdrhistogram.Histogram, error){
		"when due": (*OpenLoop).Limit, "when read": (*OpenLoop).Least,
	} {
		w, lane := limitRig(t, s, Shape{Campaigns: 20, Restaurants: 20, Subscriptions: 20})
		stage := &testbed.Stage{Brokers: lane.Brokers, Input: lane.Input}
		loop := &OpenLoop{Work: w, Stage: stage, Lane: lane, Every: 5 * time.Millisecond, WarmUp: 2}
		h, err := limit(loop, t.Context())
		if err != nil || h.TotalCount() != 18 {
			t.Fatalf("%s: latencies %v, %v", name, h, err)
		}
		if v, err := Verify(t.Context(), w, lane, UpTo(w.Campaigns)); err != nil || !v.Exact {
			t.Errorf("under load, %s: %s, %v", name, v.Text, err)
		}
	}
}

// leastIsExact is the same for the limit that reads the input and keeps the manifest: which is as true as tiffin's.
func leastIsExact(t *testing.T, s *testbed.Servers) {
	t.Helper()
	for name, shape := range map[string]Shape{
		"COPY":       {Campaigns: 2_500, Restaurants: 2_500, Subscriptions: 12_500},
		"statements": {Campaigns: 110, Restaurants: 110, Subscriptions: 13_200},
		"cut":        {Campaigns: 2, Restaurants: 2, Subscriptions: 25_002},
	} {
		w, lane := limitRig(t, s, shape)
		if err := w.Publish(t.Context(), &testbed.Stage{Brokers: lane.Brokers, Input: lane.Input}, 0, w.Campaigns); err != nil {
			t.Fatal(err)
		}
		if _, err := Least(t.Context(), w, lane, w.Campaigns, LimitForms()[0]); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if v, err := Verify(t.Context(), w, lane, UpTo(w.Campaigns)); err != nil || !v.Exact {
			t.Errorf("%s: %s, %v", name, v.Text, err)
		}
		conn, err := pgx.Connect(t.Context(), lane.FeedbackDSN)
		if err != nil {
			t.Fatal(err)
		}
		var messages, recipients, ids int
		err = conn.QueryRow(t.Context(), `SELECT count(*), sum(recipients), sum(upper(feedback_ids) - lower(feedback_ids)) FROM tiffin.trigger`).Scan(&messages, &recipients, &ids)
		if deliveries := w.Deliveries(0, w.Campaigns); err != nil || messages != w.Campaigns || recipients != deliveries || ids != deliveries {
			t.Errorf("%s: the manifest has %d messages, %d recipients, %d ids, %v; want %d, %d", name, messages, recipients, ids, err, w.Campaigns, deliveries)
		}
		_ = conn.Close(t.Context())
	}
}

func limitFailsAloud(t *testing.T, s *testbed.Servers) {
	t.Helper()
	w, lane := limitRig(t, s, Shape{Campaigns: 110, Restaurants: 110, Subscriptions: 13_200})
	plan, err := planLimit(w, lane, w.Campaigns, false)
	if err != nil {
		t.Fatal(err)
	}
	plan.clients[13_199] = "\x00" // no text of Postgres
	m, err := newMover(t.Context(), plan, lane, LimitForms()[0])
	if err != nil {
		t.Fatal(err)
	}
	defer m.close()
	batches := make(chan span, len(plan.batches))
	for _, b := range plan.batches {
		batches <- b
	}
	close(batches)
	if err := m.run(t.Context(), batches); err == nil {
		t.Error("a row that Postgres refuses is no error")
	}
}

func limitRig(tb testing.TB, s *testbed.Servers, shape Shape) (*Workload, *testbed.Lane) {
	tb.Helper()
	w, err := New(shape, time.Now())
	if err != nil {
		tb.Fatal(err)
	}
	stage, err := s.NewStage(tb.Context(), w.Partitions)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := stage.Close(context.Background()); err != nil {
			tb.Error(err)
		}
	})
	lane, err := stage.NewLane(tb.Context())
	if err != nil {
		tb.Fatal(err)
	}
	return w, lane
}

// BenchmarkLimit is where the table in limit.go is from.
func BenchmarkLimit(b *testing.B) {
	s, err := testbed.Start(b.Context(), "", testbed.Given{})
	if err != nil {
		b.Skip(err)
	}
	defer func() {
		if err := s.Close(); err != nil {
			b.Error(err)
		}
	}()
	for _, fanout := range []int{1, 10, 100} {
		for _, c := range []LimitForm{{1, 2}, {2, 2}, {1, 3}, {2, 3}, {3, 3}} {
			b.Run(fmt.Sprintf("fanout=%d/writers=%d/producers=%d", fanout, c.Writers, c.Producers), func(b *testing.B) {
				w, lane := limitRig(b, s, Shape{Campaigns: 100_000 / fanout, Restaurants: 100_000 / fanout, Subscriptions: 100_000})
				plan, err := planLimit(w, lane, w.Campaigns, false)
				if err != nil {
					b.Fatal(err)
				}
				m, err := newMover(b.Context(), plan, lane, c)
				if err != nil {
					b.Fatal(err)
				}
				defer m.close()
				for b.Loop() {
					batches := make(chan span, len(plan.batches))
					for _, batch := range plan.batches {
						batches <- batch
					}
					close(batches)
					if err := m.run(b.Context(), batches); err != nil {
						b.Fatal(err)
					}
				}
				b.ReportMetric(100*float64(b.N)/b.Elapsed().Seconds(), "k/s")
			})
		}
	}
}
