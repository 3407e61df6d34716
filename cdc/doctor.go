package cdc

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/dustin/go-humanize"
	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5"

	"example.com/tiffin/internal/checkup"
)

// Examine checks everything that the reader will need of the source database, one line each, and
// changes nothing. cfg is the daemon's own: rights are judged for the role that it connects as.
func Examine(ctx context.Context, cfg Config, sheet *checkup.Sheet) error {
	if err := cfg.Validate(); err != nil {
		return fmt.Errorf("cdc config: %w", err)
	}
	cfg = cfg.withDefaults()
	conf, err := cfg.conn()
	if err != nil {
		return err
	}
	table, err := parseTable(cfg.Table)
	if err != nil {
		return err
	}
	sheet.Area("source")
	e := &examination{cfg: &cfg, sheet: sheet, name: table}
	if e.conn = checkup.Postgres(ctx, sheet, conf, "source.dsn"); e.conn != nil {
		defer hangUp(ctx, e.conn.PgConn())
	}
	e.server(ctx)
	e.role(ctx)
	e.table(ctx)
	e.publication(ctx)
	e.slot(ctx)
	return nil
}

// examination is one visit of the doctor to the source database.
type examination struct {
	cfg   *Config
	sheet *checkup.Sheet
	name  tableName
	conn  *pgx.Conn

	facts serverFacts
	rows  *tableFacts
	unfit error // what of the table cannot be followed
	held  slotFacts
}

func (e *examination) check(ctx context.Context, what string, needs []string, check func(context.Context) checkup.Finding) {
	e.sheet.Check(ctx, what, needs, check)
}

// fault is a Finding of what the reader itself would say.
func fault(err error) checkup.Finding {
	text, fix := err.Error(), ""
	if known, ok := errors.AsType[*Error](err); ok {
		text, fix = strings.TrimSpace(known.Op+" "+known.On)+": "+known.Err.Error(), known.Fix
	}
	switch {
	case fix != "":
	case timedOut(err) || sqlState(err) == codeQueryCanceled || sqlState(err) == codeLockNotAvailable:
		fix = "see what the server waits for: SELECT pid, state, wait_event_type, wait_event, xact_start, query FROM pg_stat_activity ORDER BY xact_start;"
	case sqlState(err) != "":
		fix = "see the server's log: SELECT pg_current_logfile();"
	default:
		fix = "try again: tiffin doctor"
	}
	return checkup.Bad(text, fix)
}

// What says that a question took too long.
const (
	codeQueryCanceled    = "57014"
	codeLockNotAvailable = "55P03"
)

func (e *examination) server(ctx context.Context) {
	e.check(ctx, "version", []string{"login"}, func(ctx context.Context) checkup.Finding {
		var err error
		if e.facts, err = inspectServer(ctx, e.conn); err != nil {
			return fault(err)
		}
		if e.facts.version < oldestVersion {
			return checkup.Bad(fmt.Sprintf("PostgreSQL %d", e.facts.version/10000), "PostgreSQL 14 or newer")
		}
		if e.cfg.Failover && e.facts.version < failoverSlots {
			return fault(e.facts.verify(e.cfg))
		}
		return checkup.Good(fmt.Sprintf("PostgreSQL %d.%d", e.facts.version/10000, e.facts.version%10000))
	})
	e.check(ctx, "primary", []string{"version"}, func(context.Context) checkup.Finding {
		if e.facts.recovery {
			return checkup.Bad("it is a standby", checkup.NameThePrimary("source.dsn"))
		}
		return checkup.Good("not in recovery")
	})
	e.check(ctx, "wal_level", []string{"version"}, func(context.Context) checkup.Finding {
		if e.facts.walLevel == "logical" {
			return checkup.Good("logical")
		}
		return checkup.Bad("wal_level is "+e.facts.walLevel, "ALTER SYSTEM SET wal_level = logical; -- and restart the server; "+
			"managed: rds.logical_replication=1, cloudsql.logical_decoding=on")
	})
	e.check(ctx, "synchronous_standby_names", []string{"version"}, func(context.Context) checkup.Finding {
		if chosenAsStandby(e.facts.standbys, e.cfg.application()) {
			return checkup.Bad(fmt.Sprintf("%q makes the application's commits wait for this reader", e.facts.standbys),
				"ALTER SYSTEM SET synchronous_standby_names = 'STANDBY, …'; SELECT pg_reload_conf(); -- with the standbys' names, without * and without "+e.cfg.application())
		}
		return checkup.Good("the reader is no synchronous standby")
	})
}

