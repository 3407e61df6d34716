package cdc

import (
	"strings"
	"testing"
)

func planned(t *testing.T, cfg Config, role string) string {
	t.Helper()
	steps, err := Plan(t.Context(), cfg, role)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, s := range steps {
		all = append(all, s.SQL)
	}
	return strings.Join(all, "\n")
}

// Apply makes what Plan shows, once; then a role with those rights and setup=never follows
// the table. Drop takes the slot and the publication away.
func TestApplyPreparesForTheRole(t *testing.T) {
	t.Parallel()
	db := servers.Database(t)
	contract(t, db, "NOTHING")
	role := db.Slot
	t.Cleanup(func() { dropRole(t, db, role) })
	cfg := config(t, db)
	want := strings.NewReplacer("$ROLE", `"`+role+`"`, "$SLOT", `'`+role+`'`).Replace(`CREATE ROLE $ROLE LOGIN REPLICATION;
GRANT CONNECT ON DATABASE $ROLE TO $ROLE;
GRANT USAGE ON SCHEMA "public" TO $ROLE;
GRANT SELECT ON "public"."subscribers_restaurants" TO $ROLE;
ALTER TABLE "public"."subscribers_restaurants" REPLICA IDENTITY DEFAULT;
CREATE PUBLICATION "tiffin" FOR TABLE "public"."subscribers_restaurants" WITH (publish = 'insert, update, delete, truncate');
SELECT pg_create_logical_replication_slot($SLOT, 'pgoutput');`)
	if got := planned(t, cfg, role); got != want {
		t.Fatalf("plan:\n%s\nwant:\n%s", got, want)
	}
	var done int
	for range 2 {
		if err := Apply(t.Context(), cfg, role, func(Step) { done++ }); err != nil {
			t.Fatal(err)
		}
	}
	if done != 7 || planned(t, cfg, role) != "" {
		t.Errorf("%d statements; still planned: %s", done, planned(t, cfg, role))
	}
	g := start(t, db, func(c *Config) { c.DSN, c.Setup = db.Server.DSNFor(role, "", db.Name), SetupNever })
	g.exec(t, `INSERT INTO subscribers_restaurants (restaurant_id, client_id) VALUES ('r1','c')`)
	g.agree(t)
	status, err := Status(t.Context(), cfg)
	if err != nil || !status.Exists || status.Lost || !strings.Contains(status.Holder, "tiffin/"+role) {
		t.Errorf("status %+v, %v", status, err)
	}
	if err := Drop(t.Context(), cfg, func(Step) {}); !permanent(err) || !strings.Contains(err.Error(), "stop the daemon") {
		t.Errorf("drop of an active slot: %v", err)
	}
	g.quit()
	eventually(t, "dropped", func() bool { return Drop(t.Context(), cfg, func(Step) {}) == nil })
	if n := g.one(t, `SELECT (SELECT count(*) FROM pg_publication) + (SELECT count(*) FROM pg_replication_slots WHERE slot_name = $1)`, role); n != "0" {
		t.Errorf("%s objects left", n)
	}
}

// A partitioned table gets a full identity on every partition.
func TestPlanForPartitions(t *testing.T) {
	t.Parallel()
	db := servers.Database(t)
	db.Exec(t, `CREATE TABLE subscribers_restaurants (id int, client_id text, restaurant_id text) PARTITION BY LIST (restaurant_id)`,
		`CREATE TABLE "P0" PARTITION OF subscribers_restaurants FOR VALUES IN ('r0')`)
	got := planned(t, config(t, db), db.Server.Username())
	for _, want := range []string{`"subscribers_restaurants" REPLICA IDENTITY FULL`, `"P0" REPLICA IDENTITY FULL`, `publish_via_partition_root = true`} {
		if !strings.Contains(got, want) {
			t.Errorf("plan without %s:\n%s", want, got)
		}
	}
}

// A publication that is short of something is mended, and the slot made again after it.
func TestPlanMendsThePublication(t *testing.T) {
	t.Parallel()
	db := servers.Database(t)
	contract(t, db, "DEFAULT")
	db.Exec(t, `CREATE PUBLICATION tiffin WITH (publish = 'insert')`, `SELECT pg_create_logical_replication_slot('`+db.Slot+`', 'pgoutput')`)
	got := strings.Split(planned(t, config(t, db), db.Server.Username()), "\n")
	if len(got) != 4 || !strings.Contains(got[0], "SET (publish") || !strings.Contains(got[1], "ADD TABLE") ||
		!strings.Contains(got[2], "drop_replication_slot") || !strings.Contains(got[3], "create_logical") {
		t.Errorf("plan %q", got)
	}
	g := start(t, db)
	g.exec(t, `INSERT INTO subscribers_restaurants (restaurant_id, client_id) VALUES ('r1','c')`)
	g.exec(t, `DELETE FROM subscribers_restaurants`)
	g.agree(t)
}
