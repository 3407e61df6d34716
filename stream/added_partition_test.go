package stream_test

import (
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"example.com/tiffin/stream"
)

// A partition that is added while a process runs is noticed with the next look at the topic (every 5
// minutes, or as often as here), and read from its first message; those it has go on meanwhile.
func TestPartitionAddedToARunningDaemonMissesNothing(t *testing.T) {
	t.Parallel()
	r := newRig(t, 1, map[string][]string{"r": {"c"}})
	log := r.logging()
	r.cfg.Kafka.Start = stream.StartLatest
	r.cfg.Kafka.Options = []kgo.Opt{kgo.MetadataMaxAge(500 * time.Millisecond)}
	_, stop := r.start()
	r.eventually("the claim", func() bool { return log.lines("partition taken") == 1 })
	r.publishSome(0, 1)
	if _, err := kadm.NewClient(r.admin).CreatePartitions(t.Context(), 1, r.cfg.Kafka.Input); err != nil {
		t.Fatal(err)
	}
	r.admin.ForceMetadataRefresh()
	r.eventually("the partition", func() bool {
		listed, err := kadm.NewClient(r.admin).ListEndOffsets(t.Context(), r.cfg.Kafka.Input)
		return err == nil && listed.Error() == nil && len(listed[r.cfg.Kafka.Input]) == 2
	})
	r.publishSome(1, 3)
	r.publishSome(0, 1)
	r.eventually("both partitions' messages", func() bool { return r.committed(0).At == 2 && r.committed(1).At == 3 })
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	r.wantDelivered(5, 5)
	log.wants(t, "added to the topic")
	r.wantVerdict(nil)
}
