package cdc

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"example.com/tiffin/internal/devstack"
	"example.com/tiffin/internal/devstack/devstacktest"
)

// What the log does not tell holds the next fence, though the warden's next look is far away:
// what was committed before is served as the table has it.
func TestFenceSeesWhatTheLogDoesNotTell(t *testing.T) {
	t.Parallel()
	const again = `CREATE TABLE subscribers_restaurants (id serial PRIMARY KEY, client_id varchar NOT NULL, restaurant_id varchar NOT NULL); `
	const insert = `INSERT INTO subscribers_restaurants (restaurant_id, client_id) VALUES ('r1', 'unpublished')`
	byTable, bySchema := `CREATE PUBLICATION tiffin FOR TABLE subscribers_restaurants`, `CREATE PUBLICATION tiffin FOR TABLES IN SCHEMA public`
	for name, sql := range map[string][]string{
		"table replaced":      {`DROP TABLE subscribers_restaurants; ` + again + insert},
		"table swapped":       {`ALTER TABLE subscribers_restaurants RENAME TO old; ` + again},
		"table unpublished":   {`ALTER PUBLICATION tiffin DROP TABLE subscribers_restaurants; ` + insert},
		"operations reduced":  {`ALTER PUBLICATION tiffin SET (publish = 'insert'); DELETE FROM subscribers_restaurants`},
		"publication dropped": {`DROP PUBLICATION tiffin; ` + insert},
		"schema unpublished":  {`ALTER PUBLICATION tiffin DROP TABLES IN SCHEMA public; ` + insert},
		// What is as it was has kept changes out of the log all the same.
		"operations reduced and restored": {
			`ALTER PUBLICATION tiffin SET (publish = 'insert')`, `DELETE FROM subscribers_restaurants WHERE restaurant_id = 'r1'`,
			`ALTER PUBLICATION tiffin SET (publish = 'insert, update, delete, truncate')`,
		},
		"table unpublished and published":  {`ALTER PUBLICATION tiffin DROP TABLE subscribers_restaurants`, insert, `ALTER PUBLICATION tiffin ADD TABLE subscribers_restaurants`},
		"publication made again":           {`DROP PUBLICATION tiffin`, insert, byTable},
		"schema unpublished and published": {`ALTER PUBLICATION tiffin DROP TABLES IN SCHEMA public`, insert, `ALTER PUBLICATION tiffin ADD TABLES IN SCHEMA public`},
		"unlogged for a while under all tables": {
			`ALTER TABLE subscribers_restaurants SET UNLOGGED`, insert, `ALTER TABLE subscribers_restaurants SET LOGGED`,
		},
		// Rows are rewritten, or another column takes a name, without a word in the log.
		"values rewritten":       {`ALTER TABLE subscribers_restaurants ALTER client_id TYPE varchar USING upper(client_id)`},
		"values of another type": {`ALTER TABLE subscribers_restaurants ALTER client_id TYPE uuid USING gen_random_uuid()`},
		"column replaced":        {`ALTER TABLE subscribers_restaurants DROP client_id, ADD client_id varchar NOT NULL DEFAULT 'x'`},
		"columns that swap names and swap back": {
			`ALTER TABLE subscribers_restaurants RENAME client_id TO c; ALTER TABLE subscribers_restaurants RENAME restaurant_id TO client_id; ALTER TABLE subscribers_restaurants RENAME c TO restaurant_id`,
			`INSERT INTO subscribers_restaurants (restaurant_id, client_id) VALUES ('swapped', 'r1')`,
			`ALTER TABLE subscribers_restaurants RENAME client_id TO c; ALTER TABLE subscribers_restaurants RENAME restaurant_id TO client_id; ALTER TABLE subscribers_restaurants RENAME c TO restaurant_id`,
		},
		"columns that change names": {`ALTER TABLE subscribers_restaurants ADD c2 varchar DEFAULT 'swapped'`, `ALTER TABLE subscribers_restaurants RENAME client_id TO old; ALTER TABLE subscribers_restaurants RENAME c2 TO client_id; ALTER TABLE subscribers_restaurants ALTER old DROP NOT NULL`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db := servers.Database(t)
			contract(t, db, "FULL")
			publication := byTable
			if strings.HasPrefix(name, "schema") {
				publication = bySchema
				if db.Connect(t).PgConn().ParameterStatus("server_version") < "15" {
					t.Skip("this server publishes no schemas")
				}
			}
			if strings.HasSuffix(name, "under all tables") {
				publication = `CREATE PUBLICATION tiffin FOR ALL TABLES`
			}
			db.Exec(t, publication)
			db.Exec(t, `ALTER DATABASE `+db.Name+` SET wal_sender_timeout = 0`) // else the warden looks every 20 s
			db.Exec(t, `INSERT INTO subscribers_restaurants (restaurant_id, client_id) SELECT 'r'||i%10, 'c'||i FROM generate_series(1,30) i`)
			g := start(t, db, func(c *Config) { c.StatusInterval = time.Hour })
			g.agree(t)
			db.Exec(t, sql...)
			g.sql.Reset()
			g.agree(t)
			g.exec(t, `INSERT INTO subscribers_restaurants (restaurant_id, client_id) SELECT 'r2', gen_random_uuid()`)
			g.agree(t)
		})
	}
}

