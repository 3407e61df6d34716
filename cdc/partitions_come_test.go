package cdc

import (
	"testing"

	"example.com/tiffin/internal/devstack"
)

// A partition that is made, with partitions of its own, or attached while the daemon runs is followed, and an
// audit finds nothing.
func TestPartitionsComeWhileRunning(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, server *devstack.Postgres) {
		db := databaseOn(t, server)
		db.Exec(t, `CREATE TABLE subscribers_restaurants (id int, client_id text, restaurant_id text) PARTITION BY LIST (restaurant_id)`,
			`CREATE TABLE r1 PARTITION OF subscribers_restaurants FOR VALUES IN ('r1')`,
			`ALTER TABLE subscribers_restaurants REPLICA IDENTITY FULL`, `ALTER TABLE r1 REPLICA IDENTITY FULL`,
			`INSERT INTO subscribers_restaurants VALUES (1, 'c1', 'r1')`)
		g := start(t, db)
		g.agree(t)
		for _, sql := range []string{
			`BEGIN; CREATE TABLE r2 PARTITION OF subscribers_restaurants FOR VALUES IN ('r2') PARTITION BY HASH (client_id);
				ALTER TABLE r2 REPLICA IDENTITY FULL;
				CREATE TABLE r20 PARTITION OF r2 FOR VALUES WITH (MODULUS 2, REMAINDER 0); ALTER TABLE r20 REPLICA IDENTITY FULL;
				CREATE TABLE r21 PARTITION OF r2 FOR VALUES WITH (MODULUS 2, REMAINDER 1); ALTER TABLE r21 REPLICA IDENTITY FULL;
				INSERT INTO subscribers_restaurants SELECT i, 'c'||i, 'r2' FROM generate_series(1,10) i; COMMIT`,
			`INSERT INTO subscribers_restaurants SELECT i, 'c'||i, 'r2' FROM generate_series(11,20) i`,
			`UPDATE subscribers_restaurants SET client_id = client_id || 'x' WHERE id % 2 = 0`, // from sub-partition to sub-partition
			`UPDATE subscribers_restaurants SET restaurant_id = 'r1' WHERE id > 15`,
			`CREATE TABLE r3 (id int, client_id text, restaurant_id text); ALTER TABLE r3 REPLICA IDENTITY FULL;
				INSERT INTO r3 VALUES (30, 'c30', 'r3'); ALTER TABLE subscribers_restaurants ATTACH PARTITION r3 FOR VALUES IN ('r3')`,
			`DELETE FROM subscribers_restaurants WHERE id BETWEEN 5 AND 8; INSERT INTO subscribers_restaurants VALUES (31, 'c31', 'r3')`,
		} {
			db.Exec(t, sql)
			g.agree(t)
			if found, _ := g.audit(t); len(found) != 0 {
				t.Errorf("after %s: %v", sql, found)
			}
		}
	})
}

// Who owns a partitioned table empties partitions, gives rights to them and builds their indexes anew as often as he
// likes: that is no fault of the source, and ends nobody.
func TestPartitionsAreTendedWithoutEnd(t *testing.T) {
	t.Parallel()
	db := servers.Database(t)
	db.Exec(t, `CREATE TABLE subscribers_restaurants (id int, client_id text, restaurant_id text, PRIMARY KEY (id, restaurant_id)) PARTITION BY LIST (restaurant_id)`,
		`CREATE TABLE r1 PARTITION OF subscribers_restaurants FOR VALUES IN ('r1')`,
		`ALTER TABLE subscribers_restaurants REPLICA IDENTITY FULL`, `ALTER TABLE r1 REPLICA IDENTITY FULL`)
	g := start(t, db)
	g.agree(t)
	for i := range 2 * rebuildsPerHour {
		db.Exec(t, []string{`TRUNCATE r1`, `GRANT SELECT ON r1 TO PUBLIC`, `REINDEX INDEX CONCURRENTLY r1_pkey`}[i%3])
		g.exec(t, `INSERT INTO subscribers_restaurants VALUES ($1, 'c', 'r1')`, i)
		g.agree(t)
	}
}

// What a foreign server holds is not in the log.
func TestForeignPartitionIsRefused(t *testing.T) {
	t.Parallel()
	db := servers.Database(t)
	db.Exec(t, `CREATE FOREIGN DATA WRAPPER elsewhere`, `CREATE SERVER far FOREIGN DATA WRAPPER elsewhere`,
		`CREATE TABLE subscribers_restaurants (id int, client_id text, restaurant_id text) PARTITION BY RANGE (id)`,
		`CREATE TABLE near PARTITION OF subscribers_restaurants FOR VALUES FROM (0) TO (1000)`,
		`CREATE FOREIGN TABLE away PARTITION OF subscribers_restaurants FOR VALUES FROM (1000) TO (2000) SERVER far`,
		`ALTER TABLE subscribers_restaurants REPLICA IDENTITY FULL`, `ALTER TABLE near REPLICA IDENTITY FULL`)
	refuses(t, start(t, db), `partition public.away is a foreign table`, `ALTER TABLE "public"."subscribers_restaurants" DETACH PARTITION "public"."away"`)
}
