package cdc

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// Outcome is what became of a step.
type Outcome string

// The outcomes.
const (
	Done    Outcome = "done"
	Waiting Outcome = "waiting" // is about to wait for others; another outcome follows
	Left    Outcome = "left"    // alters what was there, and nobody agreed
	Refused Outcome = "refused" // by the server
	Blocked Outcome = "blocked" // by what must come first
)

// Progress tells what became of a step, and why.
type Progress struct {
	Step    Step
	Outcome Outcome
	// Text is why it was not done and what to do, or what it waits for; "" for Done.
	Text string
}

// Tally counts steps by what became of them.
type Tally struct {
	Done, Left, Refused, Blocked int
	// Needed are the settings of the server that are still missing.
	Needed []Statement
}

// Complete reports whether nothing is missing any more.
func (t Tally) Complete() bool { return t.Left+t.Refused+t.Blocked+len(t.Needed) == 0 }

// Apply runs what Plan shows, but for settings of the server, and tells what becomes of each step.
// It may be run again at any time. agree is asked once, with all steps that alter what was there,
// if there are any; without its consent they are left, with what depends on them. Making a slot
// waits for the transactions that run.
func Apply(ctx context.Context, cfg Config, role string, agree func([]Step) (bool, error), tell func(Progress)) (Tally, error) {
	conn, err := cfg.setUpConn(ctx)
	if err != nil {
		return Tally{}, err
	}
	defer hangUp(ctx, conn.PgConn())
	cfg = cfg.withDefaults()
	s, err := makeSurvey(ctx, &cfg, conn, role)
	if err != nil {
		return Tally{}, err
	}
	script := s.script(&cfg)
	if script.Fault != nil {
		return Tally{}, script.Fault
	}
	a := &applying{cfg: &cfg, conn: conn, survey: s, tell: tell, tally: Tally{Needed: script.Needed()}}
	if err := a.ask(script.Steps(), agree); err != nil {
		return a.tally, err
	}
	for _, step := range script.Steps() {
		if err := a.take(ctx, step); err != nil {
			return a.tally, err
		}
	}
	return a.tally, nil
}

// applying is one run of Apply.
type applying struct {
	cfg    *Config
	conn   *pgx.Conn
	survey *survey
	tell   func(Progress)
	agreed bool
	open   []part // not in order
	tally  Tally
}

func (a *applying) ask(steps []Step, agree func([]Step) (bool, error)) error {
	alterations := slices.DeleteFunc(slices.Clone(steps), func(s Step) bool { return s.Alters == "" || s.Obstacle != "" })
	if len(alterations) == 0 {
		return nil
	}
	var err error
	a.agreed, err = agree(alterations)
	return err
}

// take runs a step unless something stands in its way. An error ends it all.
func (a *applying) take(ctx context.Context, step Step) error {
	switch {
	case step.waitsFor(a.open):
		a.end(step, Blocked, "what must come before it is not done")
	case step.Obstacle != "":
		a.end(step, Blocked, step.Obstacle)
	case step.Alters != "" && !a.agreed:
		a.end(step, Left, "it alters "+step.Alters+", which this run did not make; --yes does it")
	default:
		return a.run(ctx, step)
	}
	return nil
}

func (a *applying) run(ctx context.Context, step Step) error {
	err := a.execute(ctx, step)
	if err == nil {
		return a.verify(ctx, step)
	}
	refusal, refused := errors.AsType[*pgconn.PgError](err)
	if !refused || ctx.Err() != nil || a.conn.IsClosed() {
		return err
	}
	text := refusal.Message
	switch who := a.survey.whoMay(step); refusal.Code {
	case codeDuplicateObject:
		text += "; somebody made it meanwhile: run slotsetup apply again"
	case codeInsufficientPrivilege:
		text += "; fix: " + who
	}
	a.end(step, Refused, text)
	return nil
}

func (a *applying) execute(ctx context.Context, step Step) error {
	if step.part != partSlot {
		return step.run(ctx, a.cfg, a.conn)
	}
	waits, err := runningTransactions(ctx, a.conn)
	if err != nil {
		return err
	}
	if waits != "" {
		a.tell(Progress{step, Waiting, waits})
	}
	return makeSlot(ctx, a.cfg, a.conn, nil)
}

func (a *applying) end(step Step, outcome Outcome, text string) {
	switch outcome {
	case Done:
		a.tally.Done++
	case Left:
		a.tally.Left++
	case Refused:
		a.tally.Refused++
	default:
		a.tally.Blocked++
	}
	if outcome != Done {
		a.open = append(a.open, step.part)
	}
	a.tell(Progress{step, outcome, text})
}

// verify ends a step that ran: a GRANT by whom may not grant is no error to the server.
func (a *applying) verify(ctx context.Context, step Step) error {
	if step.part == partGrant {
		if err := a.survey.inspectRole(ctx, a.conn); err != nil {
			return err
		}
		if slices.ContainsFunc(a.survey.rightsSection().Steps, func(s Step) bool { return s.SQL == step.SQL }) {
			a.end(step, Refused, "the server ran it to no effect; fix: "+a.survey.whoMay(step))
			return nil
		}
	}
	a.end(step, Done, "")
	return nil
}

// whoMay says who can run a step that was refused to this role.
func (s *survey) whoMay(step Step) string {
	me, database := quoted(s.server.user), quoted(s.server.database)
	switch step.part {
	case partRole, partAttribute:
		return "as " + s.provider.admin() + ": " + step.SQL
	case partGrant:
		return "as the owner of what it names, or as " + s.provider.admin() + ": " + step.SQL
	case partIdentity:
		return "as the table's owner: " + step.SQL
	case partPublication:
		return "as the table's owner, who needs CREATE on the database (GRANT CREATE ON DATABASE " + database + " TO " + me + ";) and must own an existing publication: " + step.SQL
	default:
		return "as a role that may start replication, or leave it to the daemon (source.setup: auto): " + step.SQL
	}
}

// runningTransactions describes what the making of a slot waits for, "" for nothing. Others' sessions
// are seen as far as this role may.
func runningTransactions(ctx context.Context, q querier) (string, error) {
	var n int
	var oldest string
	err := q.QueryRow(ctx, `
		WITH writers AS (SELECT DISTINCT virtualtransaction, pid FROM pg_locks
			WHERE locktype = 'transactionid' AND mode = 'ExclusiveLock' AND granted AND pid IS DISTINCT FROM pg_backend_pid())
		SELECT (SELECT count(*) FROM writers)::int,
		       coalesce((SELECT format('; the oldest has run since %s under pid %s', date_trunc('second', a.xact_start), a.pid)
		                 FROM writers JOIN pg_stat_activity a USING (pid) WHERE a.xact_start IS NOT NULL ORDER BY a.xact_start LIMIT 1), '')`).Scan(&n, &oldest)
	if err != nil {
		return "", &Error{Op: "count running transactions", Err: err}
	}
	if n == 0 {
		return "", nil
	}
	return fmt.Sprintf("for the end of running transactions that write: %d%s; meanwhile the log is held back", n, oldest), nil
}
