package stream

import (
	"context"
	"fmt"
	"log/slog"
	"runtime"
	"runtime/debug"
	samples "runtime/metrics"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"example.com/tiffin/cache"
)

// BenchmarkRecipients delivers one campaign to sinks that count and forget, and reports how
// far the heap rose above what it was before: the same, whatever the number of recipients.
func BenchmarkRecipients(b *testing.B) {
	for _, n := range []int{1_000_000, 10_000_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) { benchmarkRecipients(b, n) })
	}
}

func benchmarkRecipients(b *testing.B, n int) {
	var network kfake.VirtualNetwork
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.Ports(9092), kfake.ListenFn(network.Listen), kfake.SeedTopics(1, "in", "out", "dead"))
	if err != nil {
		b.Fatal(err)
	}
	defer cluster.Close()
	index, err := cache.New(cache.Config{Budget: 1 << 30}, nobody{})
	if err != nil {
		b.Fatal(err)
	}
	defer index.Close()
	load := index.BeginLoad(false)
	for i := range n {
		if err := load.Add(0, []byte("r"), fmt.Appendf(nil, "%08x-0000-4000-8000-%012x", i, i)); err != nil {
			b.Fatal(err)
		}
	}
	if err := load.Finish(cache.Snapshot{Xmin: 5, Xmax: 5}); err != nil {
		b.Fatal(err)
	}
	const message = `{"restaurant_id":"r","adv_campaign_id":"c","adv_campaign_content":"first campaign","adv_campaign_owner":"","adv_campaign_owner_contact":"",` +
		`"adv_campaign_datetime_start":0,"adv_campaign_datetime_end":99999999999,"datetime_created":1}`
	cl, err := kgo.NewClient(kgo.SeedBrokers("127.0.0.1:9092"), kgo.Dialer(network.DialContext))
	if err != nil {
		b.Fatal(err)
	}
	b.ResetTimer()
	for range b.N {
		if err := cl.ProduceSync(b.Context(), &kgo.Record{Topic: "in", Value: []byte(message)}).FirstErr(); err != nil {
			b.Fatal(err)
		}
	}
	cl.Close()
	var chunks atomic.Int64
	discard(cluster, &chunks)
	rows := &countedRows{memory: newMemory()}
	e, err := New(Config{
		Kafka: KafkaConfig{
			Brokers: []string{"127.0.0.1:9092"}, Group: "g", Input: "in", Output: "out", DeadLetter: "dead", Start: StartEarliest,
			Options: []kgo.Opt{kgo.Dialer(network.DialContext)},
		},
		FeedbackDSN: "host=memory", FeedbackTable: []string{"t"}, UntilNow: true, Log: slog.New(slog.DiscardHandler),
	}, index, nobody{})
	if err != nil {
		b.Fatal(err)
	}
	e.openStore = func(context.Context, *Config) (store, error) { return rows, nil }
	// Garbage grows with what lives, the index; the limit makes the collector keep it small.
	rest := liveHeap()
	var all runtime.MemStats
	runtime.ReadMemStats(&all)
	defer debug.SetMemoryLimit(debug.SetMemoryLimit(int64(all.Sys-all.HeapIdle) + 64<<20))
	most := watchHeap(b)
	if err := e.Run(b.Context()); err != nil {
		b.Fatal(err)
	}
	risen := most() - rest
	if want := int64(b.N) * int64(n); rows.n != want || chunks.Load() != int64(b.N)*int64((n+49_999)/50_000) {
		b.Fatalf("%d rows and %d commits: want %d rows, in chunks of 50,000", rows.n, chunks.Load(), want)
	}
	b.ReportMetric(float64(risen)/(1<<20), "MiB-above-rest")
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(int64(b.N)*int64(n)), "ns/recipient")
	if risen > 128<<20 {
		b.Errorf("the heap rose by %d MiB: want 128 MiB at most, with a fake broker in the same process", risen>>20)
	}
}

// discard acknowledges records of the output topic without keeping them, and counts the
// transactions that are committed.
func discard(cluster *kfake.Cluster, commits *atomic.Int64) {
	cluster.ControlKey(int16(kmsg.Produce), func(r kmsg.Request) (kmsg.Response, error, bool) {
		cluster.KeepControl()
		req := r.(*kmsg.ProduceRequest)                    //nolint:forcetypeassert // ControlKey says so
		resp := req.ResponseKind().(*kmsg.ProduceResponse) //nolint:forcetypeassert // as the line above
		for _, t := range req.Topics {
			topic := kmsg.NewProduceResponseTopic()
			topic.Topic, topic.TopicID = t.Topic, t.TopicID
			for _, p := range t.Partitions {
				partition := kmsg.NewProduceResponseTopicPartition()
				partition.Partition = p.Partition
				topic.Partitions = append(topic.Partitions, partition)
			}
			resp.Topics = append(resp.Topics, topic)
		}
		return resp, nil, true
	})
	cluster.ControlKey(int16(kmsg.EndTxn), func(kmsg.Request) (kmsg.Response, error, bool) {
		cluster.KeepControl()
		commits.Add(1)
		return nil, nil, false
	})
}

// countedRows keeps no rows.
type countedRows struct {
	*memory
	n int64
}

func (c *countedRows) connect(context.Context) (deliverer, error) { return c, nil }

func (c *countedRows) deliver(_ context.Context, b *batch, _ gates) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, t := range b.triggers {
		for range t.recipients.Range(0, t.deliveries()) {
			c.n++
		}
	}
	for _, a := range b.advances {
		e := c.progress[a.claim.partition]
		e.next = a.next
		c.progress[a.claim.partition] = e
	}
	return nil
}

// watchHeap samples the heap until its result is called, which returns the most it was.
func watchHeap(b *testing.B) (most func() int64) {
	b.Helper()
	ctx, cancel := context.WithCancel(b.Context())
	peak := make(chan int64)
	go func() {
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		var n int64
		for {
			n = max(n, heapNow())
			select {
			case <-tick.C:
			case <-ctx.Done():
				peak <- n
				return
			}
		}
	}()
	return func() int64 { cancel(); return <-peak }
}

func heapNow() int64 {
	sample := []samples.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
	samples.Read(sample)
	return int64(sample[0].Value.Uint64())
}

func liveHeap() int64 {
	runtime.GC()
	return heapNow()
}
