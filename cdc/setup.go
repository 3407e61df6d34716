package cdc

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"example.com/tiffin/cache"
)

// Plan returns what is missing on the source database for role to follow the table, in the
// order of running; nothing when it is ready. cfg.DSN is the owner's or a superuser's, and
// only reads here. It takes a few catalog queries.
func Plan(ctx context.Context, cfg Config, role string) ([]Step, error) {
	conn, err := cfg.setUpConn(ctx)
	if err != nil {
		return nil, err
	}
	defer hangUp(ctx, conn.PgConn())
	return plan(ctx, &cfg, conn, role)
}

// Apply runs what Plan returns, and calls done after each statement. It may be run again at
// any time. Making a slot waits for the transactions that run.
func Apply(ctx context.Context, cfg Config, role string, done func(Step)) error {
	conn, err := cfg.setUpConn(ctx)
	if err != nil {
		return err
	}
	defer hangUp(ctx, conn.PgConn())
	cfg = cfg.withDefaults()
	steps, err := plan(ctx, &cfg, conn, role)
	if err != nil {
		return err
	}
	for _, step := range steps {
		if err := step.run(ctx, &cfg, conn); err != nil {
			return err
		}
		done(step)
	}
	return nil
}

// setUpConn connects after checking the settings. The connection bears no name of the
// daemon's.
func (c *Config) setUpConn(ctx context.Context) (*pgx.Conn, error) {
	if err := c.Validate(); err != nil {
		return nil, fmt.Errorf("cdc config: %w", err)
	}
	return c.connect(ctx)
}

func plan(ctx context.Context, cfg *Config, conn *pgx.Conn, role string) ([]Step, error) {
	server, err := inspectServer(ctx, conn)
	if err != nil {
		return nil, err
	}
	if err := server.verify(cfg); err != nil {
		return nil, err
	}
	name, err := parseTable(cfg.Table)
	if err != nil {
		return nil, err
	}
	slot, err := inspectSlot(ctx, conn, cfg.Slot)
	if err != nil {
		return nil, err
	}
	if err := slot.verify(cfg.Slot, server.database); err != nil {
		return nil, err
	}
	table, err := inspectTable(ctx, conn, name)
	identity, err := identitySteps(ctx, conn, table, err)
	if err != nil {
		return nil, err
	}
	steps, err := roleSteps(ctx, conn, role, server.database, table)
	if err != nil {
		return nil, err
	}
	steps = append(steps, identity...)
	pub, err := inspectPublication(ctx, conn, cfg.Publication, name)
	if err != nil {
		return nil, err
	}
	publication, err := publicationSteps(cfg.Publication, pub, table)
	if err != nil {
		return nil, err
	}
	steps = append(steps, publication...)
	again, err := slotSteps(cfg, slot, len(publication) > 0)
	return append(steps, again...), err
}

// slotSteps makes the slot, again if it was invalidated, if standbys are to synchronise it
// and do not (no SQL changes that), or if it is older than its publication: what was decoded
// before would lack the table's changes.
func slotSteps(cfg *Config, slot slotFacts, outdated bool) ([]Step, error) {
	create := slotStep(cfg)
	if !slot.exists {
		return []Step{create}, nil
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
		return nil, nil
	}
	if slot.activePID != 0 {
		return nil, &Error{
			Op: "make again replication slot", On: cfg.Slot, Permanent: true,
			Err: fmt.Errorf("it %s, and is active under pid %d", why, slot.activePID),
			Fix: "stop the daemon first",
		}
	}
	return []Step{dropSlotStep(cfg.Slot, why), create}, nil
}

func dropSlotStep(name, why string) Step {
	return Step{SQL: "SELECT pg_drop_replication_slot(" + literal(name) + ");", Why: why}
}

// identitySteps turns a replica identity that cannot be followed into its mending; other
// faults stay faults.
func identitySteps(ctx context.Context, q querier, table *tableFacts, fault error) ([]Step, error) {
	if _, unfit := errors.AsType[*identityFault](fault); !unfit {
		return nil, fault
	}
	var byKey bool
	err := q.QueryRow(ctx, `
		SELECT EXISTS (SELECT FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]
		WHERE i.indrelid = $1 AND i.indisprimary AND i.indimmediate AND i.indnkeyatts = 1 AND a.atttypid = ANY ($2))`,
		table.relation.oid, []uint32{oidInt2, oidInt4, oidInt8}).Scan(&byKey)
	if err != nil {
		return nil, &Error{Op: "read primary key of table", On: table.relation.name.String(), Err: err}
	}
	identity, names := "FULL", []tableName{table.relation.name}
	if byKey {
		identity = "DEFAULT"
	}
	if table.kind == 'p' {
		for _, l := range table.leaves {
			names = append(names, l.name)
		}
	}
	var steps []Step
	for _, name := range names {
		steps = append(steps, Step{
			SQL: "ALTER TABLE " + name.sql() + " REPLICA IDENTITY " + identity + ";",
			Why: "does not tell which row an UPDATE or DELETE changed",
		})
	}
	return steps, nil
}

