package cdc

import (
	"context"
	"testing"
	"time"

	"example.com/tiffin/cache"
	"example.com/tiffin/internal/devstack"
)

// Restaurants whose texts a collation or a type takes for equal are others: in memory, and read through.
func TestReadingsTellTextsApart(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, server *devstack.Postgres) {
		for _, typ := range []string{"varchar COLLATE ci", "over_ci", "char(8) COLLATE ci", "citext"} {
			t.Run(typ, func(t *testing.T) {
				t.Parallel()
				db := databaseOn(t, server)
				if _, err := db.Connect(t).Exec(t.Context(), `CREATE EXTENSION citext`); err != nil && typ == "citext" {
					t.Skip(err)
				}
				db.Exec(t, `CREATE COLLATION ci (provider = icu, locale = 'und-u-ks-level2', deterministic = false)`, `CREATE DOMAIN over_ci AS text COLLATE ci`,
					`CREATE TABLE subscribers_restaurants (id int PRIMARY KEY, client_id text, restaurant_id `+typ+`)`,
					`INSERT INTO subscribers_restaurants VALUES (1, 'a', 'R1'), (2, 'b', 'r1'), (3, 'c', 'R2')`)
				g := build(t, db, config(t, db), 1).run(t)
				g.agree(t)
				g.exec(t, `INSERT INTO subscribers_restaurants VALUES (4, 'd', 'r2'), (5, 'e', 'R1')`)
				g.agree(t)
				g.unrebuilt(t)
			})
		}
	})
}

// A reading that has to wait for who rewrites the table sees its rows, whatever isolation the database's
// sessions have by default.
func TestReadingBehindARewriteSeesTheRows(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, server *devstack.Postgres) {
		db := databaseOn(t, server)
		contract(t, db, "DEFAULT")
		db.Exec(t, `ALTER DATABASE `+db.Name+` SET default_transaction_isolation = 'repeatable read'`)
		db.Exec(t, `INSERT INTO subscribers_restaurants (restaurant_id, client_id) SELECT 'r'||i%10, 'c'||i FROM generate_series(1,100) i`)
		g := build(t, db, config(t, db), 1).run(t)
		g.agree(t)
		for range 4 { // all of the pool has its statement prepared
			g.clients(t, "r1")
		}
		writer := db.Connect(t)
		if _, err := writer.Exec(t.Context(), `BEGIN; ALTER TABLE subscribers_restaurants ADD COLUMN token uuid DEFAULT gen_random_uuid()`); err != nil {
			t.Fatal(err)
		}
		got := make(chan int, 1)
		go func() { got <- g.lookup(t, "r1") }()
		eventually(t, "the reading waits for the writer", func() bool {
			return g.one(t, `SELECT count(*)::text FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE 'tiffin/%' AND wait_event_type = 'Lock'`) == "1"
		})
		if _, err := writer.Exec(t.Context(), `COMMIT`); err != nil {
			t.Fatal(err)
		}
		if n := <-got; n != 10 {
			t.Errorf("r1 has 10 clients, the reading that waited found %d", n)
		}
		g.agree(t)
		g.unrebuilt(t)
	})
}

// lookup is how many clients a restaurant has, -1 if that cannot be told now.
func (g *rig) lookup(t *testing.T, restaurant string) int {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patient)
	defer cancel()
	got, err := g.idx.Lookup(ctx, restaurant)
	if err != nil {
		t.Log(err)
		return -1
	}
	defer got.Release()
	return got.Len()
}

// swapForPartitioned puts a partitioned table of the same rows in the place of a plain one.
const swapForPartitioned = `ALTER TABLE subscribers_restaurants RENAME TO old;
	CREATE TABLE subscribers_restaurants (id int NOT NULL, client_id varchar NOT NULL, restaurant_id varchar NOT NULL) PARTITION BY HASH (restaurant_id);
	CREATE TABLE h0 PARTITION OF subscribers_restaurants FOR VALUES WITH (MODULUS 1, REMAINDER 0);
	ALTER TABLE subscribers_restaurants REPLICA IDENTITY FULL; ALTER TABLE h0 REPLICA IDENTITY FULL;
	INSERT INTO subscribers_restaurants SELECT id, client_id, restaurant_id FROM old`

