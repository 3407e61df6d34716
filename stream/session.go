package stream

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"example.com/tiffin/cache"
)

const (
	// drainTimeout bounds how long a process that was asked to stop finishes what it has in
	// hand, and how long a rebalance waits for it: below the group's rebalance timeout (60 s).
	drainTimeout = 40 * time.Second
	// lanePatience is how long a lane may go on after the request to stop before it is cut: as
	// most need, and less than what service managers grant (30 s and more).
	lanePatience = 10 * time.Second
	// fetchWait is how long a broker holds back a fetch without data. Whatever joins the fetched
	// partitions meanwhile (taken over, or paused for a lane) waits for the answer to the request
	// that does not name it: up to 5 s by the client's default. An idle process asks each broker
	// four times a second instead, at 0.3 ms of CPU each (measured, 12 partitions): a thousandth of
	// a core. Half a second would save half of that, and make people wait twice as long.
	fetchWait = 250 * time.Millisecond
	// leaveTimeout bounds each wait for the brokers of a process that leaves the group.
	leaveTimeout = 3 * time.Second
	// openTimeout bounds the opening of a session, so that its reason is named in time.
	openTimeout = 25 * time.Second
)

// session is one uninterrupted life of the delivery: connections, group membership, claims.
// Any fault ends it, and the next one begins with the recovery table.
type session struct {
	cfg     *Config
	log     *slog.Logger
	metrics *metrics
	state   *state
	fence   Fence
	planner planner
	// openStore is openFeedback; a test may keep its store in memory.
	openStore func(context.Context, *Config) (store, error)

	store    store
	writers  chan deliverer // those that are free
	topics   topics
	rotation *rotation
	cl       *kgo.Client
	// cutConsumer ends every request of cl.
	cutConsumer context.CancelFunc
	member      *member
	claims      *claims
	goal        *goal   // until-now's; nil otherwise
	limits      *limits // outlive the session
	care        *care   // likewise

	// joined is closed when the consumer is there for its callbacks to use.
	joined chan struct{}
	// committed belongs to the group's goroutine.
	committed map[int32]committed

	// work ends when the session fails; fail ends it. Set before the consumer starts.
	work context.Context //nolint:containedctx // the group's callbacks outlive any call; they end with the session
	fail context.CancelCauseFunc
	// cutting ends when all lanes are to be cut: patience after the request to stop. Set
	// before the consumer starts.
	cutting    context.Context //nolint:containedctx // as work
	patience   time.Duration
	balancer   kgo.GroupBalancer
	recovering chan struct{} // one recovery at a time

	group sync.WaitGroup
	slots chan struct{} // one per batch in flight
	last  *batch        // sent last; at first one that is in both sinks
	lanes *lanes
}

// open connects everything but the group. What it opened is closed by close, also after an
// error.
func (s *session) open(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, openTimeout, errors.New("no answer within "+openTimeout.String()))
	defer cancel()
	s.state.enter("connecting to the feedback database")
	var err error
	if s.store, err = s.openStore(ctx, s.cfg); err != nil {
		return sinkFault(sinkPostgres, fmt.Errorf("feedback database: %w", err))
	}
	if err := s.openWriters(ctx); err != nil {
		return sinkFault(sinkPostgres, fmt.Errorf("feedback database: %w", err))
	}
	s.state.enter("connecting to the brokers")
	if err := s.openKafka(ctx); err != nil {
		return sinkFault(sinkKafka, fmt.Errorf("kafka: %w", err))
	}
	return nil
}

func (s *session) openKafka(ctx context.Context) error {
	k := &s.cfg.Kafka
	watch := &dialWatch{}
	cl, err := k.newClient(kgo.WithHooks(watch), kgo.WithLogger(clientLog{s.log}))
	if err != nil {
		return err
	}
	defer cl.Close()
	if err := cl.Ping(ctx); err != nil {
		if !undialled(watch.explain(err)) && !IsPermanent(watch.explain(err)) {
			err = errors.Join(k.mixup(context.WithoutCancel(ctx)), err)
		}
		return watch.explain(err)
	}
	if s.topics, err = describeTopics(ctx, cl, k, s.limits, s.log); err != nil {
		return watch.explain(err)
	}
	if s.goal != nil {
		if err := s.goal.set(ctx, cl, k.Input); err != nil {
			return err
		}
	}
	s.planner.topics = s.topics
	s.state.enter("taking over the transactional ids")
	if s.rotation, err = newRotation(ctx, s.cfg, s.topics); err != nil {
		return err
	}
	return nil
}

