package stream

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// chunkTakes is how long the brokers take for each chunk of a large campaign.
const chunkTakes = 8 * time.Second

// Two large campaigns are under way, and each of their chunks takes long: small campaigns of
// another partition are in both sinks at once, as if there were no large ones. They wait for no chunk.
func TestSmallCampaignWaitsForNoChunk(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newCrashWorld(t, crashKind{})
		defer w.close()
		w.subscribe(t, 0)
		w.run(t) // what the world was filled with
		chunks := make(chan int32, 100)
		cfg := w.config()
		cfg.UntilNow = false
		cfg.Kafka.Options = []kgo.Opt{kgo.Dialer(func(ctx context.Context, network, address string) (net.Conn, error) {
			conn, err := w.network.DialContext(ctx, network, address)
			return &slowChunks{Conn: conn, t: t, begun: chunks}, err
		})}
		e, err := New(cfg, w.index, nobody{})
		if err != nil {
			t.Fatal(err)
		}
		e.openStore = w.store.open
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- e.Run(ctx) }()
		ends := []int64{w.publish(t, 0, "large"), w.publish(t, 1, "large")}
		first := []int32{<-chunks, <-chunks}
		if slices.Sort(first); !slices.Equal(first, []int32{0, 1}) {
			t.Errorf("chunks of partitions %v are under way, want one of each", first)
		}
		passed := 0
		for at := w.offsets(t); at[0] < ends[0] && at[1] < ends[1]; at = w.offsets(t) {
			next, published := w.publish(t, 2, "small"), time.Now()
			for w.offsets(t)[2] < next {
				<-time.After(10 * time.Millisecond) // of the fake clock
				if waited := time.Since(published); waited > chunkTakes/2 {
					t.Fatalf("a small campaign waits for %v: %v", waited, e.Reasons())
				}
			}
			passed++
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if passed < 3 {
			t.Errorf("%d small campaigns passed the large ones, want several", passed)
		}
		t.Logf("%d small campaigns passed", passed)
	})
}

// publish returns what the group's offset is once the message is handled.
func (w *crashWorld) publish(t *testing.T, partition int32, restaurant string) int64 {
	t.Helper()
	cl := w.client(t)
	defer cl.Close()
	r := &kgo.Record{Topic: "in", Partition: partition, Value: fmt.Appendf(nil, campaignJSON, restaurant, "c", int64(99999999999))}
	if err := cl.ProduceSync(t.Context(), r).FirstErr(); err != nil {
		t.Fatal(err)
	}
	return r.Offset + 1
}

// slowChunks makes the offsets of the first two partitions take chunkTakes to be moved, and
// tells of each.
type slowChunks struct {
	net.Conn
	t     *testing.T
	begun chan<- int32
}

func (c *slowChunks) Write(p []byte) (int, error) {
	if partition := movedPartition(c.t, p); 0 <= partition && partition < 2 {
		c.begun <- partition
		<-time.After(chunkTakes)
	}
	return c.Conn.Write(p)
}

// movedPartition is the partition of which a TxnOffsetCommit moves the offset, -1 of another request.
func movedPartition(t *testing.T, p []byte) int32 {
	const header = 4 + 2 + 2 + 4 + 2 // size, key, version, correlation, length of the client's id
	if len(p) < header || int16(binary.BigEndian.Uint16(p[4:])) != int16(kmsg.TxnOffsetCommit) {
		return -1
	}
	req := kmsg.NewPtrTxnOffsetCommitRequest()
	req.SetVersion(int16(binary.BigEndian.Uint16(p[6:])))
	body := p[header+int(binary.BigEndian.Uint16(p[12:])):]
	if req.IsFlexible() {
		body = body[1:] // no tags
	}
	if err := req.ReadFrom(body); err != nil || len(req.Topics) != 1 || len(req.Topics[0].Partitions) != 1 {
		t.Errorf("a TxnOffsetCommit of one partition was expected: %v, %v", err, req.Topics)
		return -1
	}
	return req.Topics[0].Partitions[0].Partition
}
