package cdc

import (
	"fmt"
	"strings"
	"testing"

	"example.com/tiffin/internal/devstack/devstacktest"
)

// planned are the statements of a plan.
func planned(t *testing.T, cfg Config, role string) string {
	t.Helper()
	script, err := Plan(t.Context(), cfg, role)
	if err != nil {
		t.Fatal(err)
	}
	return statements(script.Steps())
}

func statements(steps []Step) string {
	var all []string
	for _, s := range steps {
		all = append(all, s.SQL)
	}
	return strings.Join(all, "\n")
}

// agreeing and declining are what somebody says to alterations.
func agreeing([]Step) (bool, error)  { return true, nil }
func declining([]Step) (bool, error) { return false, nil }

// applied runs Apply and returns what became of each step, a line each.
func applied(t *testing.T, cfg Config, role string, agree func([]Step) (bool, error)) (Tally, string) {
	t.Helper()
	var all []string
	tally, err := Apply(t.Context(), cfg, role, agree, func(p Progress) {
		all = append(all, fmt.Sprintf("%s %s %s", p.Outcome, p.Step.SQL, p.Text))
	})
	if err != nil {
		t.Fatal(err)
	}
	return tally, strings.Join(all, "\n")
}

// removed runs Drop.
func removed(t *testing.T, cfg Config) error {
	t.Helper()
	return Drop(t.Context(), cfg, false, func(Removal) (bool, error) { return true, nil }, func(Step) {})
}

// columnList is a publication's list of columns, "" where the server has no such lists.
func columnList(t *testing.T, db *devstacktest.Database, list string) string {
	t.Helper()
	if db.Connect(t).PgConn().ParameterStatus("server_version") < "15" {
		return ""
	}
	return " (" + list + ")"
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
	columns := columnList(t, db, `"id", "client_id", "restaurant_id"`)
	want := strings.NewReplacer("$ROLE", `"`+role+`"`, "$SLOT", `'`+role+`'`, " $COLUMNS", columns).Replace(`CREATE ROLE $ROLE LOGIN REPLICATION;
GRANT CONNECT ON DATABASE $ROLE TO $ROLE;
GRANT USAGE ON SCHEMA "public" TO $ROLE;
GRANT SELECT ("id", "restaurant_id", "client_id", "ctid") ON "public"."subscribers_restaurants" TO $ROLE;
ALTER TABLE "public"."subscribers_restaurants" REPLICA IDENTITY DEFAULT;
CREATE PUBLICATION "tiffin" FOR TABLE "public"."subscribers_restaurants" $COLUMNS WITH (publish = 'insert, update, delete, truncate');
SELECT pg_create_logical_replication_slot($SLOT, 'pgoutput');`)
	if got := planned(t, cfg, role); got != want {
		t.Fatalf("plan:\n%s\nwant:\n%s", got, want)
	}
	done := 0
	for range 2 {
		tally, report := applied(t, cfg, role, agreeing)
		if done += tally.Done; !tally.Complete() {
			t.Errorf("not complete: %s", report)
		}
	}
	if done != 7 || planned(t, cfg, role) != "" {
		t.Errorf("%d statements; still planned: %s", done, planned(t, cfg, role))
	}
	g := start(t, db, func(c *Config) { c.DSN, c.Setup = db.Server.DSNFor(role, "", db.Name), SetupNever })
	g.exec(t, `INSERT INTO subscribers_restaurants (restaurant_id, client_id) VALUES ('r1','c')`)
	g.agree(t)
	status, err := Status(t.Context(), cfg, role)
	if err != nil || !status.Slot.Exists || status.Slot.Lost || !strings.Contains(status.Slot.Holder, "tiffin/"+role) || len(status.Wrong) > 0 {
		t.Errorf("status %+v, %v", status, err)
	}
	if err := removed(t, cfg); !permanent(err) || !strings.Contains(err.Error(), "stop the daemon") {
		t.Errorf("drop of an active slot: %v", err)
	}
	g.quit()
	eventually(t, "dropped", func() bool { return removed(t, cfg) == nil })
	if n := g.one(t, `SELECT (SELECT count(*) FROM pg_publication) + (SELECT count(*) FROM pg_replication_slots WHERE slot_name = $1)`, role); n != "0" {
		t.Errorf("%s objects left", n)
	}
}

// A partitioned table gets a full identity on every partition, and then no list of columns.
func TestPlanForPartitions(t *testing.T) {
	t.Parallel()
	db := servers.Database(t)
	db.Exec(t, `CREATE TABLE subscribers_restaurants (id int, client_id text, restaurant_id text) PARTITION BY LIST (restaurant_id)`,
		`CREATE TABLE "P0" PARTITION OF subscribers_restaurants FOR VALUES IN ('r0')`)
	got := planned(t, config(t, db), db.Server.Username())
	for _, want := range []string{`"subscribers_restaurants" REPLICA IDENTITY FULL`, `"P0" REPLICA IDENTITY FULL`, `publish_via_partition_root = true`, `FOR TABLE "public"."subscribers_restaurants" WITH`} {
		if !strings.Contains(got, want) {
			t.Errorf("plan without %s:\n%s", want, got)
		}
	}
}

