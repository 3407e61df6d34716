package stream

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// rotation lends the producers of a process in turn. Batches take them; lanes and recoveries borrow,
// one fewer at a time than there are, so that a batch never waits for the end of a chunk: neither for
// a producer nor for the memory of its records.
type rotation struct {
	cfg  *Config
	free chan *producer
	lent chan struct{}
	all  []*producer
	// ofBatches and ofLanes hold the records of whoever took, or borrowed, a producer.
	ofBatches, ofLanes *arenas
}

// newRotation makes the producers and, in exactly_once mode, takes over their transactional
// ids, which ends whatever a predecessor left open.
func newRotation(ctx context.Context, cfg *Config, topics topics) (*rotation, error) {
	r := emptyRotation(cfg)
	explicit, err := wantsAddOffsets(ctx, cfg)
	if err != nil {
		return nil, err
	}
	for n := range producersPerProcess {
		p, err := newProducer(cfg, topics, n)
		if err != nil {
			r.close(ctx)
			return nil, err
		}
		p.explicit = explicit
		r.all = append(r.all, p)
	}
	if err := r.init(ctx); err != nil {
		r.close(ctx)
		return nil, err
	}
	for _, p := range r.all {
		r.free <- p
	}
	return r, nil
}

func emptyRotation(cfg *Config) *rotation {
	return &rotation{
		cfg: cfg, free: make(chan *producer, producersPerProcess), lent: make(chan struct{}, producersPerProcess-1),
		ofBatches: newArenas(), ofLanes: newArenas(),
	}
}

func (r *rotation) init(ctx context.Context) error {
	errs := make([]error, len(r.all))
	var wg sync.WaitGroup
	for i, p := range r.all {
		if p.txnID == "" {
			continue
		}
		wg.Go(func() { errs[i] = r.takeOver(ctx, i) })
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil || r.cfg.Mode != ExactlyOnce {
		return err
	}
	for _, id := range openIDs(ctx, r.all[0].cl, r.cfg, r.cfg.Kafka.Process, producersPerProcess) {
		if err := endTransaction(ctx, r.all[0].cl, id); err != nil {
			return fmt.Errorf("end what a life before left open under transactional id %s: %w", id, err)
		}
	}
	return nil
}

// takeOver takes the transactional id of one producer over, or its spare one where the brokers do not end the
// last transaction.
func (r *rotation) takeOver(ctx context.Context, n int) error {
	p := r.all[n]
	taken := make(chan error, 1)
	go func() { taken <- p.takeOver(ctx) }()
	look := time.NewTicker(takeOverPatience)
	defer look.Stop()
	for {
		select {
		case err := <-taken:
			return err
		case <-look.C:
		}
		stuck := p.withoutEnd(ctx)
		if stuck == nil {
			continue // taken tells why not
		}
		r.cfg.Log.Warn("the brokers do not end a transaction, though they have its outcome; another transactional id is used meanwhile",
			"transactional_id", stuck.TxnID, "state", stuck.State, "fix", stuck.fix())
		p.cl.Close()
		<-taken //nolint:errcheck // that the client was closed
		spare, err := newProducer(r.cfg, p.topics, n+producersPerProcess)
		if err != nil {
			return err
		}
		spare.explicit = p.explicit
		r.all[n] = spare
		return spare.takeOver(ctx)
	}
}

func (r *rotation) take(ctx context.Context) (*producer, error) {
	select {
	case p := <-r.free:
		p.arenas = r.ofBatches
		return p, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

func (r *rotation) give(p *producer) { r.free <- p }

// borrow is take for a chunk of a lane; giveBack ends it.
func (r *rotation) borrow(ctx context.Context) (*producer, error) {
	select {
	case r.lent <- struct{}{}:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	p, err := r.take(ctx)
	if err != nil {
		<-r.lent
		return nil, err
	}
	p.arenas = r.ofLanes
	return p, nil
}

func (r *rotation) giveBack(p *producer) {
	r.give(p)
	<-r.lent
}

func (r *rotation) close(ctx context.Context) {
	var wg sync.WaitGroup
	for _, p := range r.all {
		wg.Go(func() { p.close(ctx) })
	}
	wg.Wait()
}
