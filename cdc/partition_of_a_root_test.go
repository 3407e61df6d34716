package cdc

import (
	"strings"
	"testing"
)

const (
	rooted = `CREATE TABLE root (id int, client_id text, restaurant_id text) PARTITION BY LIST (restaurant_id); ALTER TABLE root REPLICA IDENTITY FULL;
		CREATE TABLE subscribers_restaurants PARTITION OF root FOR VALUES IN ('r1'); ALTER TABLE subscribers_restaurants REPLICA IDENTITY FULL;
		CREATE TABLE others PARTITION OF root DEFAULT; ALTER TABLE others REPLICA IDENTITY FULL`
	viaRoot = ` WITH (publish_via_partition_root = true)`
)

// A partition whose changes come under the name of a table above it is not followed: none of them
// would be taken for its own. That is refused before anything is made, with what to choose from.
func TestPartitionPublishedUnderItsRootIsRefused(t *testing.T) {
	t.Parallel()
	for name, publication := range map[string]string{
		"root":       `CREATE PUBLICATION tiffin FOR TABLE root` + viaRoot,
		"both":       `CREATE PUBLICATION tiffin FOR TABLE root, subscribers_restaurants` + viaRoot,
		"all tables": `CREATE PUBLICATION tiffin FOR ALL TABLES` + viaRoot,
		"schema":     `CREATE PUBLICATION tiffin FOR TABLES IN SCHEMA public` + viaRoot,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db := servers.Database(t)
			if name == "schema" && columnList(t, db, "") == "" {
				t.Skip("this server publishes no schemas")
			}
			db.Exec(t, rooted, publication)
			want := []string{"under the name of public.root", "source.table", "source.publication", "publish_via_partition_root = false"}
			// The plan first: a reader that does not refuse goes on.
			script, err := Plan(t.Context(), config(t, db), db.Server.Username())
			if err != nil {
				t.Fatal(err)
			}
			if script.Fault == nil || !strings.Contains(script.Fault.Error(), want[0]) {
				t.Fatalf("the plan's fault: %v", script.Fault)
			}
			g := start(t, db)
			refuses(t, g, want...)
			if n := g.one(t, `SELECT count(*)::text FROM pg_replication_slots WHERE slot_name = $1`, db.Slot); n != "0" {
				t.Error("a slot was made all the same")
			}
		})
	}
}

// A partition that is published under its own name is followed like any table; from when that is
// altered, nothing passes until it is mended.
func TestPartitionUnderItsOwnNameIsFollowed(t *testing.T) {
	t.Parallel()
	for name, publication := range map[string]string{
		"by its root": `CREATE PUBLICATION tiffin FOR TABLE root`,
		"alone":       `CREATE PUBLICATION tiffin FOR TABLE subscribers_restaurants` + viaRoot,
		"all tables":  `CREATE PUBLICATION tiffin FOR ALL TABLES`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db := servers.Database(t)
			db.Exec(t, rooted, publication)
			g := start(t, db)
			for _, sql := range []string{
				`INSERT INTO root VALUES (1, 'c1', 'r1'), (2, 'c2', 'r2'), (3, 'c3', 'r1')`,
				`UPDATE root SET restaurant_id = 'r1' WHERE id = 2`,
				`UPDATE root SET restaurant_id = 'r9' WHERE id = 1`,
				`TRUNCATE root`,
				`INSERT INTO root VALUES (4, 'c4', 'r1')`,
			} {
				db.Exec(t, sql)
				g.agree(t)
			}
			g.unrebuilt(t)
			if name == "alone" {
				return
			}
			db.Exec(t, `ALTER PUBLICATION tiffin SET (publish_via_partition_root = true)`, `INSERT INTO root VALUES (5, 'c5', 'r1')`)
			g.saysWhy(t, "under the name of public.root")
			db.Exec(t, `ALTER PUBLICATION tiffin SET (publish_via_partition_root = false)`)
			g.agree(t)
			g.inSync(t)
		})
	}
}