func (e *examination) role(ctx context.Context) {
	e.check(ctx, "replication_right", []string{"version"}, func(ctx context.Context) checkup.Finding {
		var may bool
		err := e.conn.QueryRow(ctx, `
			SELECT r.rolreplication OR r.rolsuper OR EXISTS (
				SELECT FROM pg_roles m WHERE m.rolname = 'rds_replication' AND pg_has_role(r.oid, m.oid, 'MEMBER'))
			FROM pg_roles r WHERE r.rolname = current_user`).Scan(&may)
		switch {
		case err != nil:
			return fault(err)
		case !may:
			return checkup.Bad("role "+e.facts.user+" may not start replication",
				"ALTER ROLE "+quoted(e.facts.user)+" REPLICATION; -- Amazon RDS: GRANT rds_replication TO "+quoted(e.facts.user)+";")
		}
		return checkup.Good("role " + e.facts.user + " may start replication")
	})
	e.check(ctx, "table", []string{"version"}, e.exists)
	e.check(ctx, "table_right", []string{"table"}, e.readable)
}

// replicate connects as the walsender's peer will: pg_hba.conf has a word of its own on that.
func (e *examination) replicate(ctx context.Context) checkup.Finding {
	if e.held.activePID != 0 {
		return checkup.Good("in use by a daemon")
	}
	conn, err := e.cfg.connectReplication(ctx)
	if err != nil {
		f := fault(err)
		if known, ok := errors.AsType[*Error](err); ok && known.Fix == "" {
			f.Fix = "name the server itself in source.dsn: poolers such as pgbouncer do not speak replication"
		}
		return f
	}
	defer hangUp(ctx, conn)
	system, err := pglogrepl.IdentifySystem(ctx, conn)
	if err != nil {
		return fault(err)
	}
	return checkup.Good(fmt.Sprintf("system %s, timeline %d", system.SystemID, system.Timeline))
}

func (e *examination) exists(ctx context.Context) checkup.Finding {
	var kind string
	err := e.conn.QueryRow(ctx, `SELECT c.relkind::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
		WHERE n.nspname = $1 AND c.relname = $2`, e.name.schema, e.name.name).Scan(&kind)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return checkup.Bad(e.name.String()+" does not exist", "name the right one in source.table, and the right database in source.dsn; it has the columns: "+
			"SELECT attrelid::regclass FROM pg_attribute WHERE attname IN ('client_id', 'restaurant_id') GROUP BY 1 HAVING count(*) = 2;")
	case err != nil:
		return fault(err)
	case kind != "r" && kind != "p":
		return checkup.Bad(e.name.String()+" is no table that can be published", "name a table or a partitioned table in source.table")
	}
	return checkup.Good(e.name.String())
}

func (e *examination) readable(ctx context.Context) checkup.Finding {
	e.rows, e.unfit = describeTable(ctx, e.conn, e.name)
	rows := e.rows
	if rows == nil { // columns will say why; the right to read is judged all the same
		rows = &tableFacts{relation: relation{name: e.name}}
		err := e.conn.QueryRow(ctx, "SELECT c.oid FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = $1 AND c.relname = $2",
			e.name.schema, e.name.name).Scan(&rows.relation.oid)
		if err != nil {
			return fault(err)
		}
	}
	rights, err := inspectRights(ctx, e.conn, rows)
	if err != nil {
		return fault(err)
	}
	switch {
	case !rights.usage:
		return checkup.Bad("role "+e.facts.user+" may not use schema "+e.name.schema, strings.Join(rights.grants(rows), " "))
	case !rights.readable():
		return checkup.Bad("role "+e.facts.user+" may not read "+e.name.String(), strings.Join(rights.grants(rows), " "))
	case rights.filtered:
		return fault(rights.verify(rows))
	}
	return checkup.Good("role " + e.facts.user + " may read it")
}

