package cdc

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"example.com/tiffin/cache"
)

const (
	// auditTries times auditPause is how long an audit waits for applied transactions to
	// become visible: one that is acknowledged by a synchronous standby takes a round trip.
	auditTries = 200
	auditPause = 50 * time.Millisecond
	// auditLimit bounds each wait for the index to reach what was committed.
	auditLimit = time.Minute
	// auditLock is how long an audit waits for a lock of the table: all who come after it
	// wait behind it.
	auditLock = "2s"
)

// NotReadyError says that an index is not in sync with its source, so that there is nothing to compare.
type NotReadyError struct{ Reasons []string }

func (e *NotReadyError) Error() string {
	return fmt.Sprintf("the index is not in sync with the source database: %v", e.Reasons)
}

// AuditProgress says how far an audit of a running index is.
type AuditProgress struct {
	Phase       string `json:"phase"`       // snapshot, table, index, differences
	Rows        int64  `json:"rows"`        // of the table, read
	Restaurants int64  `json:"restaurants"` // compared
}

// AuditTo receives what an audit finds. An error ends the audit.
type AuditTo struct {
	Found func(Difference) error
	// Progress is called often, and must not wait; nil for nobody.
	Progress func(AuditProgress)
}

// AuditRunning compares the index that this reader writes to with the table, while both go on
// changing: in one snapshot, read once, in the order in which the rows lie, without a sort.
// Neither the stream nor a lookup waits for it. Restaurants that differ are then read one by
// one, each in a snapshot of its own, to name their clients. Until the table is read the
// snapshot holds back the cleaning of dead rows on the source, as that of a load does. What
// the index does not hold in memory is compared by the number of rows: the rest it would read
// from the table. Errors: *NotReadyError, cache.ErrAuditing. Safe for concurrent use.
func (r *Reader) AuditRunning(ctx context.Context, idx *cache.Index, to AuditTo) (AuditReport, error) {
	if reasons := r.Reasons(); len(reasons) > 0 {
		return AuditReport{}, &NotReadyError{reasons}
	}
	a := &runningAudit{r: r, idx: idx, to: to}
	if a.to.Progress == nil {
		a.to.Progress = func(AuditProgress) {}
	}
	a.report.Slot = r.cfg.Slot
	suspects, err := a.compareAll(ctx)
	if err != nil {
		return a.report, a.explain(err)
	}
	a.at.Phase = "differences"
	for _, suspect := range suspects {
		a.to.Progress(a.at)
		if err := a.name(ctx, suspect); err != nil {
			return a.report, a.explain(err)
		}
	}
	return a.report, nil
}

// runningAudit is one audit of a running index.
type runningAudit struct {
	r      *Reader
	idx    *cache.Index
	to     AuditTo
	at     AuditProgress
	report AuditReport
}

// explain says why an audit that was begun in order could not be ended.
func (a *runningAudit) explain(err error) error {
	if reasons := a.r.Reasons(); len(reasons) > 0 {
		return fmt.Errorf("%w: %w", err, &NotReadyError{reasons})
	}
	if errors.Is(err, cache.ErrNotLoaded) {
		return fmt.Errorf("the index was loaded anew during the audit: run it again: %w", err)
	}
	return err
}

func (a *runningAudit) compareAll(ctx context.Context) ([]cache.Doubt, error) {
	if err := a.r.stands(ctx); err != nil {
		return nil, err
	}
	audit, err := a.idx.BeginAudit("")
	if err != nil {
		return nil, err
	}
	defer audit.End()
	conn, err := a.r.cfg.connect(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { hangUp(ctx, conn.PgConn()) }()
	if err := a.r.src.footing.greet(ctx, conn); err != nil {
		return nil, err
	}
	a.progress("snapshot")
	table, err := a.cover(ctx, conn, audit)
	if err != nil {
		return nil, err
	}
	if a.report.Position, err = a.r.reach(ctx); err != nil {
		return nil, err
	}
	rows := &rowAudit{runningAudit: a, audit: audit, table: table}
	if err := a.read(ctx, conn, rows); err != nil {
		return nil, err
	}
	if err := rows.settle(ctx, conn); err != nil {
		return nil, err
	}
	return a.compare(ctx, audit)
}

// auditReady is how long an audit waits for the warden's first look at what the index stands on.
const auditReady = 10 * time.Second

// stands waits until a fence passes: just after a load nobody has looked at what the index stands on.
func (r *Reader) stands(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, auditReady)
	defer cancel()
	for attempt := 0; ; attempt++ {
		_, err := r.raise(ctx)
		if !errors.Is(err, errFooting) || !pause(ctx, backoff(attempt, 20*time.Millisecond, footingWait, r.cfg.Rand)) {
			return err
		}
	}
}

