package stream

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// A row that the feedback table's own rules refuse is refused for ever: its campaign becomes
// a dead letter, as a whole. Which campaign of a batch it was, Postgres does not always tell,
// and records of the batch are under way to the brokers: so the session ends, and the next
// ones take care.

// careFor is how long care is taken after a refusal.
const careFor = time.Minute

// care is taken while rows are being refused: each campaign is alone with its rows, and none
// of its records is produced before Postgres has taken them. It outlives the session.
type care struct{ until atomic.Int64 } // in Unix nanoseconds

func (c *care) taken(now time.Time) bool { return now.UnixNano() < c.until.Load() }

func (c *care) take(now time.Time) { c.until.Store(now.Add(careFor).UnixNano()) }

// refusedRow returns the fault of the record when err says that a rule of the feedback table
// refuses it: a CHECK constraint, a text longer than its column or than an index takes, a time out of
// range, an exception that a trigger raises. What else a table may complain of (a column that must not be null, a row that is
// missing elsewhere or there twice, a partition that is missing) is the table's state:
// somebody mends it, and it is waited for.
func refusedRow(err error) *MalformedError {
	pg, ok := errors.AsType[*pgconn.PgError](err)
	if !ok || pg.SchemaName == "tiffin" {
		return nil
	}
	switch {
	case pg.Code == "23514" && pg.ConstraintName != "": // check_violation; without a name: no partition for the row
	case pg.Code == "22001", pg.Code == "22008": // string_data_right_truncation, datetime_field_overflow (of a generated column)
	case pg.Code == "54000" && !slices.Contains(tableLimits, pg.File): // program_limit_exceeded: a text that an index cannot hold
	case pg.Code == "P0001": // raise_exception
	default:
		return nil
	}
	return malformed(reasonRefused, "the feedback table refuses a row of it: %s (SQLSTATE %s)", pg.Message, pg.Code)
}

// tableLimits are where PostgreSQL says that a table or its transactions' ids have come to their end, which is
// no fault of a record.
var tableLimits = []string{"md.c", "hio.c", "bufmgr.c", "varsup.c", "multixact.c"}

// storeBatch commits a batch in Postgres. A campaign that the table refuses is stored as the dead
// letter that it becomes.
func (s *session) storeBatch(ctx context.Context, w deliverer, b *batch, behind <-chan struct{}) error {
	g := gates{ledger: behind, commit: s.mayCommit(ctx, b)}
	err := w.deliver(ctx, b, g)
	fault := refusedRow(err)
	if fault == nil {
		return err
	}
	s.care.take(s.cfg.Now())
	if !b.alone || b.bulky && closedAlready(b.taken) {
		return fmt.Errorf("a campaign is refused; each is tried alone now: %w", err)
	}
	b.refuse(fault)
	return w.deliver(ctx, b, g)
}

// awaitRows waits, where care is taken, until no row of the batch can be refused any more.
func (b *batch) awaitRows(ctx context.Context) error {
	switch {
	case !b.alone:
		return nil
	case b.bulky: // Postgres waits for the brokers before it commits
		return await(ctx, b.taken)
	default:
		return await(ctx, b.stored)
	}
}

func closedAlready(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// refuse turns the delivery of a batch into a dead letter.
func (b *batch) refuse(fault *MalformedError) {
	for _, t := range b.triggers {
		if t.recipients != nil {
			t.release()
			t.recipients = nil
			t.reject(t.record, fault)
		}
	}
	b.deliveries = 0
}
