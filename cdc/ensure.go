package cdc

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"example.com/tiffin/cache"
)

// slotLimit bounds the making of a slot, which waits for every transaction that runs; then it
// is tried again.
const slotLimit = 10 * time.Minute

// prepared is a source database that can be followed.
type prepared struct {
	server serverFacts
	slot   slotFacts
	// changed says why the log since the last session is not enough: the label of a
	// rebuild, "" when it is.
	changed string
	// made says that there was no slot and one was made, as far as that is known: the answer
	// may have been lost.
	made bool
	// table is what is to be followed.
	table *tableFacts
	// useless says that a slot that exists can serve no more.
	useless bool
	// loads says that the table is to be loaded.
	loads bool
	// repl is the connection that will read from the slot.
	repl *pgconn.PgConn
}

// prepare verifies the source and creates what is missing, in an order that keeps changes
// from being lost: table verified, then publication, then slot. Making a slot waits for the
// transactions that run; so every later transaction is published whole. Hence a slot that is
// older than its publication's definition is made again.
func (p *prepared) prepare(ctx context.Context, cfg *Config, conn *pgx.Conn) error {
	if err := p.ensureTable(ctx, cfg, conn); err != nil {
		return err
	}
	return p.ensureSlot(ctx, cfg, conn)
}

// ensureTable is prepare but for making the slot.
func (p *prepared) ensureTable(ctx context.Context, cfg *Config, conn *pgx.Conn) error {
	ctx, cancel := context.WithTimeout(ctx, prepareLimit)
	defer cancel()
	var err error
	if p.server, err = inspectServer(ctx, conn); err != nil {
		return err
	}
	if err := p.server.verify(cfg); err != nil {
		return err
	}
	name, err := parseTable(cfg.Table)
	if err != nil {
		return err
	}
	if err := p.checkSlot(ctx, cfg, conn); err != nil {
		return err
	}
	if p.table, err = inspectTable(ctx, conn, name); err != nil {
		return err
	}
	if err := p.ensurePublication(ctx, cfg, conn); err != nil || !p.slot.exists {
		return err
	}
	if p.loads && p.missesPartitions() && cfg.makesSlots() {
		return p.dropSlot(ctx, cfg, conn, reasonPartitions)
	}
	if p.loads && p.server.loseChanges() {
		if err := p.outdated(ctx, cfg, conn); err != nil {
			return err
		}
	}
	if !p.useless || !p.slot.exists {
		return nil
	}
	if !cfg.makesSlots() {
		return &Error{
			Op: "use replication slot", On: cfg.Slot, Permanent: true,
			Err: fmt.Errorf("where it stands in the log publication %s does not exist, and source.setup is never", cfg.Publication),
			Fix: "slotsetup drop --slot-only --yes, then slotsetup apply, with the same settings",
		}
	}
	return p.dropSlot(ctx, cfg, conn, "publication")
}

// outdated drops a slot that may begin before the publication was last altered: from one that is made behind, no
// transaction is sent that was open then. Where nothing may be made that is only told.
func (p *prepared) outdated(ctx context.Context, cfg *Config, conn *pgx.Conn) error {
	var older bool
	published := (&footing{table: p.table.relation.name.sql(), publication: cfg.Publication}).published(p.server.version)
	err := conn.QueryRow(ctx, "SELECT EXISTS (SELECT FROM "+published+" JOIN pg_replication_slots s ON s.slot_name = $1 AND age(published.xmin) <= age(s.catalog_xmin))", cfg.Slot).Scan(&older)
	switch {
	case err != nil:
		return &Error{Op: "read publication", On: cfg.Publication, Err: err}
	case !older:
		return nil
	case !cfg.makesSlots():
		cfg.Log.Warn("the slot may be older than the publication's last alteration: this release of PostgreSQL loses changes if a transaction was open meanwhile (mended in 14.18, 15.13, 16.9 and 17.5). "+
			"Make the slot again: slotsetup drop --slot-only --yes, then slotsetup apply", "slot", cfg.Slot, "publication", cfg.Publication, "server_version_num", p.server.version)
		return nil
	}
	return p.dropSlot(ctx, cfg, conn, "publication")
}

// missesPartitions reports whether a slot may begin before a partition was attached: a walsender of PostgreSQL
// 14 that met the partition's changes as those of an unpublished table goes on to leave them out
// (rel_sync_cache_relation_cb in pgoutput.c, mended in 15).
func (p *prepared) missesPartitions() bool { return p.table.kind == 'p' && p.server.version < 150000 }

