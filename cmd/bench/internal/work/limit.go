package work

import (
	"context"
	"errors"
	"runtime/debug"
	"time"

	"golang.org/x/sync/errgroup"

	"example.com/tiffin/cmd/bench/internal/testbed"
)

// limitBatch is rows a transaction: fewer cost more commits, more gave nothing. A small workload is
// cut into at least leastBatches, or nothing would go on side by side.
const (
	limitBatch   = 10_000
	leastBatches = 9
)

// LimitForm is how many connections to Postgres and how many producers share the work. Which gives
// most depends on the machine, so that a run tries them before it measures. Thousands of deliveries/s
// on 2 cores shared with broker, database and other work, medians of three (BenchmarkLimit):
//
//	writers, producers    1, 2    2, 2    1, 3    2, 3    3, 3
//	fan-out 10 (COPY)       97     144     138     137     158
//	fan-out 100 (INSERT)   100     119      89     166     188
type LimitForm struct{ Writers, Producers int }

// LimitForms are those worth trying; the first is the best guess.
func LimitForms() []LimitForm { return []LimitForm{{3, 3}, {2, 2}, {1, 2}} }

// Limit is the plainest program that moves the same rows and records: campaigns are merged into
// batches; each batch is one Postgres transaction (an INSERT ... SELECT of constants and unnest a
// campaign, all sent at once, or one COPY where fan-outs are small) and, beside it, one Kafka
// transaction of the same deliveries, which ends after Postgres has committed. No input, no join, no
// ledger, no offsets; what can be encoded before the clock runs is. It moves the first campaigns of
// the workload to a lane of its own and returns the duration for all of them.
func Limit(ctx context.Context, w *Workload, lane *testbed.Lane, campaigns int, form LimitForm) (time.Duration, error) {
	plan, err := planLimit(w, lane, campaigns, false)
	if err != nil {
		return 0, err
	}
	return plan.timed(ctx, lane, form, func(context.Context) error { return nil })
}

// timed moves all batches, while beside does what it does, and returns how long both took.
func (p *limitPlan) timed(ctx context.Context, lane *testbed.Lane, form LimitForm, beside func(context.Context) error) (time.Duration, error) {
	m, err := newMover(ctx, p, lane, form)
	if err != nil {
		return 0, err
	}
	defer m.close()
	// What was encoded beforehand is no garbage to be looked for again and again.
	defer debug.SetGCPercent(debug.SetGCPercent(400))
	batches := make(chan span, len(p.batches))
	for _, b := range p.batches {
		batches <- b
	}
	close(batches)
	begun := time.Now()
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return beside(ctx) })
	group.Go(func() error { return m.run(ctx, batches) })
	err = group.Wait()
	return time.Since(begun), err
}

// mover has what moves batches. Producers are used in rotation, because a broker makes quick
// successors of one transactional id wait.
type mover struct {
	plan      *limitPlan
	writers   chan *limitWriter
	producers chan *limitProducer
}

func newMover(ctx context.Context, plan *limitPlan, lane *testbed.Lane, form LimitForm) (*mover, error) {
	m := &mover{plan: plan, writers: make(chan *limitWriter, form.Writers), producers: make(chan *limitProducer, form.Producers)}
	for range form.Writers {
		w, err := newLimitWriter(ctx, plan, lane)
		if err != nil {
			m.close()
			return nil, err
		}
		m.writers <- w
	}
	for n := range form.Producers {
		p, err := newLimitProducer(ctx, plan, lane, n)
		if err != nil {
			m.close()
			return nil, err
		}
		m.producers <- p
	}
	return m, nil
}

// close ends what is at rest; nothing else is once run has returned.
func (m *mover) close() {
	for len(m.writers) > 0 {
		(<-m.writers).close()
	}
	for len(m.producers) > 0 {
		(<-m.producers).close()
	}
}

// run moves batches until there are no more: as many at once as there are producers.
func (m *mover) run(ctx context.Context, batches <-chan span) error {
	group, moving := errgroup.WithContext(ctx)
	for {
		p := <-m.producers // whoever has it gives it back
		b, ok := m.next(moving, batches)
		if !ok {
			m.producers <- p
			return errors.Join(group.Wait(), ctx.Err())
		}
		group.Go(func() error {
			defer func() { m.producers <- p }()
			return m.move(moving, b, p)
		})
	}
}

func (m *mover) next(ctx context.Context, batches <-chan span) (span, bool) {
	select {
	case b, ok := <-batches:
		return b, ok
	case <-ctx.Done():
		return span{}, false
	}
}

// move is one batch: produced while Postgres works, as tiffin may, and visible after it.
func (m *mover) move(ctx context.Context, b span, p *limitProducer) error {
	inserted := make(chan error, 1)
	go func() {
		w := <-m.writers
		err := w.insert(ctx, b)
		m.writers <- w // before anybody may close
		inserted <- err
	}()
	produced := p.produce(ctx, b)
	if err := errors.Join(produced, <-inserted); err != nil {
		return err
	}
	return p.commit(ctx)
}
