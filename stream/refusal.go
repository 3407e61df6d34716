package stream

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
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
// refuses it: a CHECK constraint, a text longer than its column or than an index takes, a value of which a generated
// column, an index or a trigger can make nothing, an exception that a trigger raises. What else a table may complain
// of (a column that must not be null, a row that is missing elsewhere or there twice, a partition that is missing, ids
// that have come to their end) is the table's state: somebody mends it, and it is waited for.
func refusedRow(err error) *MalformedError {
	pg, ok := errors.AsType[*pgconn.PgError](err)
	if _, ended := errors.AsType[*idsEndedError](err); !ok || ended || pg.SchemaName == "tiffin" {
		return nil
	}
	switch {
	case pg.Code == "23514" && pg.ConstraintName != "": // check_violation; without a name: no partition for the row
	case strings.HasPrefix(pg.Code, "22") && !slices.Contains(notOfTheRow, pg.Code): // data_exception
	case pg.Code == "54000" && !slices.Contains(tableLimits, pg.File): // program_limit_exceeded: a text that an index cannot hold
	case pg.Code == "P0001": // raise_exception
	default:
		return nil
	}
	// What Postgres says may repeat a text of the row, whole.
	return malformed(reasonRefused, "the feedback table refuses a row of it: %s (SQLSTATE %s)", shorten(pg.Message), pg.Code)
}

// notOfTheRow are those data exceptions that say nothing of a row: a sequence that has come to its end, and a
// binary value or COPY that Postgres does not understand.
var notOfTheRow = []string{"2200H", "22P03", "22P04"}

// idsEndedError says that a row's id does not fit into its column.
type idsEndedError struct{ err error }

func (e *idsEndedError) Error() string {
	return e.err.Error() + ": the sequence has passed what an id of type integer holds; make the column a bigint"
}

func (e *idsEndedError) Unwrap() error { return e.err }

// twiceError says that a key of the feedback table has a row's value already: usually that of id, whose sequence was
// made anew, and begins at 1.
type twiceError struct {
	err             error
	table, sequence string
}

func (e *twiceError) Error() string { return e.err.Error() }

func (e *twiceError) Unwrap() error { return e.err }

func (e *twiceError) remedy() string {
	return fmt.Sprintf("where the key is that of id, its sequence is behind the rows: SELECT setval('%s', (SELECT max(id) FROM %s))",
		strings.ReplaceAll(e.sequence, "'", "''"), e.table)
}

const outOfRange = "22003" // src/backend/utils/errcodes.txt

// endOfIDs says where a row was refused because the ids are at their end. A sequence of a serial column that was made before
// PostgreSQL 10 goes beyond its column; which of the values was out of range Postgres does not tell.
func (k *kept) endOfIDs(err error, pieces []*piece) error {
	const many = math.MaxInt32 / 2
	pg, ok := errors.AsType[*pgconn.PgError](err)
	// Where the sequence was is answered before the rows behind that are refused.
	if ok && pg.Code == outOfRange && k.narrow && slices.ContainsFunc(pieces, func(p *piece) bool { return p.before > many }) {
		return &idsEndedError{err}
	}
	return err
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

// closeOnce is for the one goroutine that closes c.
func closeOnce(c chan struct{}) {
	if !closedAlready(c) {
		close(c)
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
