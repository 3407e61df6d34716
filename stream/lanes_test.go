package stream

import (
	"slices"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"
)

// A partition comes back, with something to recover, while a large campaign of its earlier claim is still on its
// way to a lane. The campaign's end is not the recovery's, and the campaign waits behind that.
func TestLaneOfAnEarlierClaimEndsNoOther(t *testing.T) {
	t.Parallel()
	const partition = 1
	l := lanesOfNobody()
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

// A lane that ends goes to the partition that waits longest, not to the one that had it, and never by chance.
func TestLaneGoesToWhoWaitsLongest(t *testing.T) {
	t.Parallel()
	l := lanesOfNobody()
	of := func(partition int32) message { return message{Record: &kgo.Record{Partition: partition}} }
	var taken []*held
	for partition := range int32(maxLanes) {
		taken = append(taken, l.take(partition))
		l.hold(of(partition)) // the next one of a partition on a lane
	}
	var want []int32
	for partition := int32(20); partition > maxLanes; partition-- {
		l.park(of(partition))
		want = append(want, partition)
	}
	for partition, h := range taken {
		l.end(h)
		want = append(want, int32(partition))
		_, messages := l.release()
		var order []int32
		for _, m := range messages {
			order = append(order, m.Partition)
		}
		if !slices.Equal(order, want) {
			t.Fatalf("order %d, want %d", order, want)
		}
		l.take(want[0])
		want = want[1:]
		for _, m := range messages[1:] {
			l.park(m)
		}
	}
}

func lanesOfNobody() *lanes {
	l := newLanes()
	l.pause = func(...int32) {}
	l.resume = l.pause
	return l
}