// A publication that is short of something is mended. The old slot goes before and comes again
// after, so that it is never older than what the publication publishes.
func TestPlanMendsThePublication(t *testing.T) {
	t.Parallel()
	db := servers.Database(t)
	contract(t, db, "DEFAULT")
	db.Exec(t, `CREATE PUBLICATION tiffin WITH (publish = 'insert')`, `SELECT pg_create_logical_replication_slot('`+db.Slot+`', 'pgoutput')`)
	got := strings.Split(planned(t, config(t, db), db.Server.Username()), "\n")
	if len(got) != 4 || !strings.Contains(got[0], "drop_replication_slot") || !strings.Contains(got[1], "SET (publish") ||
		!strings.Contains(got[2], "ADD TABLE") || !strings.Contains(got[3], "create_logical") {
		t.Errorf("plan %q", got)
	}
	g := start(t, db)
	g.exec(t, `INSERT INTO subscribers_restaurants (restaurant_id, client_id) VALUES ('r1','c')`)
	g.exec(t, `DELETE FROM subscribers_restaurants`)
	g.agree(t)
}

// What was there before is altered with consent alone, and what depends on it waits: no table is
// published under an identity by which the server would refuse its application changes.
func TestApplyAltersNothingUnasked(t *testing.T) {
	t.Parallel()
	const full = `CREATE TABLE subscribers_restaurants (client_id text, restaurant_id text)`
	for name, c := range map[string]struct {
		sql, left string // what is there, and a part of the statement that is left
		table     string
	}{
		"identity NOTHING":     {sql: `ALTER TABLE subscribers_restaurants REPLICA IDENTITY NOTHING`, left: `REPLICA IDENTITY DEFAULT`},
		"no key":               {table: full, left: `REPLICA IDENTITY FULL`},
		"publication of less":  {sql: `CREATE PUBLICATION tiffin FOR TABLE subscribers_restaurants WITH (publish = 'insert')`, left: `ALTER PUBLICATION`},
		"publication of rows":  {sql: `CREATE PUBLICATION tiffin FOR TABLE subscribers_restaurants WHERE (id > 1)`, left: `DROP TABLE`},
		"publication younger":  {sql: `SELECT pg_create_logical_replication_slot('$SLOT', 'pgoutput')`, left: `pg_drop_replication_slot`},
		"role without a right": {sql: `CREATE ROLE $ROLE LOGIN`, left: `ALTER ROLE "$ROLE" REPLICATION`},
		"role without a login": {sql: `CREATE ROLE $ROLE REPLICATION`, left: `ALTER ROLE "$ROLE" LOGIN`},
		"rows hidden":          {sql: `CREATE ROLE $ROLE LOGIN REPLICATION; ALTER TABLE subscribers_restaurants ENABLE ROW LEVEL SECURITY`, left: `ALTER ROLE "$ROLE" BYPASSRLS`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db := servers.Database(t)
			role := "r_" + db.Slot[2:]
			names := strings.NewReplacer("$ROLE", role, "$SLOT", db.Slot)
			if name == "publication of rows" && columnList(t, db, "") == "" {
				t.Skip("this server filters no rows")
			}
			if c.table != "" {
				db.Exec(t, c.table)
			} else {
				contract(t, db, "DEFAULT")
			}
			if c.sql != "" {
				db.Exec(t, names.Replace(c.sql))
			}
			t.Cleanup(func() { dropRole(t, db, role) })
			cfg, before := config(t, db), alterable(t, db, role)
			tally, report := applied(t, cfg, role, declining)
			if tally.Left == 0 || !strings.Contains(report, names.Replace(c.left)) || !strings.Contains(report, "--yes") {
				t.Errorf("%+v\n%s\nwithout %q", tally, report, c.left)
			}
			if after := alterable(t, db, role); strings.Contains(c.left, "IDENTITY") && after["publication"] != "" {
				t.Error("published under an identity by which the application is refused its changes")
			}
			for what, after := range alterable(t, db, role) {
				if before[what] != "" && before[what] != after {
					t.Errorf("%s was altered unasked: %s, was %s\n%s", what, after, before[what], report)
				}
			}
			if tally, report := applied(t, cfg, role, agreeing); !tally.Complete() || planned(t, cfg, role) != "" {
				t.Errorf("with consent: %+v\n%s\nstill planned %s", tally, report, planned(t, cfg, role))
			}
		})
	}
}

