package cdc

import (
	"strings"
	"testing"

	"example.com/tiffin/internal/devstack/devstacktest"
)

// owner makes a role that owns the table, and nothing else.
func owner(t *testing.T, db *devstacktest.Database) string {
	t.Helper()
	role := "o_" + db.Slot[2:]
	db.Exec(t, `CREATE ROLE `+role+` LOGIN`, `ALTER TABLE subscribers_restaurants OWNER TO `+role)
	t.Cleanup(func() { dropRole(t, db, role) })
	return role
}

// A table's owner does what an owner may; of the rest each step says who may, and the reason of the
// server, and nothing that depends on it is tried.
func TestApplyAsTheTablesOwner(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		sql  string // $OWNER and $ROLE
		says []string
	}{
		"no role": {says: []string{
			`refused CREATE ROLE "$ROLE" LOGIN REPLICATION;`, `fix: as a superuser: CREATE ROLE`,
			`blocked GRANT CONNECT`, `blocked GRANT USAGE`, `blocked GRANT SELECT`,
			`refused CREATE PUBLICATION`, `GRANT CREATE ON DATABASE "$DATABASE" TO "$OWNER";`, `blocked SELECT pg_create_logical`,
		}},
		"a role without replication": {sql: `CREATE ROLE $ROLE LOGIN`, says: []string{`refused ALTER ROLE "$ROLE" REPLICATION;`, `as a superuser: ALTER ROLE`, `done GRANT SELECT`}},
		"may create": {sql: `CREATE ROLE $ROLE LOGIN REPLICATION; GRANT CREATE ON DATABASE $DATABASE TO $OWNER`, says: []string{
			`done GRANT SELECT`, `done CREATE PUBLICATION`, `refused SELECT pg_create_logical_replication_slot`, `leave it to the daemon (source.setup: auto)`,
		}},
		"nothing by PUBLIC": {sql: `CREATE ROLE $ROLE LOGIN REPLICATION; REVOKE ALL ON DATABASE $DATABASE FROM PUBLIC; GRANT CONNECT ON DATABASE $DATABASE TO $OWNER;
			REVOKE ALL ON SCHEMA public FROM PUBLIC; GRANT USAGE ON SCHEMA public TO $OWNER`, says: []string{
			`refused GRANT CONNECT ON DATABASE "$DATABASE" TO "$ROLE"; the server ran it to no effect; fix: as the owner of what it names`,
			`refused GRANT USAGE ON SCHEMA "public" TO "$ROLE"; the server ran it to no effect`, `done GRANT SELECT`,
		}},
		"another's publication": {sql: `CREATE ROLE $ROLE LOGIN REPLICATION; GRANT CREATE ON DATABASE $DATABASE TO $OWNER; CREATE PUBLICATION tiffin`, says: []string{
			`refused ALTER PUBLICATION "tiffin" ADD TABLE`, `must be owner of publication`, `must own an existing publication`, `blocked SELECT pg_create_logical`,
		}},
		"all it takes": {sql: `CREATE ROLE $ROLE LOGIN REPLICATION; GRANT CREATE ON DATABASE $DATABASE TO $OWNER; ALTER ROLE $OWNER REPLICATION`, says: []string{
			`done GRANT SELECT`, `done CREATE PUBLICATION`, `done SELECT pg_create_logical`,
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db := servers.Database(t)
			contract(t, db, "DEFAULT")
			as, role := owner(t, db), "r_"+db.Slot[2:]
			if strings.Contains(c.sql, "CREATE ROLE $ROLE") {
				t.Cleanup(func() { dropRole(t, db, role) })
			}
			names := strings.NewReplacer("$OWNER", as, "$ROLE", role, "$DATABASE", db.Name)
			if c.sql != "" {
				db.Exec(t, names.Replace(c.sql))
			}
			cfg := config(t, db)
			cfg.DSN = db.Server.DSNFor(as, "", db.Name)
			tally, report := applied(t, cfg, role, agreeing)
			for _, want := range c.says {
				if !strings.Contains(report, names.Replace(want)) {
					t.Errorf("the report lacks %q:\n%s", names.Replace(want), report)
				}
			}
			if strings.Contains(report, `done GRANT CONNECT`) && name == "nothing by PUBLIC" {
				t.Errorf("a GRANT without effect is done:\n%s", report)
			}
			if complete := name == "all it takes"; tally.Complete() != complete {
				t.Errorf("%+v\n%s", tally, report)
			}
			status, err := Status(t.Context(), cfg, role)
			if err != nil || (len(status.Wrong) == 0) != tally.Complete() {
				t.Errorf("status %+v, %v", status, err)
			}
			if name == "may create" { // what the owner could not make the daemon makes
				g := start(t, db, func(c *Config) { c.DSN = db.Server.DSNFor(role, "", db.Name) })
				g.agree(t)
				g.quit()
			}
		})
	}
}

// An owner that may not, and a daemon's role that asks for itself, are told so by drop as well.
func TestDropNamesWhoMay(t *testing.T) {
	t.Parallel()
	db := servers.Database(t)
	contract(t, db, "DEFAULT")
	as := owner(t, db)
	if tally, report := applied(t, config(t, db), db.Server.Username(), declining); !tally.Complete() {
		t.Fatal(report)
	}
	cfg := config(t, db)
	cfg.DSN = db.Server.DSNFor(as, "", db.Name)
	err := removed(t, cfg)
	if !permanent(err) || !strings.Contains(err.Error(), "as the publication's owner, with the attribute REPLICATION for the slot") {
		t.Errorf("drop: %v", err)
	}
	if err := removed(t, config(t, db)); err != nil {
		t.Error(err)
	}
}
