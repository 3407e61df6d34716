package cdc

import (
	"strings"
	"testing"
	"time"

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
	for name, sql := range map[string]string{
		"table replaced":      `DROP TABLE subscribers_restaurants; ` + again + insert,
		"table swapped":       `ALTER TABLE subscribers_restaurants RENAME TO old; ` + again,
		"table unpublished":   `ALTER PUBLICATION tiffin DROP TABLE subscribers_restaurants; ` + insert,
		"operations reduced":  `ALTER PUBLICATION tiffin SET (publish = 'insert'); DELETE FROM subscribers_restaurants`,
		"publication dropped": `DROP PUBLICATION tiffin; ` + insert,
		"schema unpublished":  `ALTER PUBLICATION tiffin DROP TABLES IN SCHEMA public; ` + insert,
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
			db.Exec(t, publication)
			db.Exec(t, `ALTER DATABASE `+db.Name+` SET wal_sender_timeout = 0`) // else the warden looks every 20 s
			db.Exec(t, `INSERT INTO subscribers_restaurants (restaurant_id, client_id) SELECT 'r'||i%10, 'c'||i FROM generate_series(1,30) i`)
			g := start(t, db, func(c *Config) { c.StatusInterval = time.Hour })
			g.agree(t)
			db.Exec(t, sql)
			g.agree(t)
			g.exec(t, `INSERT INTO subscribers_restaurants (restaurant_id, client_id) VALUES ('r2', 'after')`)
			g.agree(t)
		})
	}
}

// A partition that is emptied, or comes or goes by itself, is not told by the log either.
func TestFenceSeesPartitions(t *testing.T) {
	t.Parallel()
	for name, sql := range map[string]string{
		"emptied":  `TRUNCATE p0`,
		"detached": `ALTER TABLE subscribers_restaurants DETACH PARTITION p0`,
		"attached": `CREATE TABLE p2 (LIKE subscribers_restaurants); ALTER TABLE p2 REPLICA IDENTITY FULL; INSERT INTO p2 VALUES (1, 'c', 'r2'); ALTER TABLE subscribers_restaurants ATTACH PARTITION p2 FOR VALUES IN ('r2')`,
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
			db.Exec(t, sql)
			g.agree(t)
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
