package cdc

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// Removal is what Drop removes, and what is lost by it, a sentence each.
type Removal struct {
	Steps  []Step
	Losses []string
}

// Drop removes the slot and, unless slotOnly, the publication, where they exist. agree is asked
// once if there is anything to remove, and done called after each statement. A slot that is
// active, or another's, is refused. Role, rights and identity stay.
func Drop(ctx context.Context, cfg Config, slotOnly bool, agree func(Removal) (bool, error), done func(Step)) error {
	conn, err := cfg.setUpConn(ctx)
	if err != nil {
		return err
	}
	defer hangUp(ctx, conn.PgConn())
	cfg = cfg.withDefaults()
	what, err := removal(ctx, &cfg, conn, slotOnly)
	if err != nil || len(what.Steps) == 0 {
		return err
	}
	if agreed, err := agree(what); err != nil || !agreed {
		return err
	}
	for _, step := range what.Steps {
		if err := step.run(ctx, &cfg, conn); err != nil {
			return dropError(step, err)
		}
		done(step)
	}
	return nil
}

// dropError names who can do what was refused.
func dropError(step Step, err error) error {
	if refusal, refused := errors.AsType[*pgconn.PgError](err); refused {
		e := &Error{Op: "run", On: step.SQL, Err: refusal, Permanent: true}
		switch refusal.Code {
		case codeInsufficientPrivilege:
			e.Fix = "run slotsetup drop as the publication's owner, with the attribute REPLICATION for the slot, or as a superuser (setup.dsn)"
		case codeObjectInUse:
			e.Fix = "stop the daemon first"
		}
		return e
	}
	return err
}

func removal(ctx context.Context, cfg *Config, conn *pgx.Conn, slotOnly bool) (Removal, error) {
	var out Removal
	server, err := inspectServer(ctx, conn)
	if err != nil {
		return out, err
	}
	slot, err := inspectSlot(ctx, conn, cfg.Slot)
	if err != nil {
		return out, err
	}
	if err := slot.verify(cfg.Slot, server.database); err != nil {
		return out, err
	}
	if slot.activePID != 0 {
		return out, &Error{
			Op: "drop replication slot", On: cfg.Slot, Permanent: true,
			Err: fmt.Errorf("it is active: %s", holder(ctx, conn, slot.activePID)),
			Fix: "stop the daemon first",
		}
	}
	if slot.exists {
		out.Steps = append(out.Steps, dropSlotStep(cfg.Slot, "is to go"))
		out.Losses = append(out.Losses, fmt.Sprintf("Slot %s holds back %s of log, from which a daemon could go on (position %s). Without it a daemon loads the whole table anew; no delivery is lost or repeated.",
			cfg.Slot, bytesOf(slot.retained), slot.confirmed))
	}
	if slotOnly {
		return out, nil
	}
	return out, out.publication(ctx, cfg, conn, server.version)
}

// publication adds the removal of the publication. Which slots read from it nobody knows but their
// readers; those of this database may.
func (r *Removal) publication(ctx context.Context, cfg *Config, q querier, version int) error {
	name, err := parseTable(cfg.Table)
	if err != nil {
		return err
	}
	var published bool
	var others, tables []string
	err = q.QueryRow(ctx, `
		SELECT EXISTS (SELECT FROM pg_publication WHERE pubname = $1), ARRAY(`+alsoPublished(version)+` ORDER BY 1 LIMIT 10),
		       ARRAY(SELECT slot_name || CASE WHEN active THEN ' (active under pid ' || active_pid || ')' ELSE '' END FROM pg_replication_slots
		             WHERE database = current_database() AND plugin = 'pgoutput' AND slot_name <> $2 ORDER BY 1)`, cfg.Publication, cfg.Slot, name.schema, name.name).
		Scan(&published, &tables, &others)
	if err != nil {
		return &Error{Op: "read publication", On: cfg.Publication, Err: err}
	}
	if !published {
		return nil
	}
	r.Steps = append(r.Steps, Step{part: partPublication, SQL: "DROP PUBLICATION " + quoted(cfg.Publication) + ";", Why: "is to go"})
	r.Losses = append(r.Losses, "Without publication "+cfg.Publication+" no daemon can read the table's changes: it must be made again, and every daemon then loads the table anew.")
	if len(tables) > 0 {
		r.Losses = append(r.Losses, "Publication "+cfg.Publication+" is not of this table alone; whoever follows the others by it, stops: "+strings.Join(tables, ", ")+". To remove the slot alone: --slot-only.")
	}
	if len(others) > 0 {
		r.Losses = append(r.Losses, "Other slots of this database may read from that publication, and their readers stop: "+strings.Join(others, ", ")+". To remove this slot alone: --slot-only.")
	}
	return nil
}

// alsoPublished gives what else than the table the publication $1 holds.
func alsoPublished(version int) string {
	sql := `SELECT 'every table of the database' FROM pg_publication WHERE pubname = $1 AND puballtables
		UNION SELECT n.nspname || '.' || c.relname FROM pg_publication p JOIN pg_publication_rel r ON r.prpubid = p.oid
		      JOIN pg_class c ON c.oid = r.prrelid JOIN pg_namespace n ON n.oid = c.relnamespace
		      WHERE p.pubname = $1 AND (n.nspname, c.relname) <> ($3, $4)`
	if version >= columnLists { // whole schemas came with them
		sql += ` UNION SELECT 'every table of schema ' || n.nspname FROM pg_publication p JOIN pg_publication_namespace s ON s.pnpubid = p.oid
		      JOIN pg_namespace n ON n.oid = s.pnnspid WHERE p.pubname = $1`
	}
	return sql
}
