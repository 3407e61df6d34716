package cdc

import (
	"context"
	"testing"
	"time"
)

// A table of which nothing was published for a while, and that is as it was again, is loaded anew.
func TestFenceSeesATableThatWasUnpublished(t *testing.T) {
	t.Parallel()
	const short = `CREATE TABLE subscribers_restaurants (id int PRIMARY KEY, client_id uuid NOT NULL, restaurant_id uuid NOT NULL)`
	const plain = `CREATE TABLE subscribers_restaurants (id int PRIMARY KEY, client_id text NOT NULL, restaurant_id text NOT NULL)`
	for name, c := range map[string]struct{ table, publication, away, back string }{
		"unlogged, without long values": {short, `FOR ALL TABLES`, `SET UNLOGGED`, `SET LOGGED`},
		"unlogged, looked at":           {short, `FOR ALL TABLES`, `SET UNLOGGED`, `SET LOGGED`},
		"unlogged, let go of by another publication": {
			plain + `; CREATE PUBLICATION others FOR TABLE subscribers_restaurants`, `FOR ALL TABLES`,
			`ADD COLUMN other int; ALTER PUBLICATION others DROP TABLE subscribers_restaurants; ALTER TABLE subscribers_restaurants SET UNLOGGED`,
			`SET LOGGED; ALTER PUBLICATION others ADD TABLE subscribers_restaurants`,
		},
		"in another schema": {
			plain + `; CREATE SCHEMA other`, `FOR TABLES IN SCHEMA public`,
			`SET SCHEMA other; SET search_path = other`, `SET SCHEMA public`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db := quiet(t, map[string]string{"wal_sender_timeout": "0"})
			conn := db.Connect(t)
			exec := func(sql string) {
				t.Helper()
				if _, err := conn.Exec(t.Context(), sql); err != nil {
					t.Fatalf("%s: %v", sql, err)
				}
			}
			exec(c.table)
			if _, err := conn.Exec(t.Context(), `CREATE PUBLICATION tiffin `+c.publication); err != nil {
				t.Skip(err) // before PostgreSQL 15 there are no schemas of publications
			}
			const restaurant = `'123e4567-e89b-12d3-a456-426614174000'`
			exec(`INSERT INTO subscribers_restaurants SELECT i, gen_random_uuid(), ` + restaurant + ` FROM generate_series(1,10) i`)
			g := start(t, db, func(c *Config) { c.StatusInterval = time.Hour })
			g.agree(t)
			exec(`ALTER TABLE subscribers_restaurants ` + c.away)
			exec(`INSERT INTO subscribers_restaurants (id, client_id, restaurant_id) SELECT 11, gen_random_uuid(), ` + restaurant)
			if name == "unlogged, looked at" {
				short, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
				defer cancel()
				if mark, err := g.r.Wait(short); err == nil {
					t.Errorf("meanwhile a fence passed: %+v", mark)
				}
			}
			exec(`ALTER TABLE subscribers_restaurants ` + c.back)
			g.agree(t)
		})
	}
}
