package stream

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// Engine joins campaigns and delivers them. Run owns every goroutine; Reasons and Progress
// may be called at any time.
type Engine struct {
	cfg     Config
	log     *slog.Logger
	index   Index
	fence   Fence
	metrics *metrics
	state   *state
	limits  *limits
	care    *care

	openStore func(context.Context, *Config) (store, error)
	patience  time.Duration // lanePatience, but in tests
	// balancer shares the partitions out; a test may take one that revokes all at every rebalance.
	balancer kgo.GroupBalancer
}

// New validates the configuration; it neither connects nor starts anything.
func New(cfg Config, index Index, fence Fence) (*Engine, error) {
	cfg.setDefaults()
	err := cfg.Validate()
	if index == nil {
		err = errors.Join(err, errors.New("no index"))
	}
	if fence == nil {
		err = errors.Join(err, errors.New("no fence"))
	}
	if err != nil {
		return nil, fmt.Errorf("stream config: %w", err)
	}
	state := newState(cfg.Now)
	return &Engine{
		cfg: cfg, log: cfg.Log, index: index, fence: fence,
		metrics: newMetrics(cfg.Registerer, state), state: state, limits: newLimits(), care: &care{},
		openStore: openFeedback, patience: lanePatience, balancer: kgo.CooperativeStickyBalancer(),
	}, nil
}

// Reasons says why nothing is being delivered; empty when all is well.
func (e *Engine) Reasons() []string { return e.state.reasons() }

// Hangs names what has shown no sign of life for longer than it may; whoever wants to know must ask
// every few seconds.
func (e *Engine) Hangs(now time.Time) []string { return e.state.pulses.Hangs(now) }

// Progress tells how far the large deliveries under way are, a line each.
func (e *Engine) Progress() []string { return e.state.progress() }

const (
	// firstPause follows a session that delivered something; without it the pause doubles, up
	// to lastPause (and half of it by chance), which is what an end of an outage may cost.
	firstPause = 200 * time.Millisecond
	lastPause  = 5 * time.Second
)

// Run delivers until ctx ends (it then finishes the batch in hand and returns nil, also when another
// process takes that batch over), until the goal of UntilNow is reached (nil), or until an error
// that waiting cannot mend: any IsPermanent error before the first readiness, later only a
// LedgerError.
func (e *Engine) Run(ctx context.Context) error {
	var until *goal
	if e.cfg.UntilNow {
		until = &goal{}
	}
	pause := firstPause
	defer e.state.session.Rest()
	for {
		e.state.session.Beat()
		err := e.session(ctx, until)
		if _, nothing := errors.AsType[unopenedError](err); err == nil || nothing && stopped(ctx) {
			return nil
		}
		err = withRemedy(err)
		if stopped(ctx) {
			return e.stoppedBy(err)
		}
		if e.hopeless(err) {
			return err
		}
		if e.state.progressed() {
			pause = firstPause
		}
		e.count(err)
		e.limits.learn(err)
		e.state.ended(err)
		e.log.Warn("delivery interrupted; trying again", "err", err, "pause", pause)
		if wait(ctx, pause+rand.N(pause/2)) != nil {
			return nil
		}
		pause = min(2*pause, lastPause)
	}
}

// stoppedBy judges a fault that came between the request to stop and the end. Whose partitions went to
// others has nothing left to finish: they do, as after a crash.
func (e *Engine) stoppedBy(err error) error {
	if takenOver(err) {
		e.log.Warn("stopped without finishing what was in hand; whoever takes the partitions does", "err", err)
		return nil
	}
	return fmt.Errorf("while stopping: %w", err)
}

func (e *Engine) hopeless(err error) bool {
	var ledger *LedgerError
	return errors.As(err, &ledger) || !e.state.everReady() && IsPermanent(err)
}

func (e *Engine) count(err error) {
	if sink, ok := errors.AsType[*sinkError](err); ok {
		e.metrics.retries.WithLabelValues(sink.sink).Inc()
	}
}

