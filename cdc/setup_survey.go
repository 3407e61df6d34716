package cdc

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// survey is all that a plan is made of: what the server and its catalog say.
type survey struct {
	asked    bool // false: the server was not, and the rest is what the contract says
	server   serverFacts
	provider provider
	slots    room  // max_replication_slots
	senders  room  // max_wal_senders
	keep     int64 // max_slot_wal_keep_size in bytes, -1: none
	role     roleFacts
	table    *tableFacts
	// fault is why there is no table to plan for.
	fault error
	// untold is why the present identity does not serve, nil if it does.
	untold error
	// identities are those by which rows could be told, the one to take first.
	identities []identityChoice
	// planned is the table under the first of them.
	planned     *tableFacts
	publication publicationFacts
	slot        slotFacts
	holder      string // of the slot, "" for nobody
}

// room is how much of what a setting limits is taken.
type room struct{ used, limit int }

// roleFacts is the daemon's role, and what it may.
type roleFacts struct {
	name                      string
	exists, login, replicates bool
	bypasses                  bool // row-level security
	connect                   bool
	read                      readRights
}

// makeSurvey asks the server. It takes a dozen catalog queries and no right but to connect.
func makeSurvey(ctx context.Context, cfg *Config, conn *pgx.Conn, role string) (*survey, error) {
	ctx, cancel := context.WithTimeout(ctx, prepareLimit)
	defer cancel()
	s := &survey{asked: true, role: roleFacts{name: role}}
	var err error
	if s.server, err = inspectServer(ctx, conn); err != nil {
		return nil, err
	}
	if err := s.server.verifyKind(cfg); err != nil {
		return nil, err
	}
	if err := s.inspectLimits(ctx, conn); err != nil {
		return nil, err
	}
	name, err := parseTable(cfg.Table)
	if err != nil {
		return nil, err
	}
	if err := s.inspectTable(ctx, conn, name); err != nil {
		return nil, err
	}
	if s.publication, err = inspectPublication(ctx, conn, s.server.version, cfg.Publication, name); err != nil {
		return nil, err
	}
	if s.table != nil && s.fault == nil {
		s.fault = s.publication.misnamed(cfg.Publication, s.table)
	}
	if s.slot, err = inspectSlot(ctx, conn, cfg.Slot); err != nil {
		return nil, err
	}
	if s.slot.activePID != 0 {
		s.holder = holder(ctx, conn, s.slot.activePID)
	}
	return s, s.inspectRole(ctx, conn)
}

func (s *survey) inspectLimits(ctx context.Context, q querier) error {
	var roles, settings []string
	err := q.QueryRow(ctx, `
		SELECT ARRAY(SELECT rolname::text FROM pg_roles WHERE rolname = ANY ($1)),
		       ARRAY(SELECT s FROM unnest($2::text[]) s WHERE current_setting(s, true) IS NOT NULL),
		       current_setting('max_replication_slots')::int, (SELECT count(*) FROM pg_replication_slots)::int,
		       current_setting('max_wal_senders')::int, (SELECT count(*) FROM pg_stat_replication)::int,
		       (SELECT CASE setting WHEN '-1' THEN -1 ELSE setting::bigint << 20 END FROM pg_settings WHERE name = 'max_slot_wal_keep_size')`,
		[]string{roleRDS, roleReplication, roleCloudSQL, roleAzure}, []string{settingRDS, settingCloudSQL}).
		Scan(&roles, &settings, &s.slots.limit, &s.slots.used, &s.senders.limit, &s.senders.used, &s.keep)
	if err != nil {
		return &Error{Op: "read settings of source database", Err: err}
	}
	s.provider = recognise(roles, settings)
	return nil
}

func (s *survey) inspectTable(ctx context.Context, q querier, name tableName) error {
	table, unfit := describeTable(ctx, q, name)
	if table == nil {
		if !permanent(unfit) {
			return unfit
		}
		s.fault = unfit
		return nil
	}
	s.table = table
	keys, err := uniqueKeys(ctx, q, s.table)
	if err != nil {
		return err
	}
	s.choose(keys, unfit != nil)
	if why, ok := errors.AsType[*identityFault](unfit); ok {
		s.untold = why.why.Err
	}
	return nil
}

// choose weighs the identities that the table can have. One that serves is kept.
func (s *survey) choose(keys []uniqueKey, unfit bool) {
	s.identities = identityChoices(s.table, keys, unfit)
	first := s.identities[0]
	s.planned = &tableFacts{kind: s.table.kind, relation: first.relation, layout: first.layout, leaves: s.table.leaves}
	s.planned.relation.oid = s.table.relation.oid
}

// inspectRole asks for the daemon's role what the daemon would find.
func (s *survey) inspectRole(ctx context.Context, q querier) error {
	r := &s.role
	r.read = readRights{role: r.name}
	if s.planned != nil {
		r.read.lacking = append(s.planned.read(), columnPlace)
	}
	err := q.QueryRow(ctx, `
		SELECT r.rolcanlogin, r.rolbypassrls OR r.rolsuper, r.rolreplication OR r.rolsuper OR EXISTS (
			SELECT FROM pg_roles m WHERE m.rolname = $2 AND pg_has_role(r.oid, m.oid, 'MEMBER')),
		       has_database_privilege(r.oid, current_database(), 'CONNECT')
		FROM pg_roles r WHERE r.rolname = $1`, r.name, roleReplication).Scan(&r.login, &r.bypasses, &r.replicates, &r.connect)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil
	}
	r.exists = true
	if err == nil && s.planned != nil {
		err = q.QueryRow(ctx, `
			SELECT has_schema_privilege($1, c.relnamespace, 'USAGE'),
			       c.relrowsecurity AND NOT $4 AND (c.relforcerowsecurity OR NOT pg_has_role($1, c.relowner, 'USAGE')),
			       ARRAY(SELECT a.attname::text FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attname = ANY ($3)
			             AND NOT has_column_privilege($1, c.oid, a.attnum, 'SELECT') ORDER BY a.attnum)
			FROM pg_class c WHERE c.oid = $2`, r.name, s.planned.relation.oid, r.read.lacking, r.bypasses).
			Scan(&r.read.usage, &r.read.filtered, &r.read.lacking)
	}
	if err != nil {
		return &Error{Op: "read rights of role", On: r.name, Err: err}
	}
	return nil
}

// offline is the survey of a server that was not asked: the contract's table, nothing prepared.
func offline(cfg *Config, role, database string) (*survey, error) {
	name, err := parseTable(cfg.Table)
	if err != nil {
		return nil, err
	}
	table := &tableFacts{kind: 'r', relation: relation{name: name, identity: 'd', columns: []column{
		{name: "id", typ: oidInt4, key: true}, {name: columnClient}, {name: columnRestaurant},
	}}}
	if table.layout, err = layoutOf(table.relation); err != nil {
		return nil, fmt.Errorf("plan for the table of the contract: %w", err)
	}
	s := &survey{
		server: serverFacts{version: columnLists, database: database, walLevel: "logical"},
		table:  table, keep: -1, role: roleFacts{name: role, read: readRights{role: role, lacking: append(table.read(), columnPlace)}},
	}
	if cfg.Failover {
		s.server.version = failoverSlots
	}
	s.choose([]uniqueKey{{name: "subscribers_restaurants_pkey", primary: true, columns: []string{"id"}}}, false)
	return s, nil
}
