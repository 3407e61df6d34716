package cdc

import (
	"testing"

	"example.com/tiffin/internal/devstack"
	"example.com/tiffin/internal/devstack/devstacktest"
)

// What slotsetup makes is enough to follow the table with, and no more: a publication of the needed
// columns alone, a role that may read those alone. Under it every change reaches the index, and what
// becomes of the other columns is the application's business.
func TestNeededColumnsAreEnough(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, server *devstack.Postgres) {
		for _, identity := range []string{"DEFAULT", "INDEX", "FULL"} {
			t.Run(identity, func(t *testing.T) {
				t.Parallel()
				db := databaseOn(t, server)
				contract(t, db, identity)
				db.Exec(t, `ALTER TABLE subscribers_restaurants ADD COLUMN secret text DEFAULT 'none of ours', ADD COLUMN other text`,
					`INSERT INTO subscribers_restaurants (restaurant_id, client_id) SELECT 'r'||i%10, 'c'||i FROM generate_series(1,100) i`)
				role := "r_" + db.Slot[2:]
				t.Cleanup(func() { dropRole(t, db, role) })
				if tally, report := applied(t, config(t, db), role, declining); !tally.Complete() {
					t.Fatal(report)
				}
				sharesLoads(t, db, role)
				g := start(t, db, func(c *Config) { c.DSN = db.Server.DSNFor(role, "", db.Name) })
				g.agree(t)
				for _, sql := range []string{
					`INSERT INTO subscribers_restaurants (restaurant_id, client_id) VALUES ('r1','new'), ('r20','c1')`,
					`UPDATE subscribers_restaurants SET client_id = 'changed' WHERE restaurant_id = 'r1' AND client_id = 'new'`,
					`UPDATE subscribers_restaurants SET id = id + 1000, restaurant_id = 'r21' WHERE restaurant_id = 'r3'`,
					`UPDATE subscribers_restaurants SET secret = 'still none'`,
					`DELETE FROM subscribers_restaurants WHERE restaurant_id = 'r5'`,
					`ALTER TABLE subscribers_restaurants RENAME COLUMN secret TO renamed; DELETE FROM subscribers_restaurants WHERE restaurant_id = 'r6'`,
					`ALTER TABLE subscribers_restaurants DROP COLUMN renamed; UPDATE subscribers_restaurants SET client_id = client_id || '!' WHERE restaurant_id = 'r7'`,
					`ALTER TABLE subscribers_restaurants ADD COLUMN later int; UPDATE subscribers_restaurants SET later = 1, client_id = client_id || '?' WHERE restaurant_id = 'r8'`,
					`ALTER TABLE subscribers_restaurants DROP COLUMN other; TRUNCATE subscribers_restaurants`,
					`INSERT INTO subscribers_restaurants (restaurant_id, client_id) VALUES ('r1','again')`,
				} {
					db.Exec(t, sql)
					g.agree(t)
				}
				g.unrebuilt(t)
				if report, err := g.r.AuditRunning(t.Context(), g.idx, AuditTo{Found: func(d Difference) error { t.Error(d); return nil }}); err != nil || report.Rows != 1 {
					t.Errorf("audit of the running index with these rights: %+v, %v", report, err)
				}
				g.quit()
				cfg := config(t, db)
				cfg.DSN = db.Server.DSNFor(role, "", db.Name)
				cfg.Setup = SetupNever
				report, err := Audit(t.Context(), cfg, 1<<20, func(d Difference) error { t.Error(d); return nil })
				if err != nil || report.Rows != 1 {
					t.Errorf("audit with these rights: %+v, %v", report, err)
				}
			})
		}
	})
}

// sharesLoads makes sure that the role may read ranges of the table, as a load of more than 64 MB does.
func sharesLoads(t *testing.T, db *devstacktest.Database, role string) {
	t.Helper()
	cfg := config(t, db)
	cfg.DSN = db.Server.DSNFor(role, "", db.Name)
	conn, err := cfg.connect(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer hangUp(t.Context(), conn.PgConn())
	table, err := inspectTable(t.Context(), conn, tableName{"public", "subscribers_restaurants"})
	if err != nil {
		t.Fatal(err)
	}
	table.leaves[0].pages, table.cachePages = 2*loadRange, ringPart*2*loadRange
	statements := copyStatements(table, loadRange)
	if len(statements) != 2 {
		t.Fatalf("%d ranges, want 2", len(statements))
	}
	for _, sql := range statements {
		if _, err := conn.PgConn().Exec(t.Context(), sql).ReadAll(); err != nil {
			t.Errorf("%s: %v", sql, err)
		}
	}
}

// The right to know where rows lie only shares the load among connections: without it one does it all.
func TestLoadWithoutPlaces(t *testing.T) {
	t.Parallel()
	table := &tableFacts{kind: 'r', leaves: []leaf{{pages: 3 * loadRange}}, cachePages: ringPart * 3 * loadRange}
	if n := len(copyStatements(table, loadRange)); n != 1 {
		t.Errorf("%d ranges without the right to %s, want 1", n, columnPlace)
	}
	table.placed = true
	if n := len(copyStatements(table, loadRange)); n != 3 {
		t.Errorf("%d ranges, want 3", n)
	}
	table.cachePages--
	if n := len(copyStatements(table, loadRange)); n != 1 {
		t.Errorf("%d ranges of a table that the cache can't take, want 1", n)
	}
}

// A list of columns that no longer covers the replica identity makes the server refuse the
// application its changes: that is named, and while it lasts nothing is taken for in sync.
func TestListThatTheIdentityOutgrewIsNamed(t *testing.T) {
	t.Parallel()
	db := servers.Database(t)
	contract(t, db, "DEFAULT")
	if columnList(t, db, "") == "" {
		t.Skip("this server has no lists of columns")
	}
	if tally, report := applied(t, config(t, db), db.Server.Username(), declining); !tally.Complete() {
		t.Fatal(report)
	}
	g := start(t, db)
	g.agree(t)
	db.Exec(t, `ALTER TABLE subscribers_restaurants REPLICA IDENTITY FULL`)
	g.saysWhy(t, "refuses the application every UPDATE and DELETE")
	db.Exec(t, `ALTER TABLE subscribers_restaurants REPLICA IDENTITY DEFAULT`)
	g.exec(t, `INSERT INTO subscribers_restaurants (restaurant_id, client_id) VALUES ('r1','c')`)
	g.agree(t)
}
