package cdc

import (
	"context"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"example.com/tiffin/internal/devstack"
	"example.com/tiffin/internal/devstack/devstacktest"
)

// What does not mend by waiting ends Run at the start, named, with its fix.
func TestRefusalsNameTheFix(t *testing.T) {
	t.Parallel()
	const table = `CREATE TABLE subscribers_restaurants (id serial PRIMARY KEY, client_id varchar NOT NULL, restaurant_id varchar NOT NULL)`
	const partitioned = `CREATE TABLE subscribers_restaurants (id int, client_id text, restaurant_id text) PARTITION BY LIST (restaurant_id); ALTER TABLE subscribers_restaurants REPLICA IDENTITY FULL`
	for name, c := range map[string]struct {
		sql    string
		change func(*Config)
		want   []string
	}{
		"identity nothing": {sql: table + `; ALTER TABLE subscribers_restaurants REPLICA IDENTITY NOTHING`, want: []string{"NOTHING", `ALTER TABLE "public"."subscribers_restaurants" REPLICA IDENTITY`}},
		"no primary key":   {sql: `CREATE TABLE subscribers_restaurants (client_id text, restaurant_id text)`, want: []string{"no primary key", "REPLICA IDENTITY FULL"}},
		"another key":      {sql: `CREATE TABLE subscribers_restaurants (id uuid PRIMARY KEY, client_id text, restaurant_id text)`, want: []string{"REPLICA IDENTITY FULL"}},
		"no table":         {sql: `SELECT 1`, want: []string{"no such table", "source.table"}},
		"no column":        {sql: `CREATE TABLE subscribers_restaurants (id serial PRIMARY KEY, client text, restaurant_id text)`, want: []string{"no column client_id", "ALTER TABLE"}},
		"generated":        {sql: `CREATE TABLE subscribers_restaurants (id serial PRIMARY KEY, of int, client_id text GENERATED ALWAYS AS ('c' || chr(of)) STORED, restaurant_id text)`, want: []string{"the log does not have client_id", "DROP EXPRESSION"}},
		"a type":           {sql: `CREATE TABLE subscribers_restaurants (id serial PRIMARY KEY, client_id bytea, restaurant_id text)`, want: []string{"client_id", "bytea", "TYPE text"}},
		"a view":           {sql: `CREATE VIEW subscribers_restaurants AS SELECT 1 AS id, '' AS client_id, '' AS restaurant_id`, want: []string{"not a table"}},
		"unlogged":         {sql: strings.Replace(table, "TABLE", "UNLOGGED TABLE", 1), want: []string{"unlogged", `ALTER TABLE "public"."subscribers_restaurants" SET LOGGED`}},
		"unlogged part":    {sql: partitioned + `; CREATE UNLOGGED TABLE p1 PARTITION OF subscribers_restaurants FOR VALUES IN ('r1')`, want: []string{"unlogged", `ALTER TABLE "public"."p1" SET LOGGED`}},
		"a part's key":     {sql: partitioned + `; CREATE TABLE p1 PARTITION OF subscribers_restaurants (PRIMARY KEY (id)) FOR VALUES IN ('r1')`, want: []string{"partition public.p1 has another replica identity", `ALTER TABLE "public"."p1" REPLICA IDENTITY FULL`}},
		"never":            {sql: table, change: func(c *Config) { c.Setup = SetupNever }, want: []string{"publication", "source.setup is never", "slotsetup apply"}},
		"never, slot":      {sql: table + `; CREATE PUBLICATION tiffin FOR TABLE subscribers_restaurants`, change: func(c *Config) { c.Setup = SetupNever }, want: []string{"replication slot", "slotsetup apply"}},
		"a row filter":     {sql: table + `; CREATE PUBLICATION tiffin FOR TABLE subscribers_restaurants WHERE (id > 5) WITH (publish = 'insert, truncate'); ALTER PUBLICATION tiffin SET (publish = 'insert, update, delete, truncate')`, want: []string{"only rows where", "DROP TABLE"}},
		"a list and FULL":  {sql: table + `; CREATE PUBLICATION tiffin FOR TABLE subscribers_restaurants (id, restaurant_id, client_id); ALTER TABLE subscribers_restaurants REPLICA IDENTITY FULL`, want: []string{"refuses the application every UPDATE and DELETE", "DROP TABLE"}},
		"a list and a key": {sql: table + `; CREATE PUBLICATION tiffin FOR TABLE subscribers_restaurants (id, restaurant_id, client_id); ALTER TABLE subscribers_restaurants ADD kind int NOT NULL; CREATE UNIQUE INDEX wide ON subscribers_restaurants (restaurant_id, client_id, kind); ALTER TABLE subscribers_restaurants REPLICA IDENTITY USING INDEX wide`, want: []string{"column kind", "refuses the application every UPDATE and DELETE", "DROP TABLE"}},
		"a column list":    {sql: table + `; CREATE PUBLICATION tiffin FOR TABLE subscribers_restaurants (id, restaurant_id)`, want: []string{"column client_id", "DROP TABLE"}},
		"no database":      {sql: table, change: func(c *Config) { c.DSN = strings.Replace(c.DSN, "/t_", "/none_", 1) }, want: []string{"does not exist", "source.dsn"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db := servers.Database(t)
			listed := name == "a row filter" || name == "a column list" || strings.HasPrefix(name, "a list")
			if listed && columnList(t, db, "") == "" {
				t.Skip("this server publishes whole tables only")
			}
			db.Exec(t, c.sql)
			g := start(t, db, func(cfg *Config) {
				if c.change != nil {
					c.change(cfg)
				}
			})
			refuses(t, g, c.want...)
			if strings.Contains(c.sql, "CREATE PUBLICATION") {
				return
			}
			if n := g.one(t, `SELECT count(*)::text FROM pg_publication`); n != "0" {
				t.Error("a publication was made all the same")
			}
		})
	}
}