// A partition that is emptied, or comes or goes by itself, is not told by the log either.
func TestFenceSeesPartitions(t *testing.T) {
	t.Parallel()
	for name, sql := range map[string][]string{
		"emptied":  {`TRUNCATE p0`},
		"detached": {`ALTER TABLE subscribers_restaurants DETACH PARTITION p0`},
		"detached and attached": {
			`ALTER TABLE subscribers_restaurants DETACH PARTITION p0`, `DELETE FROM p0 WHERE id > 10`,
			`ALTER TABLE subscribers_restaurants ATTACH PARTITION p0 FOR VALUES IN ('r0')`,
		},
		"attached": {`CREATE TABLE p2 (LIKE subscribers_restaurants); ALTER TABLE p2 REPLICA IDENTITY FULL; INSERT INTO p2 VALUES (1, 'c', 'r2'); ALTER TABLE subscribers_restaurants ATTACH PARTITION p2 FOR VALUES IN ('r2')`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db := servers.Database(t)
			db.Exec(t, `CREATE TABLE subscribers_restaurants (id int, client_id text, restaurant_id text) PARTITION BY LIST (restaurant_id)`,
				`CREATE TABLE p0 PARTITION OF subscribers_restaurants FOR VALUES IN ('r0')`, `CREATE TABLE p1 PARTITION OF subscribers_restaurants FOR VALUES IN ('r1')`,
				`ALTER TABLE subscribers_restaurants REPLICA IDENTITY FULL`, `ALTER TABLE p0 REPLICA IDENTITY FULL`, `ALTER TABLE p1 REPLICA IDENTITY FULL`,
				`ALTER DATABASE `+db.Name+` SET wal_sender_timeout = 0`,
				`INSERT INTO subscribers_restaurants SELECT i, 'c'||i, 'r'||i%2 FROM generate_series(1,20) i`)
			g := start(t, db, func(c *Config) { c.StatusInterval = time.Hour })
			g.agree(t)
			db.Exec(t, sql...)
			g.agree(t)
		})
	}
}