// The table is swapped for another kind behind a fence that has passed: a reading fits the table that it reads,
// or gives no answer.
func TestReadingOfAnotherTableIsNoAnswer(t *testing.T) {
	t.Parallel()
	db := quiet(t, map[string]string{"wal_sender_timeout": "0"})
	contract(t, db, "FULL")
	db.Exec(t, `INSERT INTO subscribers_restaurants (restaurant_id, client_id) SELECT 'r'||i%10, 'c'||i FROM generate_series(1,100) i`)
	cfg := config(t, db)
	cfg.StatusInterval = time.Hour // so that the warden does not see it first
	g := build(t, db, cfg, 1).run(t)
	g.agree(t)
	db.Exec(t, swapForPartitioned)
	if n := g.lookup(t, "r1"); n != -1 && n != 10 {
		t.Errorf("r1 has 10 clients before and after, and between them %d", n)
	}
	g.agree(t)
}

// Who looks up while the swapped table is loaded waits, and reads as that one is read.
func TestReadingAfterALoadFitsTheTable(t *testing.T) {
	t.Parallel()
	db := servers.Database(t)
	contract(t, db, "FULL")
	db.Exec(t, `INSERT INTO subscribers_restaurants (restaurant_id, client_id) SELECT 'r'||i%10, 'c'||i FROM generate_series(1,100) i`)
	g := build(t, db, config(t, db), 100) // a posting or two
	loads := &loadsBegun{Index: g.idx, begun: make(chan struct{}, 10)}
	g.r.idx = loads
	g.run(t)
	g.agree(t)
	<-loads.begun
	db.Exec(t, swapForPartitioned)
	<-loads.begun
	for _, r := range []string{"r0", "r1", "r2", "r3", "r4"} {
		if n := g.lookup(t, r); n != 10 {
			t.Errorf("%s has 10 clients before and after; who waited for the load was told of %d", r, n)
		}
	}
	g.agree(t)
}

// loadsBegun tells when loads begin.
type loadsBegun struct {
	*cache.Index
	begun chan struct{}
}

func (l *loadsBegun) BeginLoad(keyed bool) *cache.Load {
	defer func() { l.begun <- struct{}{} }()
	return l.Index.BeginLoad(keyed)
}

// A domain's name, and its rules, are nothing to a reading.
func TestReadingsNeedNoDomain(t *testing.T) {
	t.Parallel()
	for what, sql := range map[string]string{
		"renamed":   `ALTER DOMAIN rid RENAME TO rid2`,
		"swapped":   `ALTER DOMAIN rid RENAME TO rid2; CREATE DOMAIN rid AS char(1)`,
		"not valid": `ALTER DOMAIN rid ADD CHECK (value <> 'r1') NOT VALID`,
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			db := servers.Database(t)
			db.Exec(t, `CREATE DOMAIN rid AS varchar`, `CREATE TABLE subscribers_restaurants (id int PRIMARY KEY, client_id text, restaurant_id rid)`,
				`INSERT INTO subscribers_restaurants VALUES (1, 'a', 'r1'), (2, 'b', 'r1'), (3, 'c', 'r2')`)
			g := build(t, db, config(t, db), 1).run(t)
			g.agree(t)
			db.Exec(t, sql)
			g.src.pool.Reset() // whose statements know the type by its number
			g.agree(t)
			g.unrebuilt(t)
		})
	}
}

// What the log prints of a uuid is its text, also where the database has a cast of its own.
func TestTextsAreTheLogs(t *testing.T) {
	t.Parallel()
	const restaurant = "123e4567-e89b-12d3-a456-426614174000"
	for name, budget := range map[string]int64{"from memory": 1 << 20, "read through": 1} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db := servers.Database(t)
			db.Exec(t, `CREATE FUNCTION plain(uuid) RETURNS text LANGUAGE sql IMMUTABLE AS $$ SELECT replace(textin(uuid_out($1)), '-', '') $$`,
				`CREATE CAST (uuid AS text) WITH FUNCTION plain(uuid) AS ASSIGNMENT`, `CREATE TABLE subscribers_restaurants (id int PRIMARY KEY, client_id uuid, restaurant_id uuid)`,
				`INSERT INTO subscribers_restaurants VALUES (1, gen_random_uuid(), '`+restaurant+`')`)
			g := build(t, db, config(t, db), budget).run(t)
			g.fence(t)
			g.exec(t, `INSERT INTO subscribers_restaurants VALUES (2, gen_random_uuid(), '`+restaurant+`')`)
			g.fence(t)
			if got := g.clients(t, restaurant); len(got) != 2 {
				t.Errorf("%d clients of 2", len(got))
			}
			g.unrebuilt(t)
		})
	}
}
