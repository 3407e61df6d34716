package stream

import (
	"context"
	"fmt"
	"math"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

const (
	// producersPerProcess is how many transactions may be under way: the broker makes a
	// transaction wait for the markers of the one before it with the same id, so that two or
	// three ids in turn are several times as fast as one (ARCHITECTURE.md has the figures).
	producersPerProcess = 3
	// transactionTimeout is when the broker aborts a transaction whose owner fell silent:
	// until then its records hold back every read_committed consumer.
	transactionTimeout = 60 * time.Second
	// produceTimeout bounds the wait for the acknowledgement of a transaction's records.
	produceTimeout = 45 * time.Second
	// linger lets batches fill while records are being encoded; the flush behind them does not
	// wait for it.
	linger = 10 * time.Millisecond
	// arenaBytes and arenasPerUse bound the encoded records that batches have under way, of
	// which one at a time is sending, and those of all lanes, however large a campaign is.
	arenaBytes   = 1 << 20
	arenasPerUse = 6
	// abortTimeout bounds the wait for the brokers of a producer that is closed.
	abortTimeout = 5 * time.Second
	// typicalRecord, in bytes, is less than most records are.
	typicalRecord = 384
)

// producer sends the records of one transaction at a time.
type producer struct {
	cl *kgo.Client
	// cut ends every request of cl, one too whose own context is not looked at: the first of a connection
	// that the broker does not answer (loadConnection in kgo/broker.go, of franz-go 1.22.2).
	cut context.CancelFunc
	// txnID is empty in at_least_once mode.
	txnID  string
	topics topics
	// arenas are those of whoever has the producer.
	arenas *arenas
	// records fills one arena after the other, from trigger to trigger; flush ends the last.
	records arenaWriter
	headers headerRoom
	// explicit says that the broker wants AddOffsetsToTxn before TxnOffsetCommit: it has no
	// transactions of version 2 (KIP-890).
	explicit bool

	// written are the topics that were written to, and whether the client is known to list their
	// partitions; lists asks it.
	written map[string]bool
	lists   func(topic string) bool

	failed atomic.Pointer[ProduceError] // first error of a record of the transaction in hand
	// deadBytes is what dead letters not yet acknowledged weigh.
	deadBytes int
}

// topics is what is known of the three topics at the start of a session.
type topics struct {
	input, output, deadLetter topicInfo
}

type topicInfo struct {
	name       string
	id         [16]byte
	partitions int32
	// maxMessage is the topic's max.message.bytes.
	maxMessage int32
}

// newProducer makes a client; in exactly_once mode its first use fences and aborts whatever
// a predecessor of the same transactional id left open.
func newProducer(cfg *Config, topics topics, n int) (*producer, error) {
	life, cut := context.WithCancel(context.Background())
	opts := []kgo.Opt{
		kgo.WithContext(life),
		kgo.RequiredAcks(kgo.AllISRAcks()),
		kgo.ProducerLinger(linger),
		kgo.UnknownTopicRetries(4),
		kgo.RecordDeliveryTimeout(produceTimeout),
		kgo.ProducerBatchMaxBytesFn(func(topic string) int32 {
			if topic == topics.deadLetter.name {
				// A dead letter may come compressed and be larger than the topic's limit
				// until it is compressed again: the broker judges.
				return math.MaxInt32 / 4
			}
			return max(512, topics.output.maxMessage)
		}),
		kgo.BrokerMaxWriteBytes(math.MaxInt32 / 2),
	}
	p := &producer{cut: cut, topics: topics, written: map[string]bool{}}
	p.lists = p.listsPartitions
	if cfg.Mode == ExactlyOnce {
		p.txnID = transactionalID(cfg, cfg.Kafka.Process, n)
		opts = append(opts, kgo.TransactionalID(p.txnID), kgo.TransactionTimeout(cfg.Kafka.TransactionTimeout))
	}
	opts = append(opts, clientMetrics(cfg.Registerer, "producer-"+strconv.Itoa(n))...)
	cl, err := cfg.Kafka.newClient(opts...)
	if err != nil {
		cut()
		return nil, err
	}
	p.cl = cl
	p.records.p = p
	return p, nil
}

// transactionalID is that of a process's n-th producer: the same over its restarts.
func transactionalID(cfg *Config, process string, n int) string {
	return cfg.Kafka.Group + "." + process + "." + strconv.Itoa(n)
}

// begin starts a transaction; in at_least_once mode it only forgets earlier errors.
func (p *producer) begin() error {
	p.failed.Store(nil)
	p.deadBytes = 0
	if p.txnID == "" {
		return nil
	}
	if err := p.cl.BeginTransaction(); err != nil {
		return fmt.Errorf("begin transaction %s: %w", p.txnID, err)
	}
	return nil
}

// sendDeliveries produces the records of recipients [from, to) of a trigger. It returns when
// all are encoded, not when they are acknowledged: flush waits for that.
func (p *producer) sendDeliveries(ctx context.Context, t *trigger, env *envelope, from, to int) error {
	headers := p.headers.of(p.topics.input.name, t.partition, t.offset, t.context)
	for client := range t.recipients.Range(from, to) {
		if err := p.records.add(ctx, client, env, headers); err != nil {
			return err
		}
	}
	return nil
}

// flush waits until every record is acknowledged and returns the first error of any.
func (p *producer) flush(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, produceTimeout)
	defer cancel()
	ctx, end := context.WithCancelCause(ctx)
	defer p.watch(ctx, end)()
	p.records.end()
	err := p.cl.Flush(ctx)
	p.deadBytes = 0
	if failed := p.failed.Load(); failed != nil {
		return failed
	}
	if err != nil {
		return fmt.Errorf("wait for the brokers' acknowledgements: %w", context.Cause(ctx))
	}
	return nil
}