// checkSlot reads the slot, refuses a foreign one, and drops a useless or a too costly one.
func (p *prepared) checkSlot(ctx context.Context, cfg *Config, conn *pgx.Conn) error {
	var err error
	if p.slot, err = inspectSlot(ctx, conn, cfg.Slot); err != nil {
		return err
	}
	cfg.Metrics.retained.Set(float64(p.slot.retained)) // 0 without a slot
	if err := p.slot.verify(cfg.Slot, p.server.database); err != nil || !p.slot.exists {
		return err
	}
	if p.slot.activePID != 0 {
		return &heldError{&Error{
			Op: "use replication slot", On: cfg.Slot,
			Err: fmt.Errorf("it is active elsewhere: %s", holder(ctx, conn, p.slot.activePID)),
			Fix: "stop the other process, or give this one a slot of its own in source.slot",
		}}
	}
	switch {
	case p.slot.lost && cfg.makesSlots():
		return p.dropSlot(ctx, cfg, conn, "slot_invalidated")
	case p.slot.lost:
		return neverError("replication slot", cfg.Slot, errors.New("it was invalidated, and source.setup is never"), true)
	case cfg.MaxRetainedWAL > 0 && p.slot.retained > cfg.MaxRetainedWAL:
		return p.dropSlot(ctx, cfg, conn, "retained_wal")
	}
	return nil
}

// dropIdle drops our slot, from which nobody reads.
func dropIdle(ctx context.Context, cfg *Config, conn *pgx.Conn, reason string, retained int64) error {
	cfg.Log.Warn("dropping replication slot", "slot", cfg.Slot, "reason", reason, "retained_bytes", retained)
	if _, err := conn.Exec(ctx, "SELECT pg_drop_replication_slot($1)", cfg.Slot); err != nil {
		return &Error{Op: "drop replication slot", On: cfg.Slot, Err: err}
	}
	cfg.Metrics.retained.Set(0)
	return nil
}

func (p *prepared) dropSlot(ctx context.Context, cfg *Config, conn *pgx.Conn, reason string) error {
	if err := dropIdle(ctx, cfg, conn, reason, p.slot.retained); err != nil {
		return err
	}
	p.slot, p.changed = slotFacts{}, reason
	return nil
}

func (p *prepared) ensurePublication(ctx context.Context, cfg *Config, conn *pgx.Conn) error {
	pub, err := inspectPublication(ctx, conn, p.server.version, cfg.Publication, p.table.relation.name)
	if err != nil {
		return err
	}
	steps, err := publicationSteps(cfg.Publication, pub, p.table)
	if err != nil || len(steps) == 0 {
		return err
	}
	if cfg.Setup == SetupNever {
		return neverError("publication", cfg.Publication, errors.New("it "+steps[0].Why+", and source.setup is never"), steps[0].Alters != "" || p.slot.exists)
	}
	if p.slot.exists { // first: a start that ends in between must not leave a slot that is older
		if err := p.dropSlot(ctx, cfg, conn, "publication"); err != nil {
			return err
		}
	}
	for _, step := range steps {
		if err := step.run(ctx, cfg, conn); err != nil {
			return err
		}
	}
	return nil
}

func (p *prepared) ensureSlot(ctx context.Context, cfg *Config, conn *pgx.Conn) error {
	if p.slot.exists {
		return nil
	}
	if !cfg.makesSlots() {
		return neverError("replication slot", cfg.Slot, errors.New("it does not exist, and source.setup is never"), false)
	}
	if p.changed == "" {
		p.changed = "slot_missing"
	}
	cfg.Log.Info("creating replication slot; this waits for the transactions that run now", "slot", cfg.Slot)
	p.made = p.changed == "slot_missing"
	if err := makeSlot(ctx, cfg, conn, p.repl); err != nil {
		p.made = p.made && sqlState(err) == "" // unless the server said that it made none
		return err
	}
	var err error
	p.slot, err = inspectSlot(ctx, conn, cfg.Slot)
	return err
}

// removeSlot drops a slot of ours, which our walsender may hold for a moment yet.
func removeSlot(ctx context.Context, cfg *Config) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), prepareLimit)
	defer cancel()
	conn, err := cfg.connect(ctx)
	if err != nil {
		return fmt.Errorf("drop slot %s: %w; drop it by hand: %s", cfg.Slot, err, dropSlotStep(cfg.Slot, "").SQL)
	}
	defer hangUp(ctx, conn.PgConn())
	for {
		_, err := conn.Exec(ctx, "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = $1", cfg.Slot)
		if err == nil {
			return nil
		}
		if sqlState(err) != codeObjectInUse || !pause(ctx, 50*time.Millisecond) {
			return &Error{Op: "drop replication slot", On: cfg.Slot, Err: err, Fix: dropSlotStep(cfg.Slot, "").SQL}
		}
	}
}