// table judges columns and identity by what the reader itself makes of them.
func (e *examination) table(ctx context.Context) {
	untold, _ := errors.AsType[*identityFault](e.unfit)
	e.check(ctx, "columns", []string{"table_right"}, func(context.Context) checkup.Finding {
		if e.unfit != nil && untold == nil {
			return fault(e.unfit)
		}
		return checkup.Good("client_id and restaurant_id, of types that fit")
	})
	e.check(ctx, "replica_identity", []string{"columns"}, func(context.Context) checkup.Finding {
		if untold != nil {
			return fault(untold)
		}
		switch e.rows.relation.identity {
		case 'd':
			return checkup.Good("DEFAULT: the primary key; 8 bytes of memory a row")
		case 'i':
			return checkup.Good("USING INDEX: an UPDATE or DELETE logs the index's columns as well")
		default:
			return checkup.Good("FULL: an UPDATE or DELETE logs the whole old row as well")
		}
	})
}

func (e *examination) publication(ctx context.Context) {
	e.check(ctx, "publication", []string{"columns"}, func(ctx context.Context) checkup.Finding {
		facts, err := inspectPublication(ctx, e.conn, e.facts.version, e.cfg.Publication, e.name)
		if err != nil {
			return fault(err)
		}
		steps, err := publicationSteps(e.cfg.Publication, facts, e.rows)
		if err != nil {
			return fault(err)
		}
		if len(steps) == 0 {
			return checkup.Good(e.cfg.Publication + " publishes every change of the table")
		}
		var sql []string
		for _, step := range steps {
			sql = append(sql, step.SQL)
		}
		text := "publication " + e.cfg.Publication + " " + steps[0].Why
		if e.cfg.Setup == SetupAuto && e.ownsTable(ctx) {
			return checkup.Odd(text+"; the daemon will see to it", strings.Join(sql, " "))
		}
		return checkup.Bad(text, strings.Join(sql, " ")+" -- as the table's owner; or: slotsetup apply")
	})
}

// ownsTable reports whether the role may publish the table by itself.
func (e *examination) ownsTable(ctx context.Context) bool {
	var may bool
	err := e.conn.QueryRow(ctx, `SELECT pg_has_role(c.relowner, 'USAGE') AND has_database_privilege(current_database(), 'CREATE')
		FROM pg_class c WHERE c.oid = $1`, e.rows.relation.oid).Scan(&may)
	return err == nil && may
}

func (e *examination) slot(ctx context.Context) {
	e.check(ctx, "slot", []string{"primary"}, e.usable)
	e.check(ctx, "replication_slots", []string{"slot"}, func(ctx context.Context) checkup.Finding {
		needed := 1
		if e.held.exists {
			needed = 0
		}
		return e.room(ctx, "max_replication_slots", "SELECT count(*) FROM pg_replication_slots", needed)
	})
	e.check(ctx, "wal_senders", []string{"slot"}, func(ctx context.Context) checkup.Finding {
		needed := 1
		if e.held.activePID != 0 {
			needed = 0
		}
		return e.room(ctx, "max_wal_senders", "SELECT count(*) FROM pg_stat_replication", needed)
	})
	e.check(ctx, "replication_connection", []string{"replication_right", "wal_senders"}, e.replicate)
	e.check(ctx, "retained_wal", []string{"slot"}, func(context.Context) checkup.Finding {
		limit := e.cfg.MaxRetainedWAL
		text := fmt.Sprintf("the slot holds back %s of %s", humanize.IBytes(uint64(max(e.held.retained, 0))), humanize.IBytes(uint64(limit)))
		if limit > 0 && e.held.retained > limit/2 {
			return checkup.Odd(text, "see whether a daemon reads from it; at the limit the slot is dropped and the index loaded again: "+
				"SELECT active_pid, confirmed_flush_lsn, pg_current_wal_lsn() FROM pg_replication_slots WHERE slot_name = "+literal(e.cfg.Slot)+";")
		}
		return checkup.Good(text)
	})
	e.check(ctx, "max_slot_wal_keep_size", []string{"version"}, func(ctx context.Context) checkup.Finding {
		var bound string
		if err := e.conn.QueryRow(ctx, "SHOW max_slot_wal_keep_size").Scan(&bound); err != nil {
			return fault(err)
		}
		if bound == "-1" {
			return checkup.Odd("the server lets a slot hold back any amount of log while no daemon runs",
				boundStep)
		}
		return checkup.Good(bound)
	})
}

