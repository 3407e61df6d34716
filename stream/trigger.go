package stream

import (
	"errors"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"example.com/tiffin/cache"
)

// Outcome says what became of a campaign message.
type Outcome string

// The outcomes, as the manifest and the metrics say them.
const (
	Delivered     Outcome = "delivered"
	Inactive      Outcome = "inactive"
	NoSubscribers Outcome = "no_subscribers"
	Malformed     Outcome = "malformed"
)

// trigger is the plan of one campaign message: decided once and never recomputed. What it
// says goes to both sinks and into the manifest.
type trigger struct {
	partition int32
	leader    int32 // position.leader behind it
	offset    int64
	// claim is that under which the message was read and planned.
	claim    *claim
	outcome  Outcome
	campaign Campaign
	// now is the clock when the message was processed, in Unix seconds.
	now  int64
	mark cache.Mark
	// recipients is nil unless the message is delivered.
	recipients *cache.Recipients
	// fault is set when the message is malformed, and record is then what came.
	fault  *MalformedError
	record *kgo.Record
	// published is the broker's timestamp of the campaign record.
	published time.Time
	// ids are the feedback rows, in record order; known once they are inserted.
	ids idRanges
	// context goes into the output records; trace is the message's span, nil without a tracer.
	context traceContext
	trace   *traced
	// bulky says that a record may come near what a topic takes.
	bulky bool
	// cold says that the plan lacks the recipients: they are many, and to be read first.
	cold bool
}

// deliveries is the number of rows and of records of the trigger; none without a trigger.
func (t *trigger) deliveries() int {
	if t == nil || t.recipients == nil {
		return 0
	}
	return t.recipients.Len()
}

// drop gives up a plan whose partition has changed hands: whoever has it reads the message again, if it is not
// handled yet.
func (t *trigger) drop() {
	t.trace.failed(errDropped)
	t.release()
}

var errDropped = errors.New("not delivered in this attempt: the partition changed hands")

func (t *trigger) release() {
	if t.recipients != nil {
		t.recipients.Release()
	}
}

// triggerID names a campaign message: TOPIC/PARTITION/OFFSET.
func triggerID(topic string, partition int32, offset int64) string {
	return string(appendTriggerID(nil, topic, partition, offset))
}

func appendTriggerID(dst []byte, topic string, partition int32, offset int64) []byte {
	dst = append(append(dst, topic...), '/')
	dst = append(strconv.AppendInt(dst, int64(partition), 10), '/')
	return strconv.AppendInt(dst, offset, 10)
}

// batch is what one Postgres transaction and, unless it is on a lane, one Kafka transaction
// delivers. Its triggers are in the order of their offsets within a partition.
type batch struct {
	triggers   []*trigger
	advances   []advance
	deliveries int
	// bulky says that the brokers must have taken the records before Postgres commits.
	bulky bool
	// stored is closed when Postgres has committed, produced when the broker has acknowledged
	// every record, moved when the group's offsets are in the transaction too, done when it is committed.
	stored, produced, moved, done chan struct{}
	// alone says that care is taken (refusal.go): only one campaign has deliveries, and none
	// is produced before taken (closed when the table has its rows, without a commit) or stored.
	alone bool
	taken chan struct{}
	// numbered is closed when the rows have their ids: then those of the next batch may be inserted.
	numbered chan struct{}
	// users are the writer and the publisher: the last to leave releases the recipients.
	users atomic.Int32
	// rows, if any, counts those that are on their way into the table.
	rows *atomic.Int64
	// timing is noted for the messages' spans.
	timing timing
}

func newBatch() *batch {
	b := &batch{
		stored: make(chan struct{}), produced: make(chan struct{}), moved: make(chan struct{}), done: make(chan struct{}),
		taken: make(chan struct{}), numbered: make(chan struct{}),
	}
	b.users.Store(2)
	return b
}

// deliveredBatch is in both sinks: what comes before the first one of a session.
func deliveredBatch() *batch {
	return &batch{stored: closed(), produced: closed(), moved: closed(), done: closed(), taken: closed(), numbered: closed()}
}

func (b *batch) add(t *trigger) {
	b.triggers = append(b.triggers, t)
	b.deliveries += t.deliveries()
	b.bulky = b.bulky || t.bulky
}

// leave is called once by the writer and once by the publisher.
func (b *batch) leave() {
	if b.users.Add(-1) == 0 {
		b.abandon()
	}
}

// abandon releases the recipients of a batch that nobody uses, and ends its spans.
func (b *batch) abandon() {
	b.endTraces()
	for _, t := range b.triggers {
		t.release()
	}
}

// advance moves one partition's ledger from expected to next under epoch.
type advance struct {
	claim          *claim
	expected, next int64
	leader         int32 // of next
}
