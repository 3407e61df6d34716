package stream

import (
	"slices"
	"sync"

	"github.com/twmb/franz-go/pkg/kgo"

	"example.com/tiffin/cache"
)

// message is a record of the input topic and the fence's mark of its poll.
type message struct {
	*kgo.Record
	// claim is that under which it was read. Under a later one it is read again, with what was passed over
	// while the partition was another's.
	claim *claim
	mark  cache.Mark
	fence steps // with a tracer only
}

// lanes are the partitions that are held back: those on a lane, and those whose next message
// waits for a lane to be free. What is held of a partition is bounded: it is paused, so that
// nothing comes but what the polls under way hold. Safe for concurrent use.
type lanes struct {
	// ended is sent to when there is something to release.
	ended chan struct{}
	// pause and resume tell the consumer; they are called with mu held, so that they come in
	// the order of what they tell.
	pause, resume func(partitions ...int32)

	mu   sync.Mutex
	busy int
	shut bool
	held map[int32]*held
	came int // how often a partition came to wait for its turn
}

// held is what is to be handled when a partition goes on, in order.
type held struct {
	onLane   bool // false: waits for one
	resting  bool // on a lane, but others may use it
	place    int  // of who is on no lane: whose is lower is handled first
	messages []message
}

func newLanes() *lanes {
	return &lanes{ended: make(chan struct{}, 1), held: map[int32]*held{}}
}

// take puts a partition on a lane; nil when none is free, or when it is held back already, under a later
// claim than that of whoever asks.
func (l *lanes) take(partition int32) *held {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.busy >= maxLanes || l.held[partition] != nil {
		return nil
	}
	return l.enter(partition)
}

// begin puts a partition on a lane, free or not, and calls start; false when they are shut.
func (l *lanes) begin(partition int32, start func(*held)) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.shut {
		return false
	}
	start(l.enter(partition))
	return true
}

func (l *lanes) enter(partition int32) *held {
	l.busy++
	h := &held{onLane: true}
	l.held[partition] = h // what was held of an earlier claim is read again
	l.pause(partition)
	return h
}

// close shuts the lanes: nothing is begun any more.
func (l *lanes) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.shut = true
}

// park holds a partition back, beginning with m, until a lane ends.
func (l *lanes) park(m message) {
	l.mu.Lock()
	defer l.mu.Unlock()
	h := l.held[m.Partition]
	if h == nil {
		h = &held{}
		l.held[m.Partition] = h
		l.queue(h)
		l.pause(m.Partition)
	}
	h.messages = append(h.messages, m)
}

// queue puts a partition behind those that wait. It is called with mu held.
func (l *lanes) queue(h *held) {
	h.place = l.came
	l.came++
}

// hold keeps a message of a partition that is held back; false when it is not.
func (l *lanes) hold(m message) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	h := l.held[m.Partition]
	if h != nil {
		h.messages = append(h.messages, m)
	}
	return h != nil
}

// end takes a partition off its lane. If it was put on another one meanwhile, under a later claim, it stays there.
func (l *lanes) end(h *held) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !h.resting {
		l.busy--
	}
	h.onLane = false
	l.queue(h)
	l.tell()
}

// rest lets others use the lane of a partition that waits for something.
func (l *lanes) rest(h *held) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.busy--
	h.resting = true
	l.tell()
}

// tell is called with mu held.
func (l *lanes) tell() {
	select {
	case l.ended <- struct{}{}:
	default: // it will be looked at anyway
	}
}

// release gives out what is held of all partitions that are on no lane. Who waits longest is first, and those
// that are parked again keep their order: a lane goes to the partition that waited for it, before
// the one that had it.
func (l *lanes) release() (partitions []int32, messages []message) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for partition, h := range l.held {
		if !h.onLane {
			partitions = append(partitions, partition)
		}
	}
	slices.SortFunc(partitions, func(a, b int32) int { return l.held[a].place - l.held[b].place })
	for _, partition := range partitions {
		messages = append(messages, l.held[partition].messages...)
		delete(l.held, partition)
	}
	return partitions, messages
}

// resumeRest goes on reading those of the partitions that are not held back again.
func (l *lanes) resumeRest(partitions []int32) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.resume(slices.DeleteFunc(partitions, func(p int32) bool { return l.held[p] != nil })...)
}