// cover begins the transaction that the table is read in.
func (a *runningAudit) cover(ctx context.Context, conn *pgx.Conn, audit *cache.Audit) (*tableFacts, error) {
	name, err := parseTable(a.r.cfg.Table)
	if err != nil {
		return nil, err
	}
	for range auditTries {
		for _, sql := range []string{"BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY", "SET LOCAL lock_timeout = '" + auditLock + "'"} {
			if _, err := conn.Exec(ctx, sql); err != nil {
				return nil, &Error{Op: "begin to read table", On: name.String(), Err: err}
			}
		}
		snapshot, err := currentSnapshot(ctx, conn)
		if err != nil {
			return nil, err
		}
		table, whole, err := lockTable(ctx, conn, name)
		if err != nil {
			return nil, err
		}
		if whole && audit.Covers(snapshot) { // which takes one snapshot only
			return table, nil
		}
		if _, err := conn.Exec(ctx, "ROLLBACK"); err != nil {
			return nil, err
		}
		if !pause(ctx, auditPause) {
			return nil, context.Cause(ctx)
		}
	}
	return nil, errInvisible
}

var errInvisible = errors.New("a committed transaction stays invisible (does it wait for a synchronous standby?): try again later")

func currentSnapshot(ctx context.Context, conn *pgx.Conn) (cache.Snapshot, error) {
	var text string
	if err := conn.QueryRow(ctx, "SELECT pg_current_snapshot()::text").Scan(&text); err != nil {
		return cache.Snapshot{}, err
	}
	return cache.ParseSnapshot(text)
}

// read gives the table's rows to the audit, and ends the transaction.
func (a *runningAudit) read(ctx context.Context, conn *pgx.Conn, to *rowAudit) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stalled := time.AfterFunc(stallLimit, func() { cancel(errStalled) })
	defer stalled.Stop()
	a.progress("table")
	var rows copyRows
	w := writerFunc(func(b []byte) (int, error) {
		stalled.Reset(stallLimit)
		return len(b), rows.parse(b, func(id int64, restaurant, client []byte) error {
			if err := a.row(to.audit, restaurant, client); err != nil {
				return err
			}
			return to.look(id, restaurant, client)
		})
	})
	sql := "COPY (SELECT " + to.table.columns() + " FROM " + to.table.from() +
		" WHERE " + columnRestaurant + " IS NOT NULL AND " + columnClient + " IS NOT NULL) TO STDOUT (FORMAT binary)"
	_, err := conn.PgConn().CopyTo(ctx, w, sql)
	if err == nil {
		err = rows.finish()
	}
	if errors.Is(context.Cause(ctx), errStalled) {
		err = errStalled
	}
	if err == nil {
		_, err = conn.Exec(ctx, "COMMIT")
	}
	if err != nil {
		return &Error{Op: "read table", On: a.r.cfg.Table, Err: err}
	}
	return nil
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(b []byte) (int, error) { return f(b) }

// progressEvery rows are read in a few milliseconds.
const progressEvery = 1 << 14

func (a *runningAudit) row(audit *cache.Audit, restaurant, client []byte) error {
	if a.report.Rows++; a.report.Rows%progressEvery == 0 {
		a.progress("table")
	}
	known, err := audit.Add(restaurant, client)
	if err != nil || known {
		return err
	}
	return a.differ(string(restaurant), string(client), "in the table, not in the index, which has nothing of the restaurant")
}