// The log describes the rows of a partition by the table's replica identity, and has them as the
// partition's own makes them: no fence passes once that was switched, though it is switched back.
func TestFenceSeesAPartitionsIdentity(t *testing.T) {
	t.Parallel()
	const change = `UPDATE subscribers_restaurants SET client_id = 'x' || client_id`
	for name, test := range map[string]struct {
		identity []string // of the table and of each partition, %s
		switched []string
	}{
		"full": {
			[]string{`ALTER TABLE %s REPLICA IDENTITY FULL`},
			[]string{`ALTER TABLE p0 REPLICA IDENTITY DEFAULT`, change, `ALTER TABLE p0 REPLICA IDENTITY FULL`},
		},
		"another index": {
			[]string{`CREATE UNIQUE INDEX %[1]s_pair ON %[1]s (restaurant_id, client_id)`, `ALTER TABLE %[1]s REPLICA IDENTITY USING INDEX %[1]s_pair`},
			[]string{
				`ALTER TABLE p0 REPLICA IDENTITY USING INDEX p0_pkey`, change,
				`ALTER TABLE p0 REPLICA IDENTITY USING INDEX p0_pair`,
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			onEach(t, func(t *testing.T, server *devstack.Postgres) {
				db := databaseOn(t, server)
				db.Exec(t, `CREATE TABLE subscribers_restaurants (id int NOT NULL, client_id text NOT NULL, restaurant_id text NOT NULL) PARTITION BY LIST (restaurant_id)`,
					`CREATE TABLE p0 PARTITION OF subscribers_restaurants FOR VALUES IN ('r0')`, `ALTER TABLE p0 ADD PRIMARY KEY (id)`,
					`INSERT INTO subscribers_restaurants SELECT i, 'c'||i, 'r0' FROM generate_series(1,20) i`)
				for _, relation := range []string{"p0", "subscribers_restaurants"} {
					for _, sql := range test.identity {
						db.Exec(t, fmt.Sprintf(sql, relation))
					}
				}
				g := start(t, db, func(c *Config) { c.StatusInterval = time.Hour })
				g.agree(t)
				db.Exec(t, change)
				g.agree(t)
				g.unrebuilt(t)
				db.Exec(t, test.switched...)
				g.agree(t)
			})
		})
	}
}

// A lock of the table, or of another that the publication holds, keeps neither fences nor the
// warden nor a new session waiting: who holds it may be waiting for the index, as an audit does
// that a TRUNCATE waits behind.
func TestLocksHoldNothingUp(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{"table", "all tables", "partitioned"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			db := servers.Database(t)
			if kind == "partitioned" {
				db.Exec(t, `CREATE TABLE subscribers_restaurants (id int, client_id text, restaurant_id text) PARTITION BY LIST (restaurant_id)`,
					`CREATE TABLE p0 PARTITION OF subscribers_restaurants FOR VALUES IN ('r0')`,
					`ALTER TABLE subscribers_restaurants REPLICA IDENTITY FULL`, `ALTER TABLE p0 REPLICA IDENTITY FULL`)
			} else {
				contract(t, db, "DEFAULT")
			}
			db.Exec(t, `CREATE TABLE other (id int PRIMARY KEY)`, `CREATE TABLE free (id int)`, `INSERT INTO subscribers_restaurants (id, restaurant_id, client_id) VALUES (1, 'r0', 'c1')`)
			if kind == "all tables" {
				db.Exec(t, `CREATE PUBLICATION tiffin FOR ALL TABLES`)
			}
			g := start(t, db)
			g.agree(t)
			held, err := g.sql.Begin(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = held.Rollback(t.Context()) }()
			if _, err := held.Exec(t.Context(), `INSERT INTO subscribers_restaurants (id, restaurant_id, client_id) VALUES (2, 'r0', 'c2'); LOCK TABLE subscribers_restaurants, other IN ACCESS EXCLUSIVE MODE`); err != nil {
				t.Fatal(err)
			}
			began := time.Now()
			g.exec(t, `SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = $1`, db.Slot)
			for range 20 { // over several of the warden's looks
				g.exec(t, `INSERT INTO free VALUES (1)`) // else a fence needs no session
				g.fence(t)
				pause(t.Context(), 50*time.Millisecond)
			}
			if took := time.Since(began); took > prepareLimit/2 {
				t.Errorf("took %s", took)
			}
			if err := held.Commit(t.Context()); err != nil {
				t.Fatal(err)
			}
			g.agree(t)
			g.unrebuilt(t)
		})
	}
}

// Another table in the publication is none of the reader's business: fences go on passing.
func TestFenceForgivesWhatIsNotOurs(t *testing.T) {
	t.Parallel()
	db := servers.Database(t)
	contract(t, db, "DEFAULT")
	g := start(t, db, func(c *Config) { c.StatusInterval = time.Hour })
	g.agree(t)
	db.Exec(t, `CREATE TABLE other (id int PRIMARY KEY)`, `ALTER PUBLICATION tiffin ADD TABLE other`)
	g.agree(t)
	db.Exec(t, `ALTER TABLE other RENAME TO another`, `TRUNCATE subscribers_restaurants`, `VACUUM FULL pg_publication`)
	g.agree(t)
	db.Exec(t, `VACUUM FULL subscribers_restaurants`, `VACUUM FULL pg_attribute`)
	g.agree(t)
	g.unrebuilt(t)
}