// join starts the consumer: from here on the group's goroutine calls back.
func (s *session) join() error {
	k := &s.cfg.Kafka
	life, cut := context.WithCancel(context.WithoutCancel(s.work))
	s.cutConsumer = cut
	opts := []kgo.Opt{
		kgo.WithContext(life),
		kgo.WithLogger(clientLog{s.log}),
		kgo.ConsumerGroup(k.Group),
		kgo.ConsumeTopics(k.Input),
		kgo.Balancers(s.balancer),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.KeepControlRecords(), // a position behind a transaction's marker is a position
		kgo.ConsumeResetOffset(kgo.NoResetOffset()),
		kgo.DisableAutoCommit(),
		kgo.SessionTimeout(k.SessionTimeout),
		kgo.HeartbeatInterval(min(time.Second, k.SessionTimeout/3)), // its answer tells of a rebalance
		kgo.FetchMaxWait(fetchWait),
		kgo.FetchMaxBytes(768 << 10),
		kgo.FetchMaxPartitionBytes(256 << 10),
		kgo.OnOffsetsFetched(func(_ context.Context, _ *kgo.Client, resp *kmsg.OffsetFetchResponse) error {
			s.remember(resp)
			return nil
		}),
		kgo.AdjustFetchOffsetsFn(s.assigned),
		kgo.OnPartitionsAssigned(func(_ context.Context, _ *kgo.Client, added map[string][]int32) {
			<-s.joined
			s.added(added[k.Input])
		}),
		kgo.OnPartitionsRevoked(s.revoked),
		kgo.OnPartitionsLost(s.lost),
	}
	if k.InstanceID != "" {
		opts = append(opts, kgo.InstanceID(k.InstanceID))
	}
	s.state.enter("waiting for group " + k.Group + " to assign partitions")
	s.member = &member{group: k.Group, topic: s.topics.input}
	if k.InstanceID != "" {
		s.member.instance = &k.InstanceID
	}
	cl, err := k.newClient(append(opts, clientMetrics(s.cfg.Registerer, "consumer")...)...)
	if err != nil {
		cut()
		return err
	}
	s.cl, s.member.cl = cl, cl
	s.lanes.pause = func(partitions ...int32) { cl.PauseFetchPartitions(map[string][]int32{k.Input: partitions}) }
	s.lanes.resume = func(partitions ...int32) { cl.ResumeFetchPartitions(map[string][]int32{k.Input: partitions}) }
	close(s.joined)
	return nil
}

// added are partitions that the group has given to this process: their offsets are asked for next, and answered once
// no transaction that may move them is open.
func (s *session) added(partitions []int32) {
	if len(partitions) == 0 {
		s.state.ready()
		return
	}
	s.state.doing(joining, fmt.Sprintf("waiting for the offsets of partitions %v, which the brokers tell when no transaction of group %s is open any more",
		slices.Sorted(slices.Values(partitions)), s.cfg.Kafka.Group))
	if err := s.evict(s.work, partitions); err != nil {
		s.fail(fmt.Errorf("take partitions over: %w", err))
	}
}

// assigned takes partitions over before the first record of them is read.
func (s *session) assigned(_ context.Context, offsets map[string]map[int32]kgo.Offset) (map[string]map[int32]kgo.Offset, error) {
	<-s.joined
	s.state.doing(joining, "")
	taken, err := s.takeOver(s.work, offsets)
	if err != nil {
		s.fail(fmt.Errorf("take partitions over: %w", err))
		return nil, err
	}
	s.state.ready()
	return taken, nil
}