// ProduceError says that the brokers did not take a record.
type ProduceError struct {
	Topic string
	// limit is the size of a batch, in bytes, that the topic was thought to take.
	limit int32
	Err   error
}

func (e *ProduceError) Error() string { return fmt.Sprintf("produce to %s: %v", e.Topic, e.Err) }

func (e *ProduceError) Unwrap() error { return e.Err }

// commit ends the transaction. An error leaves the outcome unknown.
func (p *producer) commit(ctx context.Context) error {
	if p.txnID == "" {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, produceTimeout)
	defer cancel()
	if err := p.awaitLists(ctx); err != nil {
		return fmt.Errorf("commit transaction %s: %w", p.txnID, err)
	}
	if err := p.cl.EndTransaction(ctx, kgo.TryCommit); err != nil {
		return fmt.Errorf("commit transaction %s: %w", p.txnID, err)
	}
	return nil
}

// awaitLists waits until the client lists the partitions of every topic that was written to.
//
// Whether there is anything to commit EndTransaction concludes from the partitions that it lists, and
// what it believes to be empty it aborts, without an error (kgo/txn.go, of franz-go 1.22.2). But a
// topic that a client writes to for the first time is listed only after its first records were handed
// out for sending (storePartitionsUpdate in kgo/topics_and_partitions.go): they may be acknowledged
// before. That is a matter of microseconds, unless the machine is busy.
func (p *producer) awaitLists(ctx context.Context) error {
	const pause = 100 * time.Microsecond
	for topic, listed := range p.written {
		for !listed && !p.lists(topic) {
			if err := wait(ctx, pause); err != nil {
				return fmt.Errorf("the client does not know the partitions of %s, though it wrote to it: %w", topic, err)
			}
		}
		p.written[topic] = true
	}
	return nil
}

// listsPartitions reports whether the client lists a partition with a leader: before the topic is
// listed it knows of none.
func (p *producer) listsPartitions(topic string) bool {
	info := &p.topics.output
	if topic == p.topics.deadLetter.name {
		info = &p.topics.deadLetter
	}
	for n := range info.partitions {
		if leader, _, _ := p.cl.PartitionLeader(topic, n); leader >= 0 {
			return true
		}
	}
	return false
}

// writesTo notes that a topic is written to.
func (p *producer) writesTo(topic string) {
	if !p.written[topic] {
		p.written[topic] = false
	}
}