// A failover to a standby that lacked the last commits: the timeline is another, the slot is
// gone, and the index forgets what the new primary does not have.
func TestFailoverLoadsAgain(t *testing.T) {
	t.Parallel()
	server := own(t, devstack.PostgresOptions{})
	g := alone(t, server)
	g.exec(t, `INSERT INTO subscribers_restaurants (restaurant_id, client_id) VALUES ('r1', 'kept')`)
	g.agree(t)
	if err := server.SaveStandby(t.Context()); err != nil {
		t.Fatal(err)
	}
	g.sql.Reset()
	g.exec(t, `INSERT INTO subscribers_restaurants (restaurant_id, client_id) SELECT 'r1', 'lost'||i FROM generate_series(1,1000) i`)
	g.agree(t)
	if err := server.Failover(t.Context()); err != nil {
		t.Fatal(err)
	}
	g.sql.Reset()
	g.exec(t, `INSERT INTO subscribers_restaurants (restaurant_id, client_id) VALUES ('r1', 'new')`)
	g.agree(t)
	if got := g.clients(t, "r1"); len(got) != 2 {
		t.Errorf("clients of r1: %v", brief(got))
	}
	if n := value(t, g.r.cfg.Metrics.rebuilds.WithLabelValues("timeline")); n != 1 {
		t.Errorf("%v rebuilds for the timeline, want 1", n)
	}
}

// Another database system behind the same address is noticed, also when everything in it has
// the same name and the same numbers.
func TestAnotherSystemLoadsAgain(t *testing.T) {
	t.Parallel()
	first, second := own(t, devstack.PostgresOptions{}), own(t, devstack.PostgresOptions{})
	p := devstacktest.OpenRoute(t, first.Address())
	g := alone(t, first, func(c *Config) { c.DSN = devstacktest.RouteDSN(t, p, c.DSN) })
	other := alone(t, second) // makes the publication and a slot of the same name
	other.agree(t)
	other.quit()
	g.exec(t, `INSERT INTO subscribers_restaurants (restaurant_id, client_id) VALUES ('r1', 'first')`)
	other.exec(t, `INSERT INTO subscribers_restaurants (restaurant_id, client_id) VALUES ('r1', 'second')`)
	g.agree(t)
	p.Lead(second.Address())
	g.sql, other.sql = other.sql, g.sql
	g.agree(t)
	if n := value(t, g.r.cfg.Metrics.rebuilds.WithLabelValues("system")); n != 1 {
		t.Errorf("%v rebuilds for the system, want 1", n)
	}
}

// Where its publication is missing in the log a slot can serve no more, also after the DBA has
// made the publication again, which the daemon's role may not.
func TestPublicationMadeAgainByTheDBA(t *testing.T) {
	t.Parallel()
	db := servers.Database(t)
	contract(t, db, "DEFAULT")
	role := db.Slot
	db.Exec(t, `CREATE ROLE `+role+` LOGIN REPLICATION`, `GRANT SELECT ON subscribers_restaurants TO `+role,
		`CREATE PUBLICATION tiffin FOR TABLE subscribers_restaurants`)
	t.Cleanup(func() { dropRole(t, db, role) })
	g := start(t, db, func(c *Config) { c.DSN = db.Server.DSNFor(role, "", db.Name) })
	g.agree(t)
	g.exec(t, `DROP PUBLICATION tiffin`)
	g.exec(t, `INSERT INTO subscribers_restaurants (restaurant_id, client_id) VALUES ('r1', 'unpublished')`)
	g.saysWhy(t, "CREATE PUBLICATION")
	g.exec(t, `CREATE PUBLICATION tiffin FOR TABLE subscribers_restaurants`)
	g.agree(t)
	g.inSync(t)
	// Nor when it is there again before anybody has looked.
	for _, sql := range []string{
		`DROP PUBLICATION tiffin`,
		`INSERT INTO subscribers_restaurants (restaurant_id, client_id) VALUES ('r1', 'unpublished too')`,
		`CREATE PUBLICATION tiffin FOR TABLE subscribers_restaurants`,
	} {
		g.exec(t, sql)
	}
	g.agree(t)
	g.inSync(t)
}