// alterable is what was there and may not be altered unasked; "" what was not.
func alterable(t *testing.T, db *devstacktest.Database, role string) map[string]string {
	t.Helper()
	var identity, publication, slot, attributes string
	err := db.Connect(t).QueryRow(t.Context(), `
		SELECT (SELECT relreplident::text FROM pg_class WHERE relname = 'subscribers_restaurants'),
		       coalesce((SELECT p::text || (SELECT string_agg(r::text, ',') FROM pg_publication_rel r) FROM pg_publication p), ''),
		       coalesce((SELECT restart_lsn::text FROM pg_replication_slots WHERE database = current_database()), ''),
		       coalesce((SELECT r::text FROM pg_roles r WHERE rolname = $1), '')`, role).Scan(&identity, &publication, &slot, &attributes)
	if err != nil {
		t.Fatal(err)
	}
	return map[string]string{"identity": identity, "publication": publication, "slot": slot, "role": attributes}
}

// The plan chooses the identity that costs least, and keeps one that serves.
func TestIdentityThatIsChosen(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ table, sql, want, columns string }{
		"a key of one integer":      {table: `id bigint PRIMARY KEY DEFAULT 1, client_id text, restaurant_id text`, want: "DEFAULT", columns: `"id", "client_id", "restaurant_id"`},
		"a key of the pair":         {table: `client_id text, restaurant_id text, PRIMARY KEY (restaurant_id, client_id)`, want: "DEFAULT", columns: `"client_id", "restaurant_id"`},
		"an index of the pair":      {table: `id uuid PRIMARY KEY DEFAULT gen_random_uuid(), client_id text NOT NULL, restaurant_id text NOT NULL, UNIQUE (restaurant_id, client_id)`, want: `USING INDEX "subscribers_restaurants_restaurant_id_client_id_key"`, columns: `"client_id", "restaurant_id"`},
		"an index of more":          {table: `client_id text NOT NULL, kind int NOT NULL DEFAULT 1, restaurant_id text NOT NULL, more text, UNIQUE (kind, restaurant_id, client_id)`, want: `USING INDEX "subscribers_restaurants_kind_restaurant_id_client_id_key"`, columns: `"client_id", "kind", "restaurant_id"`},
		"an index that may be null": {table: `client_id text, restaurant_id text NOT NULL, UNIQUE (restaurant_id, client_id)`, want: "FULL"},
		"an index of some rows":     {table: `client_id text NOT NULL, restaurant_id text NOT NULL`, sql: `CREATE UNIQUE INDEX ON subscribers_restaurants (restaurant_id, client_id) WHERE client_id <> ''`, want: "FULL"},
		"an index that may wait":    {table: `client_id text NOT NULL, restaurant_id text NOT NULL, UNIQUE (restaurant_id, client_id) DEFERRABLE`, want: "FULL"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db := servers.Database(t)
			db.Exec(t, `CREATE TABLE subscribers_restaurants (`+c.table+`)`, `ALTER TABLE subscribers_restaurants REPLICA IDENTITY NOTHING`)
			if c.sql != "" {
				db.Exec(t, c.sql)
			}
			cfg, role := config(t, db), db.Server.Username()
			columns := ""
			if c.columns != "" {
				columns = columnList(t, db, c.columns)
			}
			got := planned(t, cfg, role)
			if !strings.Contains(got, "REPLICA IDENTITY "+c.want+";") || !strings.Contains(got, `FOR TABLE "public"."subscribers_restaurants"`+columns+` WITH`) {
				t.Errorf("planned\n%s\nwant %s and%s", got, c.want, columns)
			}
			if tally, report := applied(t, cfg, role, agreeing); !tally.Complete() || planned(t, cfg, role) != "" {
				t.Errorf("%+v\n%s\nstill planned: %s", tally, report, planned(t, cfg, role))
			}
			g := start(t, db, func(c *Config) { c.Setup = SetupNever })
			g.exec(t, `INSERT INTO subscribers_restaurants (restaurant_id, client_id) VALUES ('r1', 'a')`)
			g.exec(t, `UPDATE subscribers_restaurants SET client_id = 'b'`)
			g.agree(t)
			g.exec(t, `DELETE FROM subscribers_restaurants`)
			g.agree(t)
			g.unrebuilt(t)
		})
	}
}

// A transaction that began before the publication was mended is read whole: the slot that is older is
// not read on from.
func TestOlderSlotIsNotReadOnFrom(t *testing.T) {
	t.Parallel()
	db := servers.Database(t)
	contract(t, db, "DEFAULT")
	db.Exec(t, `CREATE PUBLICATION tiffin`, `SELECT pg_create_logical_replication_slot('`+db.Slot+`', 'pgoutput')`)
	early, err := db.Connect(t).Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := early.Exec(t.Context(), `INSERT INTO subscribers_restaurants (restaurant_id, client_id) VALUES ('r1', 'early')`); err != nil {
		t.Fatal(err)
	}
	g := start(t, db)
	eventually(t, "a slot is in the making, or what is there is read", func() bool {
		return len(g.r.Reasons()) == 0 || g.one(t, `SELECT count(*)::text FROM pg_replication_slots WHERE slot_name = $1 AND confirmed_flush_lsn IS NULL`, db.Slot) == "1"
	})
	if err := early.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	g.agree(t)
	if got := g.clients(t, "r1"); len(got) != 1 {
		t.Errorf("clients of r1: %v", got)
	}
}
