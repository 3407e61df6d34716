package cdc

import (
	"testing"
	"time"

	"example.com/tiffin/internal/devstack"
)

// What the log does not tell holds the next fence, though the warden's next look is far away:
// what was committed before is served as the table has it.
func TestFenceSeesWhatTheLogDoesNotTell(t *testing.T) {
	t.Parallel()
	const again = `CREATE TABLE subscribers_restaurants (id serial PRIMARY KEY, client_id varchar NOT NULL, restaurant_id varchar NOT NULL); `
	const insert = `INSERT INTO subscribers_restaurants (restaurant_id, client_id) VALUES ('r1', 'unpublished')`
	for name, sql := range map[string]string{
		"table replaced":      `DROP TABLE subscribers_restaurants; ` + again + insert,
		"table swapped":       `ALTER TABLE subscribers_restaurants RENAME TO old; ` + again,
		"table unpublished":   `ALTER PUBLICATION tiffin DROP TABLE subscribers_restaurants; ` + insert,
		"operations reduced":  `ALTER PUBLICATION tiffin SET (publish = 'insert'); DELETE FROM subscribers_restaurants`,
		"publication dropped": `DROP PUBLICATION tiffin; ` + insert,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db := servers.Database(t)
			contract(t, db, "FULL")
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
	p := newProxy(t, first.Address())
	g := alone(t, first, func(c *Config) { c.DSN = p.dsn(t, c.DSN) })
	other := alone(t, second) // makes the publication and a slot of the same name
	other.agree(t)
	other.quit()
	g.exec(t, `INSERT INTO subscribers_restaurants (restaurant_id, client_id) VALUES ('r1', 'first')`)
	other.exec(t, `INSERT INTO subscribers_restaurants (restaurant_id, client_id) VALUES ('r1', 'second')`)
	g.agree(t)
	p.lead(second.Address())
	g.sql, other.sql = other.sql, g.sql
	g.agree(t)
	if n := value(t, g.r.cfg.Metrics.rebuilds.WithLabelValues("system")); n != 1 {
		t.Errorf("%v rebuilds for the system, want 1", n)
	}
}