// session is one round from the connections to their end; nil means asked to stop, or done.
func (e *Engine) session(ctx context.Context, until *goal) error {
	work, fail := context.WithCancelCause(context.WithoutCancel(ctx))
	s := &session{
		cfg: &e.cfg, log: e.log, metrics: e.metrics, state: e.state, fence: e.fence,
		planner:   planner{cfg: &e.cfg, index: e.index},
		openStore: e.openStore, claims: newClaims(), goal: until, limits: e.limits, care: e.care,
		work: work, fail: fail, joined: make(chan struct{}),
		slots: make(chan struct{}, producersPerProcess), writers: make(chan deliverer, writersPerProcess), lanes: newLanes(), recovering: make(chan struct{}, 1), patience: e.patience,
		balancer: e.balancer, last: deliveredBatch(),
	}
	defer s.close(ctx)
	if err := s.open(ctx); err != nil {
		return unopenedError{err}
	}
	return s.run(ctx)
}

// unopenedError is the fault of a session that began nothing: who is asked to stop meanwhile, or
// before it is told, leaves nothing undone.
type unopenedError struct{ error }

func (e unopenedError) Unwrap() error { return e.error }

// leaveGroup ends the membership. A static member must be removed by name (KIP-345), after
// its client is closed, so that it does not join again. So must one that is joining when it is
// asked to stop: its client would wait for the end of the rebalance before it says goodbye, and
// the group would give partitions to nobody until the session times out.
func (s *session) leaveGroup() error {
	id, _ := s.cl.GroupMetadata()
	err := s.closeConsumer()
	if err == nil && s.cfg.Kafka.InstanceID == "" {
		return nil
	}
	if gone := s.beRemoved(id); gone != nil {
		s.log.Warn("the group keeps this member until its session times out", "err", errors.Join(err, gone))
	}
	return nil
}

// beRemoved has the coordinator forget this process: a static member by its name, another by
// the id that the group gave it.
func (s *session) beRemoved(id string) error {
	who := kmsg.NewLeaveGroupRequestMember()
	who.MemberID = id
	if s.cfg.Kafka.InstanceID != "" {
		who.MemberID, who.InstanceID = "", &s.cfg.Kafka.InstanceID
	} else if id == "" {
		return nil // it was never let in
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(s.work), leaveTimeout)
	defer cancel()
	asks := s.rotation.all[0]
	defer time.AfterFunc(leaveTimeout, asks.cut).Stop()
	req := kmsg.NewPtrLeaveGroupRequest()
	req.Group, req.MemberID, req.Members = s.cfg.Kafka.Group, id, append(req.Members, who)
	resp, err := req.RequestWith(ctx, asks.cl)
	if err != nil {
		return err
	}
	err = kerr.ErrorForCode(resp.ErrorCode)
	for _, m := range resp.Members {
		err = errors.Join(err, kerr.ErrorForCode(m.ErrorCode))
	}
	if errors.Is(err, kerr.UnknownMemberID) {
		return nil // forgotten already
	}
	return err
}

// closeConsumer leaves the group and closes the client. By itself that takes as long as the
// brokers do not answer (most of a minute), first the coordinator, then those fetched from.
func (s *session) closeConsumer() error {
	ctx, cancel := context.WithTimeoutCause(context.WithoutCancel(s.work), leaveTimeout,
		fmt.Errorf("the group's coordinator did not answer within %s", leaveTimeout))
	defer cancel()
	err := s.cl.LeaveGroupContext(ctx)
	if ctx.Err() != nil {
		err = context.Cause(ctx)
		s.fail(errSessionOver) // a callback may be waiting for a server
		s.cutConsumer()
	}
	defer time.AfterFunc(leaveTimeout, s.cutConsumer).Stop()
	s.cl.Close()
	s.cutConsumer()
	return err
}
