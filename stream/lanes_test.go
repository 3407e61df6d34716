package stream

import (
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

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

// A lane has left its claim before the next of its partition may begin: what cuts that one, should the partition be given
// up, would otherwise be forgotten with the first.
func TestLaneLeavesItsClaimBeforeTheNext(t *testing.T) {
	t.Parallel()
	for name, outcome := range map[string]error{"at its end": nil, "cut": errCut} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := &session{
				work: t.Context(), cutting: t.Context(), claims: newClaims(), lanes: lanesOfNobody(),
				state: newState(time.Now), log: slog.New(slog.DiscardHandler),
			}
			cl := &claim{partition: 1, inflight: 1}
			s.claims.put(cl)
			h := s.lanes.take(cl.partition)
			locked := make(chan struct{})
			var over sync.WaitGroup
			defer over.Wait()
			over.Go(func() {
				if err := s.drive(cl, h, "a campaign", func(*lane) error {
					s.claims.mu.Lock() // nobody can leave
					close(locked)
					if outcome != nil {
						cl.onGive()
					}
					return outcome
				}); err != nil {
					t.Error(err)
				}
			})
			<-locked
			select {
			case <-s.lanes.ended:
				t.Error("the next lane may begin, and the first has not left the claim")
			case <-time.After(50 * time.Millisecond):
			}
			s.claims.mu.Unlock()
		})
	}
}

func lanesOfNobody() *lanes {
	l := newLanes()
	l.pause = func(...int32) {}
	l.resume = l.pause
	return l
}