func refuses(t *testing.T, g *rig, want ...string) {
	t.Helper()
	err := g.ends(t)
	if !permanent(err) {
		t.Fatalf("Run: %v, want a permanent error", err)
	}
	for _, w := range want {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("%q does not say %q", err, w)
		}
	}
	if len(g.r.Reasons()) == 0 {
		t.Error("no reasons")
	}
}

// A role that lacks a right is told which, and with all of them needs no more.
func TestRightsAreNamedAndEnough(t *testing.T) {
	t.Parallel()
	db := servers.Database(t)
	contract(t, db, "DEFAULT")
	role := db.Slot
	db.Exec(t, `CREATE ROLE `+role+` LOGIN`)
	t.Cleanup(func() { dropRole(t, db, role) })
	as := func(c *Config) { c.DSN = db.Server.DSNFor(role, "", db.Name) }
	refuses(t, start(t, db, as), `ALTER ROLE "`+role+`" REPLICATION`)
	db.Exec(t, `ALTER ROLE `+role+` REPLICATION`)
	refuses(t, start(t, db, as), "no right to read", `GRANT SELECT ("id", "restaurant_id", "client_id", "ctid") ON "public"."subscribers_restaurants" TO "`+role+`"`)
	db.Exec(t, `GRANT SELECT (id, restaurant_id) ON subscribers_restaurants TO `+role)
	refuses(t, start(t, db, as), "no right to read")
	db.Exec(t, `GRANT SELECT (client_id) ON subscribers_restaurants TO `+role)
	refuses(t, start(t, db, as), "CREATE PUBLICATION", "slotsetup apply")
	db.Exec(t, `CREATE PUBLICATION tiffin FOR TABLE subscribers_restaurants`)
	g := start(t, db, as)
	g.exec(t, `INSERT INTO subscribers_restaurants (restaurant_id, client_id) VALUES ('r1','c')`)
	g.agree(t)
	g.quit()
}

// What everybody may by default can have been taken away.
func TestRightThatEverybodyHasIsNamed(t *testing.T) {
	t.Parallel()
	db := servers.Database(t)
	contract(t, db, "DEFAULT")
	role := db.Slot
	db.Exec(t, `CREATE ROLE `+role+` LOGIN REPLICATION`, `GRANT SELECT ON subscribers_restaurants TO `+role, `CREATE PUBLICATION tiffin FOR TABLE subscribers_restaurants`,
		`DO $$ DECLARE f regprocedure; BEGIN FOR f IN SELECT oid FROM pg_proc WHERE proname = 'pg_logical_emit_message' LOOP EXECUTE format('REVOKE EXECUTE ON FUNCTION %s FROM PUBLIC', f); END LOOP; END $$`)
	t.Cleanup(func() { dropRole(t, db, role) })
	as := func(c *Config) { c.DSN = db.Server.DSNFor(role, "", db.Name) }
	g := start(t, db, as)
	_, fix, _ := strings.Cut(g.ends(t).Error(), "as a superuser: ")
	if !strings.HasPrefix(fix, "GRANT EXECUTE ON FUNCTION") {
		t.Fatalf("told to do %q", fix)
	}
	db.Exec(t, fix)
	g = start(t, db, as)
	g.agree(t)
	g.quit()
}

