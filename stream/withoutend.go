package stream

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

// A transaction's coordinator first writes down how the transaction ends, then tells the leaders of its
// partitions, and only then lets its transactional id be used again. It may never come so far: where a partition
// has no leader, or where it has lost track itself, as brokers before 3.8 do when a broker dies (KAFKA-16352;
// seen on 3.5.2 in four of eight deaths in a backlog). Every transaction behind it would wait for an operator.
// Nothing is unknown about it, though: whether it is committed is decided, and what belongs to it, the group's
// offsets among that, is told apart by its producer's id. So its producer goes on under a spare transactional id.
// Whoever held the old one can't commit behind our back once the brokers end it: each of our transactions
// commits offsets, which are refused to a generation that is over (KIP-447).

// takeOverPatience is how long a transaction may take to end before a spare id is used: more than a dead broker's
// partitions are without a leader where brokers keep their default of 9 s, and less than openTimeout.
const takeOverPatience = 10 * time.Second

// takeOver fences and aborts what a predecessor of the same transactional id left open.
func (p *producer) takeOver(ctx context.Context) error {
	_, _, err := p.cl.ProducerID(ctx)
	if err == nil {
		return nil
	}
	err = fmt.Errorf("take over transactional id %s: %w", p.txnID, err)
	if errors.Is(err, kerr.TransactionalIDNotFound) || errors.Is(err, kerr.UnsupportedVersion) {
		err = fmt.Errorf("%w (a broker without transactions needs delivery.mode: at_least_once)", err)
	}
	return err
}

// withoutEnd is the transaction with the producer's id if its outcome is decided and it has not come to its
// end; nil otherwise, also where nobody tells: brokers before 3.0 do not (KIP-664).
func (p *producer) withoutEnd(ctx context.Context) *withoutEnd {
	ctx, cancel := context.WithTimeout(ctx, takeOverPatience/4)
	defer cancel()
	all, err := kadm.NewClient(p.cl).DescribeTransactions(ctx, p.txnID)
	if err != nil {
		return nil
	}
	switch t := all[p.txnID]; t.State {
	case "PrepareCommit", "PrepareAbort":
		return &withoutEnd{t}
	default:
		return nil
	}
}

// withoutEnd is a transaction that the brokers do not end, an error while it holds another one up.
type withoutEnd struct{ kadm.DescribedTransaction }

func (t *withoutEnd) Error() string {
	return fmt.Sprintf("transaction %s has been in state %s for %s or longer; fix: %s", t.TxnID, t.State, takeOverPatience, t.fix())
}

func (t *withoutEnd) fix() string {
	var untold []string
	for _, of := range t.Topics.Sorted() {
		for _, partition := range of.Partitions {
			untold = append(untold, fmt.Sprintf("%s/%d", of.Topic, partition))
		}
	}
	if len(untold) == 0 {
		return fmt.Sprintf("restart broker %d, its coordinator, which has lost track of it (KAFKA-16352, of brokers before 3.8)", t.Coordinator)
	}
	return "start the brokers that lead " + strings.Join(untold, ", ")
}

// watch ends a wait with the reason if the transaction before is what it waits for. It returns what ends the
// watch.
func (p *producer) watch(ctx context.Context, end context.CancelCauseFunc) (stop func()) {
	if p.txnID == "" {
		return func() {}
	}
	done := make(chan struct{})
	look := time.AfterFunc(takeOverPatience, func() {
		defer close(done)
		if stuck := p.withoutEnd(ctx); stuck != nil {
			end(stuck)
		}
	})
	return func() {
		end(nil)
		if !look.Stop() {
			<-done
		}
	}
}

// openIDs are the transactional ids of a process, from one of its producers on, with a transaction that nobody has
// ended: its own, of a life before, or a dead process's. The spare ones begin at producersPerProcess.
func openIDs(ctx context.Context, cl *kgo.Client, cfg *Config, process string, from int) (open []string) {
	ctx, cancel := context.WithTimeout(ctx, takeOverPatience/4)
	defer cancel()
	var ids []string
	for n := from; n < 2*producersPerProcess; n++ {
		ids = append(ids, transactionalID(cfg, process, n))
	}
	all, err := kadm.NewClient(cl).DescribeTransactions(ctx, ids...)
	if err != nil {
		return nil // by brokers before 3.0, with which no spare id is used
	}
	for _, id := range ids {
		if all[id].State == "Ongoing" {
			open = append(open, id)
		}
	}
	return open
}
