package cdc

import (
	"context"
	"errors"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"example.com/tiffin/internal/devstack"
	"example.com/tiffin/internal/devstack/devstacktest"
)

// printed is what slotsetup plan prints.
func printed(t *testing.T, cfg Config, role string) string {
	t.Helper()
	script, err := Plan(t.Context(), cfg, role)
	if err != nil {
		t.Fatal(err)
	}
	return script.String()
}

// psql runs a script as a DBA does; where there is no psql, its statements one by one.
func psql(t *testing.T, db *devstacktest.Database, script string) {
	t.Helper()
	path, err := exec.LookPath("psql")
	if err == nil {
		cmd := exec.CommandContext(t.Context(), path, "-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", db.DSN)
		cmd.Stdin = strings.NewReader(script)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("psql: %v\n%s\n%s", err, out, script)
		}
		return
	}
	for line := range strings.Lines(script) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "--") {
			db.Exec(t, line)
		}
	}
}

// What plan prints is a script for psql: run on a fresh server it leaves nothing missing, and the
// daemon follows the table with what it gave the role, and no more.
func TestPrintedPlanIsEnough(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, server *devstack.Postgres) {
		for name, table := range map[string]string{
			"contract":    `CREATE TABLE subscribers_restaurants (id serial PRIMARY KEY, client_id varchar NOT NULL, restaurant_id varchar NOT NULL, more text)`,
			"no key":      `CREATE TABLE subscribers_restaurants (client_id text, restaurant_id text)`,
			"partitioned": `CREATE TABLE subscribers_restaurants (id int PRIMARY KEY, client_id text, restaurant_id text) PARTITION BY HASH (id); CREATE TABLE p0 PARTITION OF subscribers_restaurants FOR VALUES WITH (MODULUS 1, REMAINDER 0)`,
		} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				db := databaseOn(t, server)
				db.Exec(t, table, `REVOKE ALL ON DATABASE `+db.Name+` FROM PUBLIC`, `REVOKE ALL ON SCHEMA public FROM PUBLIC`)
				role := "r_" + db.Slot[2:]
				cfg := config(t, db)
				text := printed(t, cfg, role)
				psql(t, db, text)
				t.Cleanup(func() { dropRole(t, db, role) })
				if again := printed(t, cfg, role); !strings.Contains(again, "Nothing is missing") {
					t.Errorf("after\n%s\nstill\n%s", text, again)
				}
				g := start(t, db, func(c *Config) { c.DSN, c.Setup = db.Server.DSNFor(role, "", db.Name), SetupNever })
				id := ""
				if name == "partitioned" {
					id = ", id"
				}
				g.exec(t, `INSERT INTO subscribers_restaurants (restaurant_id, client_id`+id+`) VALUES ('r1', 'a'`+strings.Replace(id, "id", "1", 1)+`), ('r1', 'b'`+strings.Replace(id, "id", "2", 1)+`)`)
				g.agree(t)
				g.exec(t, `UPDATE subscribers_restaurants SET client_id = 'c' WHERE client_id = 'a'`)
				g.exec(t, `DELETE FROM subscribers_restaurants WHERE client_id = 'b'`)
				g.agree(t)
				g.unrebuilt(t)
				g.quit()
			})
		}
	})
}

// The plan for a server that was not asked is the same script, for the table of the contract.
func TestPlanOfflineIsEnough(t *testing.T) {
	t.Parallel()
	db := servers.Database(t)
	contract(t, db, "DEFAULT")
	if columnList(t, db, "") == "" {
		t.Skip("it is for a server that has lists of columns")
	}
	role := "r_" + db.Slot[2:]
	cfg := config(t, db)
	script, err := PlanOffline(cfg, role)
	if err != nil {
		t.Fatal(err)
	}
	text := script.String()
	for _, want := range []string{"not asked", "ALTER SYSTEM SET wal_level = 'logical';", "ALTER SYSTEM SET max_replication_slots", "max_wal_senders", "max_slot_wal_keep_size"} {
		if !strings.Contains(text, want) {
			t.Errorf("it does not say %q:\n%s", want, text)
		}
	}
	psql(t, db, text)
	t.Cleanup(func() { dropRole(t, db, role) })
	if again := printed(t, cfg, role); !strings.Contains(again, "Nothing is missing") {
		t.Errorf("after\n%s\nstill\n%s", text, again)
	}
}