// ensureFailover has standbys synchronise a slot that was made without. There is no SQL for
// it, only a command of the replication protocol, which loses nothing of the slot.
func (p *prepared) ensureFailover(ctx context.Context, cfg *Config, repl *pgconn.PgConn) error {
	if !cfg.Failover || p.slot.failover {
		return nil
	}
	if cfg.Setup == SetupNever {
		return neverError("replication slot", cfg.Slot, errors.New("standbys do not synchronise it, source.failover is true, and source.setup is never"), true)
	}
	ctx, cancel := context.WithTimeout(ctx, prepareLimit)
	defer cancel()
	if _, err := repl.Exec(ctx, "ALTER_REPLICATION_SLOT "+quoted(cfg.Slot)+" (FAILOVER true)").ReadAll(); err != nil {
		return &Error{Op: "have standbys synchronise replication slot", On: cfg.Slot, Err: err}
	}
	cfg.Log.Info("standbys are to synchronise the replication slot", "slot", cfg.Slot)
	return nil
}

// makeSlot waits for the transactions that run, under guard; before, so that the slot can send whole
// ones, and behind, so that whoever reads the table sees what the slot does not send.
func makeSlot(ctx context.Context, cfg *Config, conn *pgx.Conn, repl *pgconn.PgConn) error {
	ctx, cancel := context.WithTimeout(ctx, slotLimit)
	defer cancel()
	return unguarded(guarded(ctx, cfg, endMaking, func(ctx context.Context) error {
		var err error
		if cfg.ownSlot {
			err = makeOwnSlot(ctx, cfg, repl)
		} else {
			err = slotStep(cfg).run(ctx, cfg, conn)
		}
		if err == nil {
			if err = awaitVisible(ctx, cfg, conn); err != nil {
				err = errors.Join(err, removeSlot(ctx, cfg))
			}
		}
		return err
	}))
}

// makeOwnSlot makes a slot that goes with the connection that reads from it, however that ends: nobody is left
// to drop it otherwise.
func makeOwnSlot(ctx context.Context, cfg *Config, repl *pgconn.PgConn) error {
	if _, err := repl.Exec(ctx, slotStep(cfg).SQL).ReadAll(); err != nil {
		return &Error{Op: "create temporary replication slot", On: cfg.Slot, Err: err}
	}
	return nil
}

// awaitVisible waits until all that was committed in the log before a slot began is visible to snapshots.
// A transaction has its commit record in the log, and by that may be none of the slot's, before it is
// visible: while that is flushed, and while a synchronous standby is waited for (RecordTransactionCommit and
// ProcArrayEndTransaction, xact.c; SnapBuildCommitTxn, snapbuild.c). So whoever runs now must have ended. Their ids are below
// the one that this takes for itself.
func awaitVisible(ctx context.Context, cfg *Config, conn *pgx.Conn) error {
	var now uint64
	err := conn.QueryRow(ctx, "SELECT pg_current_xact_id()::text::bigint").Scan(&now)
	for attempt := 0; err == nil; attempt++ {
		var snapshot cache.Snapshot
		snapshot, err = currentSnapshot(ctx, conn)
		if err == nil && snapshot.Xmin >= now {
			return nil
		}
		if err == nil && !pause(ctx, backoff(attempt, time.Millisecond, 250*time.Millisecond, cfg.Rand)) {
			err = context.Cause(ctx)
		}
	}
	return &Error{
		Op: "begin at replication slot", On: cfg.Slot, Err: fmt.Errorf("wait for the transactions that ran while it was made: %w", err),
		Fix: "end them: SELECT pid, xact_start, query FROM pg_stat_activity WHERE backend_xid IS NOT NULL ORDER BY xact_start",
	}
}

// unguarded is why a slot was not made, of the guard's error and the statement's. The guard comes
// first: that the server says the statement was canceled, if it still comes to say so, is the guard's
// doing and no refusal (*pgconn.PgError).
func unguarded(held, err error) error {
	if err != nil && held != nil {
		return fmt.Errorf("%w (%s)", held, err.Error())
	}
	return err
}

// neverError names the command that does what this process may not; what alters something needs
// somebody's word.
func neverError(what, name string, err error, alters bool) error {
	yes := ""
	if alters {
		yes = " --yes"
	}
	return &Error{Op: "use " + what, On: name, Err: err, Permanent: true, Fix: "run slotsetup apply" + yes + " with the same settings"}
}
