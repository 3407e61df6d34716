package cdc

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"example.com/tiffin/cache"
)

// slotFacts is the slot as pg_replication_slots has it.
type slotFacts struct {
	exists                 bool
	kind, plugin, database string
	lost                   bool // invalidated: it can serve no more
	failover               bool // standbys synchronise it
	twoPhase               bool // it sends transactions when they are prepared
	activePID              int32
	confirmed              cache.LSN
	retained               int64  // bytes
	unconfirmed            int64  // bytes of log behind its end
	walStatus              string // reserved, extended, unreserved or lost
	invalidation           string // why it was invalidated, from PostgreSQL 17 on
}

func inspectSlot(ctx context.Context, q querier, name string) (slotFacts, error) {
	var s slotFacts
	var confirmed string
	err := q.QueryRow(ctx, `
		SELECT slot_type, coalesce(plugin, ''), coalesce(database, ''), coalesce(wal_status, '') = 'lost',
		       coalesce((to_jsonb(s)->>'failover')::bool, false), two_phase,
		       coalesce(active_pid, 0), coalesce(confirmed_flush_lsn, '0/0')::text,
		       coalesce(pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn), 0)::bigint,
		       greatest(coalesce(pg_wal_lsn_diff(pg_current_wal_lsn(), confirmed_flush_lsn), 0), 0)::bigint,
		       coalesce(wal_status, ''), coalesce(to_jsonb(s)->>'invalidation_reason', '')
		FROM pg_replication_slots s WHERE slot_name = $1`, name).
		Scan(&s.kind, &s.plugin, &s.database, &s.lost, &s.failover, &s.twoPhase, &s.activePID, &confirmed, &s.retained, &s.unconfirmed, &s.walStatus, &s.invalidation)
	if errors.Is(err, pgx.ErrNoRows) {
		return s, nil
	}
	if err != nil {
		return s, &Error{Op: "read replication slot", On: name, Err: err}
	}
	s.exists = true
	s.confirmed, err = cache.ParseLSN(confirmed)
	return s, err
}

// verify says whether the slot is one that this reader can use.
func (s *slotFacts) verify(name, database string) error {
	switch {
	case !s.exists:
		return nil
	case s.kind == "logical" && s.plugin == "pgoutput" && s.database == database && !s.twoPhase:
		return nil
	case s.kind == "logical" && s.plugin == "pgoutput" && s.database == database:
		return &Error{
			Op: "use replication slot", On: name, Permanent: true, Err: errors.New("it was made to send prepared transactions (two_phase), which nobody has committed yet"),
			Fix: "name another slot in source.slot; if it is nobody's: " + dropSlotStep(name, "").SQL,
		}
	}
	return &Error{
		Op: "use replication slot", On: name, Permanent: true,
		Err: fmt.Errorf("it is a %s slot of plugin %q in database %q; a logical slot of pgoutput in %q is needed", s.kind, s.plugin, s.database, database),
		Fix: "name another slot in source.slot; who has this one: SELECT plugin, database, active_pid FROM pg_replication_slots WHERE slot_name = " + literal(name) + ";",
	}
}

// holder describes who has the slot, as far as this role may see.
func holder(ctx context.Context, q querier, pid int32) string {
	var application, user, address string
	err := q.QueryRow(ctx, `
		SELECT coalesce(application_name, ''), coalesce(usename, ''),
		       coalesce(host(client_addr), CASE WHEN client_port = -1 THEN 'a local socket' ELSE 'an address that this role may not see' END)
		FROM pg_stat_activity WHERE pid = $1`, pid).Scan(&application, &user, &address)
	if err != nil {
		return fmt.Sprintf("pid %d", pid)
	}
	return fmt.Sprintf("pid %d, application %q, user %q, from %s", pid, application, user, address)
}

// allVisible is awaitVisible for psql. Each turn of the loop has a snapshot of its own (READ COMMITTED, whatever is
// the default: that of the first transaction cannot be changed any more).
const allVisible = "DO $$ DECLARE mine xid8 := pg_current_xact_id(); " +
	"BEGIN COMMIT; SET TRANSACTION ISOLATION LEVEL READ COMMITTED; WHILE pg_snapshot_xmin(pg_current_snapshot()) < mine LOOP PERFORM pg_sleep(0.1); END LOOP; END $$;"

func slotStep(cfg *Config) Step {
	options := ""
	if cfg.ownSlot {
		options = ", temporary => true"
	}
	if cfg.Failover {
		options += ", failover => true"
	}
	return Step{
		part: partSlot, Why: "does not exist", Settles: allVisible,
		SQL: "SELECT pg_create_logical_replication_slot(" + literal(cfg.Slot) + ", 'pgoutput'" + options + ");",
	}
}

func dropSlotStep(name, why string) Step {
	return Step{part: partOldSlot, SQL: "SELECT pg_drop_replication_slot(" + literal(name) + ");", Why: why}
}

// slotSteps makes the slot, again if it was invalidated, if standbys are to synchronise it
// and do not (no SQL changes that), or if it is older than its publication: what was decoded
// before would lack the table's changes. The old one goes first of all, so that nobody ever
// finds a publication younger than its slot.
func slotSteps(cfg *Config, slot slotFacts, outdated bool) []Step {
	create := slotStep(cfg)
	if !slot.exists {
		return []Step{create}
	}
	why := ""
	switch {
	case slot.lost:
		why = "was invalidated"
	case outdated:
		why = "is older than what the publication will publish"
	case cfg.Failover && !slot.failover:
		why = "is not synchronised by standbys, and source.failover is true"
	default:
		return nil
	}
	create.Why = "is to be made again"
	old := dropSlotStep(cfg.Slot, why)
	old.Alters = "replication slot " + cfg.Slot + ", which is made again; the daemon then loads the table anew"
	if slot.activePID != 0 {
		old.Obstacle = fmt.Sprintf("the slot is active under pid %d: stop the daemon first", slot.activePID)
	}
	return []Step{old, create}
}
