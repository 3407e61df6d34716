package cdc

import (
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
)

// What a role's settings bound ends no session of ours: not a load, not a walsender in a large transaction, not a
// connection that waits for the next question.
func TestRolesTimeoutsEndNoSession(t *testing.T) {
	t.Parallel()
	db := servers.Database(t)
	contract(t, db, "DEFAULT")
	role := db.Slot
	db.Exec(t, `CREATE ROLE `+role+` LOGIN REPLICATION`, `GRANT SELECT ON subscribers_restaurants TO `+role)
	t.Cleanup(func() { dropRole(t, db, role) })
	const bounds = `name IN ('statement_timeout', 'idle_in_transaction_session_timeout', 'idle_session_timeout', 'transaction_timeout')`
	db.Exec(t, `DO $$ DECLARE bound text; BEGIN
		FOR bound IN SELECT name FROM pg_settings WHERE `+bounds+` LOOP EXECUTE format('ALTER ROLE `+role+` SET %I = 100', bound); END LOOP; END $$`)
	cfg := &Config{DSN: db.Server.DSNFor(role, "", db.Name), Slot: db.Slot}
	const set = `SELECT coalesce(string_agg(name, ', '), '') FROM pg_settings WHERE setting <> '0' AND ` + bounds
	conn, err := cfg.connect(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer hangUp(t.Context(), conn.PgConn())
	walsender, err := cfg.connectReplication(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer hangUp(t.Context(), walsender)
	for name, c := range map[string]*pgconn.PgConn{"for SQL": conn.PgConn(), "for replication": walsender} {
		results, err := c.Exec(t.Context(), set).ReadAll()
		if err != nil {
			t.Fatalf("a connection %s: %v", name, err)
		}
		if left := string(results[0].Rows[0][0]); left != "" {
			t.Errorf("on a connection %s the role's settings hold: %s", name, left)
		}
	}
}