// close aborts what is open, so that no consumer waits for a time-out, and ends the client.
func (p *producer) close(ctx context.Context) {
	defer p.cut()
	defer time.AfterFunc(abortTimeout, p.cut).Stop()
	if p.txnID != "" {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), abortTimeout)
		defer cancel()
		if err := p.cl.AbortBufferedRecords(ctx); err == nil {
			_ = p.cl.EndTransaction(ctx, kgo.TryAbort) // the next owner of the id aborts it otherwise
		}
	}
	p.cl.Close()
}

func (p *producer) fail(to *topicInfo, err error) {
	p.failed.CompareAndSwap(nil, &ProduceError{Topic: to.name, limit: to.maxMessage, Err: err})
}

// arenas are lent one at a time, the one that came back last first: what is small stays in few of them,
// and in the processor's cache.
type arenas struct {
	left chan struct{} // as many as are free
	mu   sync.Mutex
	free []*arena
}

func newArenas() *arenas {
	a := &arenas{left: make(chan struct{}, arenasPerUse)}
	for range arenasPerUse {
		a.put(&arena{home: a})
	}
	return a
}

// take waits for a free arena.
func (a *arenas) take(ctx context.Context) (*arena, error) {
	select {
	case <-a.left:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	last := len(a.free) - 1
	top := a.free[last]
	a.free = a.free[:last]
	return top, nil
}

func (a *arenas) put(back *arena) {
	a.mu.Lock()
	a.free = append(a.free, back)
	a.mu.Unlock()
	a.left <- struct{}{}
}

// arena holds encoded records until the broker has acknowledged all of them.
type arena struct {
	home    *arenas
	bytes   []byte
	records []kgo.Record
	pending atomic.Int64 // records under way, plus one while the arena is being filled
}

func (a *arena) done() {
	if a.pending.Add(-1) == 0 {
		a.home.put(a)
	}
}

// arenaWriter encodes records into one arena after the other.
type arenaWriter struct {
	p *producer
	a *arena
	// began is the timestamp of the arena's records, which franz-go would ask of the clock for
	// each. Delivery times out counted from it, so it is the real clock's.
	began time.Time
	done  func(*kgo.Record, error)
}

// add encodes and produces one record. Records alias the arena: it may not grow, so a full
// one is handed over and the next is awaited.
func (w *arenaWriter) add(ctx context.Context, client []byte, env *envelope, headers []kgo.RecordHeader) error {
	size := len(client) + env.maxValue(len(client))
	if w.a == nil || cap(w.a.bytes)-len(w.a.bytes) < size || len(w.a.records) == cap(w.a.records) {
		if err := w.next(ctx, size); err != nil {
			return err
		}
	}
	a := w.a
	start := len(a.bytes)
	a.bytes = append(a.bytes, client...)
	middle := len(a.bytes)
	a.bytes = env.appendValue(a.bytes, client)
	a.records = append(a.records, kgo.Record{
		Topic:     w.p.topics.output.name,
		Key:       a.bytes[start:middle:middle],
		Value:     a.bytes[middle:len(a.bytes):len(a.bytes)],
		Headers:   headers,
		Timestamp: w.began,
	})
	a.pending.Add(1)
	w.p.cl.Produce(ctx, &a.records[len(a.records)-1], w.done)
	return nil
}

func (w *arenaWriter) next(ctx context.Context, size int) error {
	w.end()
	a, err := w.p.arenas.take(ctx)
	if err != nil {
		return err
	}
	w.a = a
	if want := max(size, arenaBytes); cap(a.bytes) < want || cap(a.bytes) > 2*want {
		a.bytes = make([]byte, 0, want)
	}
	if a.records == nil {
		a.records = make([]kgo.Record, 0, arenaBytes/typicalRecord)
	}
	a.bytes, a.records = a.bytes[:0], a.records[:0]
	a.pending.Store(1)
	p := w.p
	p.writesTo(p.topics.output.name)
	w.began = time.Now()
	w.done = func(_ *kgo.Record, err error) {
		if err != nil {
			p.fail(&p.topics.output, err)
		}
		a.done()
	}
	return nil
}

// end hands the arena in use over to its records.
func (w *arenaWriter) end() {
	if w.a != nil {
		w.a.done()
		w.a = nil
	}
}