func (a *runningAudit) compare(ctx context.Context, audit *cache.Audit) (suspects []cache.Doubt, err error) {
	for audit.Next() {
		a.progress("index")
		// A posting that was read through may be ahead of the stream.
		if _, err := a.r.reach(ctx); err != nil {
			return nil, err
		}
		resident, counted, err := audit.Compare(func(d cache.Doubt) error {
			if d.Restaurant != string(nothing) {
				suspects = append(suspects, d)
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
		a.report.Resident += resident
		a.report.Restaurants += resident + counted
	}
	return suspects, nil
}

// name reads a restaurant that differed again, by itself, to tell what differs.
func (a *runningAudit) name(ctx context.Context, suspect cache.Doubt) error {
	audit, err := a.idx.BeginAudit(suspect.Restaurant)
	if err != nil {
		return err
	}
	defer audit.End()
	if err := a.readOne(ctx, suspect.Restaurant, audit); err != nil {
		return err
	}
	if _, err := a.r.reach(ctx); err != nil {
		return err
	}
	named := false
	for audit.Next() {
		if _, err := a.r.reach(ctx); err != nil {
			return err
		}
		if _, _, err := audit.Compare(func(d cache.Doubt) error {
			named = true
			return a.tell(d)
		}); err != nil {
			return err
		}
	}
	if named {
		return nil
	}
	return a.differ(suspect.Restaurant, "", fmt.Sprintf("the index had %d rows, the table %d, or other clients; by now they agree (it was read through again, or changed)", suspect.Index, suspect.Table))
}

// readOne reads until the rows hold all that was applied before the audit began. What a
// snapshot shows is given to the audit once that is certain.
func (a *runningAudit) readOne(ctx context.Context, restaurant string, audit *cache.Audit) error {
	for range auditTries {
		var rows [][]byte
		snapshot, err := a.r.src.ReadRestaurant(ctx, restaurant, func(client []byte) error {
			rows = append(rows, append([]byte(nil), client...))
			return nil
		})
		if err != nil {
			return err
		}
		if !audit.Covers(snapshot) {
			if !pause(ctx, auditPause) {
				return context.Cause(ctx)
			}
			continue
		}
		for _, client := range rows {
			if _, err := audit.Add([]byte(restaurant), client); err != nil {
				return err
			}
		}
		return nil
	}
	return errInvisible
}

func (a *runningAudit) tell(d cache.Doubt) error {
	if d.Index != d.Table {
		if err := a.differ(d.Restaurant, "", fmt.Sprintf("the index has %d rows, the table %d", d.Index, d.Table)); err != nil {
			return err
		}
	}
	for _, c := range d.Clients {
		text := fmt.Sprintf("the index has %d rows, the table %d", c.Index, c.Table)
		switch {
		case c.Index == 0:
			text = "in the table, not in the index"
		case c.Table == 0:
			text = "in the index, not in the table"
		}
		if err := a.differ(d.Restaurant, c.Client, text); err != nil {
			return err
		}
	}
	return nil
}

func (a *runningAudit) differ(restaurant, client, text string) error {
	a.report.Differences++
	return a.to.Found(Difference{Restaurant: restaurant, Client: client, Text: text})
}

func (a *runningAudit) progress(phase string) {
	a.at = AuditProgress{phase, a.report.Rows, a.report.Restaurants}
	a.to.Progress(a.at)
}

// reach waits until the index has applied all that a snapshot taken before the call may see.
// That is more than a fence proves: a commit that need not be flushed is visible before it is.
func (r *Reader) reach(ctx context.Context) (cache.LSN, error) {
	ctx, cancel := context.WithTimeout(ctx, auditLimit)
	defer cancel()
	history := r.gate.history()
	lsn, err := r.emitted(ctx)
	if err != nil {
		return 0, err
	}
	w := r.gate.enter(lsn, history)
	defer r.gate.leave(w)
	ask := time.NewTicker(replyAfter)
	defer ask.Stop()
	for {
		select {
		case <-w.passed:
			if w.shut {
				return 0, errShut
			}
			return lsn, nil
		case <-ctx.Done():
			return 0, fmt.Errorf("wait for the index to reach %s: %w", lsn, ctx.Err())
		case <-ask.C:
			r.askReply()
		}
	}
}

// emitted is the source's, after the warden has looked where something moved under the index.
func (r *Reader) emitted(ctx context.Context) (cache.LSN, error) {
	for attempt := 0; ; attempt++ {
		lsn, err := r.src.emitted(ctx)
		if !errors.Is(err, errFooting) {
			return lsn, err
		}
		r.askWarden()
		if !pause(ctx, backoff(attempt, 5*time.Millisecond, footingWait, r.cfg.Rand)) {
			return 0, err
		}
	}
}