// The script's last statement waits for who ran when the slot was made, and no longer, whatever isolation a
// session has by default.
func TestScriptWaitsForWhoRanAndNoLonger(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, server *devstack.Postgres) {
		for _, level := range []string{"read committed", "repeatable read", "serializable"} {
			t.Run(level, func(t *testing.T) {
				t.Parallel()
				db := databaseOn(t, server)
				runs, waits := db.Connect(t), db.Connect(t)
				exec := func(conn *pgx.Conn, sql string) error {
					_, err := conn.Exec(t.Context(), sql)
					return err
				}
				if err := errors.Join(exec(runs, `BEGIN; SELECT pg_current_xact_id()`), exec(waits, `SET default_transaction_isolation = '`+level+`'`)); err != nil {
					t.Fatal(err)
				}
				ended := make(chan error, 1)
				go func() { ended <- exec(waits, slotStep(&Config{Slot: db.Slot}).Settles) }()
				for asleep := false; !asleep; {
					if err := runs.QueryRow(t.Context(), `SELECT EXISTS (SELECT FROM pg_stat_activity WHERE pid = $1 AND wait_event = 'PgSleep')`, waits.PgConn().PID()).Scan(&asleep); err != nil {
						t.Fatal(err)
					}
				}
				if err := exec(runs, `COMMIT`); err != nil {
					t.Fatal(err)
				}
				select {
				case err := <-ended:
					if err != nil {
						t.Error(err)
					}
				case <-time.After(20 * time.Second):
					t.Error("it waits though nobody runs any more")
				}
			})
		}
	})
}

// The command that runs the script is one that a shell takes, whatever the database is called.
func TestPlanNamesADatabaseForAShell(t *testing.T) {
	t.Parallel()
	script, err := PlanOffline(Config{DSN: `host=db user=u dbname='odd " db'`, Table: "public.subscribers_restaurants", Slot: "s", Publication: "p"}, "reader")
	if err != nil {
		t.Fatal(err)
	}
	if want := `psql -X -v ON_ERROR_STOP=1 'odd " db'`; !strings.Contains(script.String(), want) {
		t.Errorf("want %s in\n%s", want, script)
	}
}

// Whose identity does not serve is said: the table's may, and a partition's not.
func TestPlanNamesThePartitionWhoseIdentityDiffers(t *testing.T) {
	t.Parallel()
	db := servers.Database(t)
	db.Exec(t, `CREATE TABLE subscribers_restaurants (id int PRIMARY KEY, client_id text, restaurant_id text) PARTITION BY HASH (id)`,
		`CREATE TABLE p0 PARTITION OF subscribers_restaurants FOR VALUES WITH (MODULUS 1, REMAINDER 0)`, `ALTER TABLE p0 REPLICA IDENTITY FULL`)
	if text := printed(t, config(t, db), db.Server.Username()); !strings.Contains(text, "It is DEFAULT, which does not serve: partition public.p0 has another replica identity") {
		t.Errorf("it does not say why:\n%s", text)
	}
}

// In every case the script is whole: each part with its reason, and what the server lacks apart.
func TestPlanIsWholeWhateverTheServerLacks(t *testing.T) {
	t.Parallel()
	server := own(t, devstack.PostgresOptions{Settings: map[string]string{
		"wal_level": "replica", "max_replication_slots": "0", "max_wal_senders": "0", "synchronous_standby_names": "*", "synchronous_commit": "local",
	}})
	db := devstacktest.NewDatabase(t, server, "app")
	contract(t, db, "NOTHING")
	cfg := config(t, db)
	cfg.MaxRetainedWAL = 8 << 30
	text := printed(t, cfg, "reader")
	at := 0
	for _, want := range []string{
		"1. The daemon's role", `CREATE ROLE "reader"`, `\password "reader"`,
		"2. Its rights", "GRANT CONNECT", "GRANT USAGE", "GRANT SELECT",
		"3. Replica identity", "DEFAULT, the primary key", "USING INDEX", "FULL: ", "NOTHING: refused", "It is NOTHING, which does not serve: ", "DEFAULT (id) costs least", "This alters table public.subscribers_restaurants",
		`ALTER TABLE "public"."subscribers_restaurants" REPLICA IDENTITY DEFAULT;`, "Instead: FULL", `REPLICA IDENTITY FULL;   then: slotsetup plan`,
		"4. Publication", "All four operations", "CREATE PUBLICATION",
		"5. Slot", "waits for the transactions", "8.0 GiB", "NOT NOW: wal_level is replica", "-- ", "pg_create_logical_replication_slot",
		"6. Settings", "NOT part of the script", "-- ", "ALTER SYSTEM SET wal_level = 'logical';   then: restart the server",
		"-- ", "ALTER SYSTEM SET max_replication_slots", "-- ", "ALTER SYSTEM SET max_wal_senders", "synchronous_standby_names is \"*\"",
		"-- ", "ALTER SYSTEM SET max_slot_wal_keep_size = '16384MB';   then: SELECT pg_reload_conf();",
	} {
		next := strings.Index(text[at:], want)
		if next < 0 {
			t.Fatalf("no %q behind the rest:\n%s", want, text)
		}
		at += next
	}
	psql(t, db, text) // what cannot be now is a comment
	status, err := Status(t.Context(), cfg, "reader")
	if err != nil || len(status.Wrong) != 5 || !strings.Contains(status.Wrong[0].Text, "wal_level") { // four settings, and the slot
		t.Errorf("status %+v, %v", status, err)
	}
}

