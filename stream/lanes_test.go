package stream

import (
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"
)

// A partition comes back, with something to recover, while a large campaign of its earlier claim is still on its
// way to a lane. The campaign's end is not the recovery's, and the campaign waits behind that.
func TestLaneOfAnEarlierClaimEndsNoOther(t *testing.T) {
	t.Parallel()
	const partition = 1
	paused := func(...int32) {}
	l := newLanes()
	l.pause, l.resume = paused, paused
	campaign := l.take(partition)
	var recovery *held
	l.begin(partition, func(h *held) { recovery = h })
	l.end(campaign)
	if partitions, _ := l.release(); len(partitions) != 0 {
		t.Fatal("the partition goes on in the middle of its recovery")
	}
	if l.take(partition) != nil {
		t.Fatal("a campaign takes the recovery's place")
	}
	m := message{Record: &kgo.Record{Partition: partition}}
	l.park(m)
	if !l.hold(m) {
		t.Error("what follows is not held back")
	}
	if partitions, _ := l.release(); len(partitions) != 0 {
		t.Fatal("what is held back lets the partition go on")
	}
	l.end(recovery)
	if partitions, messages := l.release(); len(partitions) != 1 || len(messages) != 2 {
		t.Errorf("behind the recovery partitions %v go on with %d messages, want both", partitions, len(messages))
	}
	if l.busy != 0 {
		t.Errorf("%d lanes are taken at the end", l.busy)
	}
}
