package stream

import (
	"context"
	"time"

	"example.com/tiffin/internal/pulse"
)

// writersPerProcess batches may be on their way into Postgres: the rows of one are inserted while
// the one before is being committed. More gain nothing, since rows go in one batch after the
// other: they take ids from one sequence, and a batch's are then one run.
const writersPerProcess = 2

func (s *session) openWriters(ctx context.Context) error {
	for range cap(s.writers) {
		w, err := s.store.connect(ctx)
		if err != nil {
			return err
		}
		s.writers <- w
	}
	return nil
}

func (s *session) closeWriters(ctx context.Context) {
	for len(s.writers) > 0 {
		(<-s.writers).close(ctx)
	}
}

// beginStoring has a batch written to Postgres behind the rows of the batch before, prev. Whoever hears of an
// error here or of the batch's way ends the session.
func (s *session) beginStoring(b, prev *batch) error {
	s.state.doing(planning, "waiting for the feedback database")
	s.state.planner.Await(s.storingLimit())
	ledger, turn := prev.stored, prev.numbered
	if b.alone || b.bulky {
		turn = ledger // it may have to wait for the brokers, in a transaction that does nothing meanwhile
	}
	var w deliverer
	select {
	case w = <-s.writers:
	case <-s.work.Done():
		return context.Cause(s.work)
	}
	s.state.writing(s.storingLimit())
	s.spawn(func() error {
		defer func() { s.writers <- w }()
		defer b.leave()
		if err := await(s.work, turn); err != nil {
			return err
		}
		b.timing.postgres.begin(b, s.cfg.Now)
		err := s.storeBatch(s.work, w, b, ledger)
		b.timing.postgres.end(b, s.cfg.Now, err, &b.timing.postgresErr)
		if err != nil {
			return sinkFault(sinkPostgres, err)
		}
		s.state.stored(s.storingLimit())
		close(b.stored)
		return nil
	})
	return nil
}

// storingLimit is how long a batch may be on its way into Postgres, and the one before it.
func (s *session) storingLimit() time.Duration {
	return pulse.Limit + 6*timeoutOf(s.cfg.MaxTransactionRecords)
}