// revoked finishes what is in hand of the partitions before they go to another member.
func (s *session) revoked(_ context.Context, _ *kgo.Client, gone map[string][]int32) {
	partitions := gone[s.cfg.Kafka.Input]
	if len(partitions) == 0 {
		return
	}
	s.state.doing(joining, "")
	if err := s.giveUp(s.work, partitions); err != nil {
		s.claims.lose(partitions)
		s.fail(fmt.Errorf("give partitions up: %w", err))
	}
}

func (s *session) giveUp(ctx context.Context, partitions []int32) error {
	ctx, cancel := context.WithTimeoutCause(ctx, drainTimeout, errors.New("the batch in hand was not delivered within "+drainTimeout.String()))
	defer cancel()
	given, err := s.claims.give(ctx, partitions)
	if err != nil {
		return err
	}
	for _, c := range given {
		level := c.planned
		if c.cut {
			level = notLevel // whoever takes it levels it out
		}
		if err := s.store.giveUp(ctx, c, level); err != nil {
			return sinkFault(sinkPostgres, err)
		}
		s.log.Info("partition given up", "partition", c.partition, "offset", c.planned)
	}
	return nil
}

// lost partitions may already be somebody else's: nothing of them is finished.
func (s *session) lost(_ context.Context, _ *kgo.Client, gone map[string][]int32) {
	if partitions := gone[s.cfg.Kafka.Input]; len(partitions) > 0 {
		s.claims.lose(partitions)
		s.fail(sinkFault(sinkKafka, &lostError{group: s.cfg.Kafka.Group, partitions: partitions}))
	}
}

// run delivers until ctx ends, the goal is reached, or something fails.
func (s *session) run(ctx context.Context) error {
	// active ends with the request to stop, with a fault, or when the goal is reached: no
	// new messages then, but what is in hand is finished unless it was a fault.
	active, stop := context.WithCancel(ctx)
	defer stop()
	cutting, cut := context.WithCancel(s.work)
	defer cut()
	s.cutting = cutting
	// The group's goroutine may begin a lane before join returns: the count begins here, so that no lane
	// is the first, beside the Wait below (sync.WaitGroup.Add).
	s.group.Add(1)
	if err := s.join(); err != nil {
		s.group.Done()
		return sinkFault(sinkKafka, err)
	}
	defer context.AfterFunc(s.work, stop)()
	defer context.AfterFunc(active, func() {
		s.state.session.Beat() // it must come to its end now
		s.state.enter("finishing what is in hand")
	})()
	s.state.session.Rest()

	polled, planned := make(chan []message), make(chan struct{})
	s.spawn(func() error {
		err := s.poll(active, polled)
		if errors.Is(err, kerr.OffsetOutOfRange) { // what was read is in the topic no more
			s.finish(planned)
		}
		return err
	})
	s.spawn(func() error {
		defer close(planned)
		return s.deliverAll(active, polled)
	})
	s.spawn(func() error { return s.probe(active) })
	if s.goal != nil {
		s.spawn(func() error {
			defer stop()
			return s.goal.await(active, s)
		})
	}
	s.group.Done()
	defer after(active, s.patience, cut)()
	defer after(active, drainTimeout, func() {
		s.fail(errors.New("what was in hand was not delivered within " + drainTimeout.String() + " after the request to stop"))
	})()
	s.group.Wait()
	if s.work.Err() != nil {
		return context.Cause(s.work)
	}
	return s.leave()
}

// spawn runs a goroutine of the session; its error ends the session.
func (s *session) spawn(run func() error) {
	s.group.Go(func() {
		if err := run(); err != nil {
			s.fail(err)
		}
	})
}

// after calls do once so much time has passed since ctx ended, unless it is cancelled.
func after(ctx context.Context, d time.Duration, do func()) (cancel func()) {
	var mu sync.Mutex
	var timer *time.Timer
	stop := context.AfterFunc(ctx, func() {
		mu.Lock()
		defer mu.Unlock()
		timer = time.AfterFunc(d, do)
	})
	return func() {
		stop()
		mu.Lock()
		defer mu.Unlock()
		if timer != nil {
			timer.Stop()
		}
	}
}

// pollFor bounds one poll, so that what is owned is known as of shortly before it.
const pollFor = 5 * time.Second