// Whatever names hold, what is a comment stays a comment, and what is a name a name.
func TestPlanQuotesNames(t *testing.T) {
	t.Parallel()
	db := servers.Database(t)
	db.Exec(t, `CREATE TABLE victim (i int)`, `CREATE SCHEMA "odd "" schema"`,
		"CREATE TABLE \"odd \"\" schema\".\"x\nDROP TABLE victim;--\" (id serial PRIMARY KEY, client_id text, restaurant_id text)")
	cfg := config(t, db)
	cfg.Table = pgx.Identifier{`odd " schema`, "x\nDROP TABLE victim;--"}.Sanitize()
	cfg.Publication = "p\nDROP TABLE victim;--"
	role := "r\nDROP TABLE victim;--" + db.Slot
	psql(t, db, printed(t, cfg, role))
	t.Cleanup(func() { dropRole(t, db, pgx.Identifier{role}.Sanitize()) })
	db.Exec(t, `SELECT FROM victim`)
	if again := printed(t, cfg, role); !strings.Contains(again, "Nothing is missing") {
		t.Error(again)
	}
}

// Where there is no table to plan for, the script says so, and is none.
func TestPlanWithoutATable(t *testing.T) {
	t.Parallel()
	for want, sql := range map[string]string{
		"no such table":              `SELECT 1`,
		"no column client_id":        `CREATE TABLE subscribers_restaurants (id serial PRIMARY KEY, restaurant_id text)`,
		"is no text":                 `CREATE TABLE subscribers_restaurants (id serial PRIMARY KEY, client_id bytea, restaurant_id text)`,
		"a logical slot of pgoutput": `CREATE TABLE subscribers_restaurants (id serial PRIMARY KEY, client_id text, restaurant_id text); SELECT pg_create_logical_replication_slot('$SLOT', 'test_decoding')`,
	} {
		t.Run(want, func(t *testing.T) {
			t.Parallel()
			db := servers.Database(t)
			for s := range strings.SplitSeq(sql, ";") {
				db.Exec(t, strings.ReplaceAll(s, "$SLOT", db.Slot))
			}
			cfg := config(t, db)
			script, err := Plan(t.Context(), cfg, "reader")
			if err != nil || script.Fault == nil || !strings.Contains(script.String(), want) || !strings.Contains(script.String(), "Not complete") {
				t.Errorf("%v, %v\n%s", err, script.Fault, script)
			}
			if _, err := Apply(t.Context(), cfg, "reader", agreeing, func(p Progress) { t.Error(p) }); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("apply: %v", err)
			}
			if status, err := Status(t.Context(), cfg, "reader"); err != nil || len(status.Wrong) == 0 || !strings.Contains(status.Wrong[0].Text, want) {
				t.Errorf("status %+v, %v", status, err)
			}
		})
	}
}

// A step that will wait says so, and for whom, before it does.
func TestApplySaysForWhomItWaits(t *testing.T) {
	t.Parallel()
	db := servers.Database(t)
	contract(t, db, "DEFAULT")
	writer, err := db.Connect(t).Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = writer.Rollback(context.WithoutCancel(t.Context())) }()
	if _, err := writer.Exec(t.Context(), `CREATE TABLE something (i int)`); err != nil {
		t.Fatal(err)
	}
	said := ""
	tally, err := Apply(t.Context(), config(t, db), db.Server.Username(), agreeing, func(p Progress) {
		if p.Outcome == Waiting {
			said = p.Text
			if err := writer.Commit(t.Context()); err != nil {
				t.Error(err)
			}
		}
	})
	if err != nil || !tally.Complete() || !strings.Contains(said, "running transactions that write: ") {
		t.Errorf("said %q; %+v, %v", said, tally, err)
	}
}