// A transaction that runs while its publication is altered may have written what was not
// published: an index that is loaded meanwhile would never have it.
func TestLoadWaitsForWhoWroteUnpublished(t *testing.T) {
	t.Parallel()
	server := own(t, devstack.PostgresOptions{})
	g := alone(t, server)
	g.exec(t, `INSERT INTO subscribers_restaurants (restaurant_id, client_id) VALUES ('r1', 'c1')`)
	g.agree(t)
	g.exec(t, `ALTER PUBLICATION tiffin SET (publish = 'insert')`)
	other, err := pgx.Connect(t.Context(), g.r.cfg.DSN)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = other.Close(t.Context()) }()
	for _, sql := range []string{`BEGIN`, `DELETE FROM subscribers_restaurants WHERE restaurant_id = 'r1'`} {
		if _, err := other.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	g.exec(t, `ALTER PUBLICATION tiffin SET (publish = 'insert, update, delete, truncate')`)
	g.r.askWarden()
	g.saysWhy(t, "open still")
	if _, err := other.Exec(t.Context(), `COMMIT`); err != nil {
		t.Fatal(err)
	}
	g.agree(t)
	if got := g.clients(t, "r1"); len(got) != 0 {
		t.Errorf("clients of r1: %v", brief(got))
	}
}

// Rows that row security hides are no empty answer: the question is refused.
func TestRowSecurityIsNoEmptyAnswer(t *testing.T) {
	t.Parallel()
	db := servers.Database(t)
	contract(t, db, "DEFAULT")
	role := db.Slot
	db.Exec(t, `CREATE ROLE `+role+` LOGIN REPLICATION`, `GRANT SELECT ON subscribers_restaurants TO `+role,
		`ALTER DATABASE `+db.Name+` SET wal_sender_timeout = 0`,
		`CREATE PUBLICATION tiffin FOR TABLE subscribers_restaurants`,
		`INSERT INTO subscribers_restaurants (restaurant_id, client_id) SELECT 'r'||i%10, 'c'||i FROM generate_series(1,30) i`)
	t.Cleanup(func() { dropRole(t, db, role) })
	cfg := config(t, db)
	cfg.DSN, cfg.StatusInterval = db.Server.DSNFor(role, "", db.Name), time.Hour
	g := build(t, db, cfg, 1).run(t) // a budget of one byte: everything is read through
	g.agree(t)
	g.exec(t, `ALTER TABLE subscribers_restaurants ENABLE ROW LEVEL SECURITY`)
	if _, err := g.src.ReadRestaurant(t.Context(), "r1", func([]byte) error { return nil }); err == nil || !strings.Contains(err.Error(), "row-level security") {
		t.Errorf("%v", err)
	}
	g.exec(t, `ALTER TABLE subscribers_restaurants DISABLE ROW LEVEL SECURITY`)
	g.agree(t)
}

// With several servers in source.dsn a refused connection may lead to a standby, which is behind.
func TestReadingsComeFromThePrimary(t *testing.T) {
	t.Parallel()
	primary := own(t, devstack.PostgresOptions{Version: newer(t)})
	g := alone(t, primary)
	g.agree(t)
	standby, err := primary.StartStandby(t.Context(), g.db.Name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := standby.Close(); err != nil {
			t.Error(err)
		}
	})
	behind, err := NewSource(Config{
		DSN: standby.DSN(g.db.Name), Table: g.r.cfg.Table, Publication: g.r.cfg.Publication, Slot: g.r.cfg.Slot, Log: g.r.cfg.Log,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer behind.Close()
	behind.read.Store(g.src.read.Load())
	behind.footing.system.Store(g.src.footing.system.Load())
	if _, err := behind.ReadRestaurant(t.Context(), "r1", func([]byte) error { return nil }); !errors.Is(err, errStandby) {
		t.Errorf("%v", err)
	}
}