// pollOnce gives what came, if anything, and the claims that it was read under.
func (s *session) pollOnce(ctx context.Context) (kgo.Fetches, map[int32]*claim, error) {
	ctx, cancel := context.WithTimeout(ctx, pollFor)
	defer cancel()
	before := s.claims.watch(cancel) // a poll goes on over no change of hands while it waits
	fetches := s.cl.PollRecords(ctx, batchTriggers)
	owned := s.claims.all()
	var faults error
	fetches.EachError(func(topic string, partition int32, err error) {
		if topic != "" || ctx.Err() == nil { // else it is kgo's word for the poll's end
			faults = errors.Join(faults, fmt.Errorf("read %s/%d: %w", topic, partition, err))
		}
	})
	// A partition that went and came back meanwhile: nobody knows under which claim its records were read.
	// One that was not ours before has none of an earlier claim: they are dropped before it is given up.
	fetches.EachPartition(func(p kgo.FetchTopicPartition) {
		if was, is := before[p.Partition], owned[p.Partition]; was != nil && is != nil && was != is && len(p.Records) > 0 {
			faults = errors.Join(faults, fmt.Errorf("read %s/%d: it changed hands and came back", p.Topic, p.Partition))
		}
	})
	if faults != nil {
		return nil, nil, sinkFault(sinkKafka, faults)
	}
	return fetches, owned, nil
}

// poll reads campaign messages ahead by one poll, and raises the fence behind them, while
// what was read before is being delivered.
func (s *session) poll(ctx context.Context, polled chan<- []message) error {
	defer close(polled)
	for {
		fetches, owned, err := s.pollOnce(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			return err
		case fetches.NumRecords() == 0:
			continue
		}
		mark, fence, err := s.raise(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			return fmt.Errorf("fence: %w", err)
		}
		select {
		case polled <- marked(fetches, owned, mark, fence):
		case <-ctx.Done():
			return nil
		}
	}
}

// finishFor bounds how long a session that is about to end goes on with what it has read.
const finishFor = 10 * time.Second

// finish waits until everything that was read is planned and in both sinks.
func (s *session) finish(planned <-chan struct{}) {
	s.log.Info("retention was quicker than the reading; what was read is delivered before that is looked into")
	ctx, cancel := context.WithTimeout(s.work, finishFor)
	defer cancel()
	if await(ctx, planned) == nil {
		_ = s.claims.settled(ctx) // the session ends in either case
	}
}

// raise waits for the fence; with a tracer it notes when.
func (s *session) raise(ctx context.Context) (mark cache.Mark, at steps, err error) {
	if s.cfg.Tracer != nil {
		at.begun = s.cfg.Now()
	}
	s.state.doing(polling, "waiting for the index to reach the source's position (fence)")
	mark, err = s.fence.Wait(ctx)
	s.state.doing(polling, "")
	if s.cfg.Tracer != nil {
		at.ended = s.cfg.Now()
	}
	return mark, at, err
}

// marked notes with each message how far the index had come after it was read: whatever was
// committed before that is in it.
func marked(fetches kgo.Fetches, owned map[int32]*claim, mark cache.Mark, fence steps) []message {
	messages := make([]message, 0, fetches.NumRecords())
	fetches.EachRecord(func(r *kgo.Record) { messages = append(messages, message{r, owned[r.Partition], mark, fence}) })
	return messages
}

// leave gives every partition up in order and takes the process out of the group, a static
// member too: whoever is left takes over at once instead of waiting for a time-out.
func (s *session) leave() error {
	if err := s.giveUp(s.work, s.claims.partitions()); err != nil {
		return err
	}
	return s.leaveGroup()
}

// close ends everything that open and join started. It may be called after a failed open.
func (s *session) close(ctx context.Context) {
	s.fail(errSessionOver)
	if s.cl != nil {
		_ = s.closeConsumer() // what ended the session is the news
	}
	if s.rotation != nil {
		s.rotation.close(ctx)
	}
	s.closeWriters(ctx)
	if s.store != nil {
		s.store.close(ctx)
	}
}

var errSessionOver = errors.New("session over")
