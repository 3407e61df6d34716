package stream

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

const (
	// evictTimeout bounds the wait for the brokers to end a dead process's transactions.
	evictTimeout = 10 * time.Second
	// evictPause is between two questions whether a transaction has ended.
	evictPause = 20 * time.Millisecond
)

// evict ends the sessions and transactions of the processes that had the partitions and did not
// give them up: they are dead, or taken for dead. A session in Postgres may hold the ledger's row.
// A transaction left open in Kafka makes the group's offsets unstable and holds back every reader
// of the output, also from what this process sends, until the brokers give it up
// (transactionTimeout). It comes before the group's offsets are asked for.
func (s *session) evict(ctx context.Context, partitions []int32) error {
	if len(partitions) == 0 {
		return nil
	}
	owners, err := s.store.owners(ctx, partitions)
	if err != nil {
		return sinkFault(sinkPostgres, err)
	}
	for _, owner := range owners {
		switch {
		case owner == "":
			continue // given up in order
		case owner == s.cfg.Kafka.Process && s.cfg.Mode == ExactlyOnce:
			continue // the rotation has taken its ids over
		case owner == s.cfg.Kafka.Process:
			s.endTransactions(ctx, owner) // of a life before, in exactly_once mode
			continue
		}
		s.log.Warn("ending what a process left that did not give its partitions up", "process", owner)
		if _, err := s.store.endSessions(ctx, owner); err != nil {
			s.log.Warn("its sessions in the feedback database stay; a partition that one of them holds locked cannot be taken over until it ends", "process", owner, "err", err)
		}
		s.endTransactions(ctx, owner)
	}
	return nil
}

// endTransactions ends what the producers of a process have open. Where it cannot, that costs
// time, not correctness: the brokers end it later by themselves.
func (s *session) endTransactions(ctx context.Context, process string) {
	var ids []string
	if s.cfg.Mode == ExactlyOnce { // a producer may be about to begin one: it is fenced in any case
		for n := range producersPerProcess {
			ids = append(ids, transactionalID(s.cfg, process, n))
		}
	}
	ids = append(ids, openIDs(ctx, s.cl, s.cfg, process, len(ids))...)
	for _, id := range ids {
		if err := endTransaction(ctx, s.cl, id); err != nil {
			s.log.Warn("a transaction stays open until the brokers give it up; readers of the output wait for it",
				"transactional_id", id, "at_most", transactionTimeout, "err", err)
		}
	}
}

// endTransaction raises the epoch of a transactional id, which fences its producer and aborts
// what that has open (KIP-98, InitProducerId).
func endTransaction(ctx context.Context, cl *kgo.Client, id string) error {
	ctx, cancel := context.WithTimeout(ctx, evictTimeout)
	defer cancel()
	for {
		req := kmsg.NewPtrInitProducerIDRequest()
		req.TransactionalID, req.TransactionTimeoutMillis = &id, int32(transactionTimeout.Milliseconds())
		resp, err := req.RequestWith(ctx, cl)
		if err == nil {
			err = kerr.ErrorForCode(resp.ErrorCode)
		}
		// Concurrent: it is being aborted, and has ended with the answer after the last of these.
		if !errors.Is(err, kerr.ConcurrentTransactions) {
			return err
		}
		if wait(ctx, evictPause) != nil {
			return fmt.Errorf("%w: %w", err, ctx.Err())
		}
	}
}
