package cdc

import (
	"testing"

	"example.com/tiffin/internal/devstack"
)

// Who rewrites the table, for a column that nobody here needs, leaves older snapshots an empty one (MVCC
// Caveats of the manual). A load that had to wait for them takes another snapshot.
func TestLoadBesideARewriteSeesTheRows(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, server *devstack.Postgres) {
		const rewrite = `ALTER TABLE subscribers_restaurants ADD COLUMN token uuid DEFAULT gen_random_uuid()`
		for what, sql := range map[string]string{
			"rewritten": rewrite, "partitioned": rewrite,
			"truncated": `TRUNCATE subscribers_restaurants; INSERT INTO subscribers_restaurants (restaurant_id, client_id) VALUES ('r1', 'new')`,
		} {
			t.Run(what, func(t *testing.T) {
				t.Parallel()
				db := databaseOn(t, server)
				if what == "partitioned" {
					db.Exec(t, `CREATE TABLE subscribers_restaurants (id serial PRIMARY KEY, client_id text, restaurant_id text) PARTITION BY RANGE (id)`,
						`CREATE TABLE p0 PARTITION OF subscribers_restaurants FOR VALUES FROM (0) TO (50)`,
						`CREATE TABLE p1 PARTITION OF subscribers_restaurants DEFAULT`)
				} else {
					contract(t, db, "DEFAULT")
				}
				db.Exec(t, `INSERT INTO subscribers_restaurants (restaurant_id, client_id) SELECT 'r'||i%10, 'c'||i FROM generate_series(1,100) i`)
				before := start(t, db)
				before.agree(t)
				before.quit()
				writer := db.Connect(t)
				if _, err := writer.Exec(t.Context(), `BEGIN; `+sql); err != nil {
					t.Fatal(err)
				}
				g := start(t, db)
				eventually(t, "the load waits for the writer", func() bool {
					return g.one(t, `SELECT count(*)::text FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE 'tiffin/%' AND wait_event_type = 'Lock'`) == "1"
				})
				if _, err := writer.Exec(t.Context(), `COMMIT`); err != nil {
					t.Fatal(err)
				}
				g.agree(t)
				if what != "partitioned" { // whose altered partitions are loaded again
					g.unrebuilt(t)
				}
			})
		}
	})
}