// boundStep bounds what a slot holds back while nobody reads from it: twice what the daemon lets it by default.
const boundStep = "ALTER SYSTEM SET max_slot_wal_keep_size = '16GB'; SELECT pg_reload_conf();"

// usable judges the slot: there, or to be made, and nobody else's.
func (e *examination) usable(ctx context.Context) checkup.Finding {
	var err error
	if e.held, err = inspectSlot(ctx, e.conn, e.cfg.Slot); err != nil {
		return fault(err)
	}
	if err := e.held.verify(e.cfg.Slot, e.facts.database); err != nil {
		return fault(err)
	}
	switch {
	case !e.held.exists && e.cfg.Setup == SetupNever:
		return checkup.Bad("slot "+e.cfg.Slot+" does not exist, and source.setup is never", slotStep(e.cfg).SQL+" "+allVisible+" -- or: slotsetup apply")
	case !e.held.exists:
		return checkup.Good("slot " + e.cfg.Slot + " does not exist; the daemon makes it")
	case e.held.lost:
		return checkup.Odd("slot "+e.cfg.Slot+" was invalidated"+e.held.because()+"; the daemon makes it again", e.held.keep())
	case e.held.activePID == 0:
		return checkup.Good("slot " + e.cfg.Slot + " is there, and free")
	}
	by := holder(ctx, e.conn, e.held.activePID)
	if e.cfg.ours(by) {
		return checkup.Good("slot " + e.cfg.Slot + " is held by a daemon: " + by)
	}
	return checkup.Bad(heldByOther(e.cfg, by), freeSlot(e.held.activePID))
}

// ours reports whether a holder is a daemon with these settings.
func (c *Config) ours(holder string) bool {
	name := c.application()
	return strings.Contains(holder, fmt.Sprintf("application %q", name[:min(len(name), longestName)]))
}

func heldByOther(cfg *Config, by string) string {
	return "slot " + cfg.Slot + " is held by somebody else: " + by
}

func freeSlot(pid int32) string {
	return fmt.Sprintf("SELECT pg_terminate_backend(%d); -- or name another slot in source.slot", pid)
}

// because says why the slot was invalidated, where the server tells.
func (s *slotFacts) because() string {
	if s.invalidation == "" {
		return ""
	}
	return " (" + s.invalidation + ")"
}

// keep is what keeps a slot from being invalidated for the same reason (pg_replication_slots.invalidation_reason).
func (s *slotFacts) keep() string {
	const why = "; and find why nobody read from it"
	switch s.invalidation {
	case "idle_timeout":
		return "ALTER SYSTEM SET idle_replication_slot_timeout = 0; SELECT pg_reload_conf(); -- or more than the longest outage" + why
	case "wal_level_insufficient":
		return "ALTER SYSTEM SET wal_level = logical; -- and restart the server"
	case "rows_removed": // on a standby only
		return "name the primary in source.dsn, and set hot_standby_feedback = on on the standby"
	}
	return boundStep + " -- or more" + why
}

// longestName is what the server keeps of a connection's name, in bytes (NAMEDATALEN - 1).
const longestName = 63

// room judges whether the server has room for one more of something that a setting limits.
func (e *examination) room(ctx context.Context, setting, count string, needed int) checkup.Finding {
	var limit, used int
	if err := e.conn.QueryRow(ctx, "SELECT current_setting($1)::int, ("+count+")::int", setting).Scan(&limit, &used); err != nil {
		return fault(err)
	}
	text := fmt.Sprintf("%d of %d in use", used, limit)
	if limit-used < needed {
		return checkup.Bad(text, fmt.Sprintf("ALTER SYSTEM SET %s = %d; -- and restart the server", setting, limit+slices.Max([]int{needed, 5})))
	}
	return checkup.Good(text)
}