// roleSteps gives the daemon's role what it needs and no more.
func roleSteps(ctx context.Context, q querier, role, database string, table *tableFacts) ([]Step, error) {
	what := table.relation.name
	grants := []Step{
		{SQL: "GRANT CONNECT ON DATABASE " + quoted(database) + " TO " + quoted(role) + ";", Why: "may not connect"},
		{SQL: "GRANT USAGE ON SCHEMA " + quoted(what.schema) + " TO " + quoted(role) + ";", Why: "may not use the schema"},
		{SQL: "GRANT SELECT ON " + what.sql() + " TO " + quoted(role) + ";", Why: "may not read the table"},
	}
	var login, replication bool
	err := q.QueryRow(ctx, `
		SELECT r.rolcanlogin, r.rolreplication OR r.rolsuper OR EXISTS (
			SELECT FROM pg_roles m WHERE m.rolname = 'rds_replication' AND pg_has_role(r.oid, m.oid, 'MEMBER'))
		FROM pg_roles r WHERE r.rolname = $1`, role).Scan(&login, &replication)
	if errors.Is(err, pgx.ErrNoRows) {
		create := Step{SQL: "CREATE ROLE " + quoted(role) + " LOGIN REPLICATION;", Why: "does not exist (give it a password afterwards)"}
		return append([]Step{create}, grants...), nil
	}
	if err != nil {
		return nil, &Error{Op: "read role", On: role, Err: err}
	}
	var has [3]bool
	if err := q.QueryRow(ctx, `SELECT has_database_privilege($1, $2, 'CONNECT'), has_schema_privilege($1, $3, 'USAGE'), has_table_privilege($1, $4::oid, 'SELECT')`,
		role, database, what.schema, table.relation.oid).Scan(&has[0], &has[1], &has[2]); err != nil {
		return nil, &Error{Op: "read rights of role", On: role, Err: err}
	}
	var steps []Step
	if !login {
		steps = append(steps, Step{SQL: "ALTER ROLE " + quoted(role) + " LOGIN;", Why: "may not log in"})
	}
	if !replication {
		steps = append(steps, Step{SQL: "ALTER ROLE " + quoted(role) + " REPLICATION;", Why: "may not start replication"})
	}
	for i, granted := range has {
		if !granted {
			steps = append(steps, grants[i])
		}
	}
	return steps, nil
}

// SlotStatus is a slot's health.
type SlotStatus struct {
	Exists bool
	// Lost says that the server invalidated it: it can serve no more.
	Lost bool
	// Failover says that standbys synchronise it, so that it outlives a failover.
	Failover bool
	// Holder is who has it active, "" for nobody.
	Holder string
	// Confirmed is the position up to which nothing is sent again.
	Confirmed cache.LSN
	// Retained is how many bytes of log it holds back on the source.
	Retained int64
}

// Status returns the slot's health.
func Status(ctx context.Context, cfg Config) (SlotStatus, error) {
	conn, err := cfg.setUpConn(ctx)
	if err != nil {
		return SlotStatus{}, err
	}
	defer hangUp(ctx, conn.PgConn())
	slot, err := inspectSlot(ctx, conn, cfg.Slot)
	if err != nil {
		return SlotStatus{}, err
	}
	s := SlotStatus{Exists: slot.exists, Lost: slot.lost, Failover: slot.failover, Confirmed: slot.confirmed, Retained: slot.retained}
	if slot.activePID != 0 {
		s.Holder = holder(ctx, conn, slot.activePID)
	}
	return s, nil
}

// Drop removes the slot and the publication where they exist, and calls done after each
// statement. A slot that is active, or another's, is refused. Role and identity stay.
func Drop(ctx context.Context, cfg Config, done func(Step)) error {
	conn, err := cfg.setUpConn(ctx)
	if err != nil {
		return err
	}
	defer hangUp(ctx, conn.PgConn())
	cfg = cfg.withDefaults()
	steps, err := dropSteps(ctx, &cfg, conn)
	if err != nil {
		return err
	}
	for _, step := range steps {
		if err := step.run(ctx, &cfg, conn); err != nil {
			return err
		}
		done(step)
	}
	return nil
}

func dropSteps(ctx context.Context, cfg *Config, conn *pgx.Conn) ([]Step, error) {
	server, err := inspectServer(ctx, conn)
	if err != nil {
		return nil, err
	}
	slot, err := inspectSlot(ctx, conn, cfg.Slot)
	if err != nil {
		return nil, err
	}
	if err := slot.verify(cfg.Slot, server.database); err != nil {
		return nil, err
	}
	if slot.activePID != 0 {
		return nil, &Error{
			Op: "drop replication slot", On: cfg.Slot, Permanent: true,
			Err: fmt.Errorf("it is active: %s", holder(ctx, conn, slot.activePID)),
			Fix: "stop the daemon first",
		}
	}
	var steps []Step
	if slot.exists {
		steps = append(steps, dropSlotStep(cfg.Slot, "is to go"))
	}
	var published bool
	if err := conn.QueryRow(ctx, "SELECT EXISTS (SELECT FROM pg_publication WHERE pubname = $1)", cfg.Publication).Scan(&published); err != nil {
		return nil, &Error{Op: "read publication", On: cfg.Publication, Err: err}
	}
	if published {
		steps = append(steps, Step{SQL: "DROP PUBLICATION " + quoted(cfg.Publication) + ";", Why: "is to go"})
	}
	return steps, nil
}