func dropRole(t *testing.T, db *devstacktest.Database, role string) {
	ctx := context.WithoutCancel(t.Context())
	conn, err := pgx.Connect(ctx, db.DSN)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(ctx) }()
	if _, err := conn.PgConn().Exec(ctx, `DROP OWNED BY `+role+`; DROP ROLE `+role).ReadAll(); err != nil {
		t.Error(err)
	}
}

// A slot of another kind is not touched.
func TestForeignSlotIsRefused(t *testing.T) {
	t.Parallel()
	db := servers.Database(t)
	contract(t, db, "DEFAULT")
	db.Exec(t, `SELECT pg_create_logical_replication_slot('`+db.Slot+`', 'test_decoding')`)
	refuses(t, start(t, db), "test_decoding", "source.slot")
	db.Exec(t, `SELECT pg_drop_replication_slot('`+db.Slot+`')`, `SELECT pg_create_logical_replication_slot('`+db.Slot+`', 'pgoutput', false, true)`)
	refuses(t, start(t, db), "two_phase", "pg_drop_replication_slot")
}

// A wrong password, an untrusted certificate and TLS on one side only are final; a server that
// is not there is not.
func TestConnectionFaults(t *testing.T) {
	t.Parallel()
	server, err := devstack.StartPostgres(t.Context(), devstack.PostgresOptions{Auth: devstack.AuthSCRAM, TLS: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Close() })
	idle := func(dsn string) *rig {
		cfg := Config{DSN: dsn, Table: "public.t", Publication: "p", Slot: "s"}
		g := &rig{ran: make(chan struct{})}
		if g.src, err = NewSource(cfg); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(g.src.Close)
		if g.r, err = New(cfg, g.src, nil); err != nil {
			t.Fatal(err)
		}
		return g.run(t)
	}
	refuses(t, idle(server.DSNFor(server.Username(), "wrong", "postgres")), "password", "source.dsn")
	dsn, err := url.Parse(server.DSN("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	dsn.RawQuery = "sslmode=verify-full" // the system's authorities do not know this one
	refuses(t, idle(dsn.String()), "certificate", "sslrootcert")
	dsn.RawQuery = "sslmode=disable"
	refuses(t, idle(dsn.String()), "only over TLS", "sslmode=verify-full in source.dsn")
	plain := servers.Postgres(t).DSN("postgres")
	refuses(t, idle(strings.Replace(plain, "sslmode=disable", "sslmode=require", 1)), "refused TLS", "ssl = on", "sslmode=disable")
	if err := server.Stop(t.Context(), devstack.StopFast); err != nil {
		t.Fatal(err)
	}
	g := idle(server.DSN("postgres"))
	g.saysWhy(t, "refused")
	select {
	case <-g.ran:
		t.Errorf("Run gave up: %v", g.err)
	default:
	}
}

// A slot active elsewhere: the holder is named, the reader waits, and goes on when it is free.
func TestHeldSlotNamesTheHolder(t *testing.T) {
	t.Parallel()
	db := servers.Database(t)
	contract(t, db, "DEFAULT")
	first := start(t, db)
	first.agree(t)
	second := start(t, db)
	reasons := second.saysWhy(t, "active elsewhere")
	if !strings.Contains(reasons, `application "tiffin/`+db.Slot+`"`) || !strings.Contains(reasons, "pid ") {
		t.Errorf("holder not named: %s", reasons)
	}
	impatient := start(t, db, func(c *Config) { c.HoldLimit = time.Millisecond })
	refuses(t, impatient, "active elsewhere")
	first.exec(t, `INSERT INTO subscribers_restaurants (restaurant_id, client_id) VALUES ('r1','c')`)
	first.agree(t)
	first.quit()
	second.agree(t)
}
