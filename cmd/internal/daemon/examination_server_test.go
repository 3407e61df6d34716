package daemon

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"example.com/tiffin/internal/checkup"
	"example.com/tiffin/internal/devstack"
)

func startPostgres(t *testing.T, options devstack.PostgresOptions) *devstack.Postgres {
	t.Helper()
	server, err := devstack.StartPostgres(t.Context(), options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Close() })
	return server
}

// pretends has the server tell a role that it is of another version: no server is to be had that is
// too old.
func pretends(role, version string) func(*testing.T, *patient) {
	return sql("CREATE SCHEMA pretended", "GRANT USAGE ON SCHEMA pretended TO "+role,
		`CREATE FUNCTION pretended.current_setting(text) RETURNS text LANGUAGE sql AS
			$f$ SELECT CASE $1 WHEN 'server_version_num' THEN '`+version+`' ELSE pg_catalog.current_setting($1) END $f$`,
		"ALTER ROLE "+role+" SET search_path = pretended, pg_catalog, public")
}

// published has the table in the publication in part.
func published(part string) func(*testing.T, *patient) {
	return func(t *testing.T, p *patient) {
		t.Helper()
		var version int
		if err := p.db.Connect(t).QueryRow(t.Context(), "SELECT current_setting('server_version_num')::int").Scan(&version); err != nil {
			t.Fatal(err)
		}
		if version < 150000 {
			t.Skip("needs PostgreSQL 15: older ones publish tables whole")
		}
		sql("DROP PUBLICATION tiffin", "CREATE PUBLICATION tiffin FOR TABLE subscribers_restaurants "+part)(t, p)
	}
}

// slotHeldBy has the slot in use; application is the name of whoever reads from it.
func slotHeldBy(application string) func(*testing.T, *patient) {
	return func(t *testing.T, p *patient) {
		t.Helper()
		sql("SELECT pg_create_logical_replication_slot('$SLOT', 'pgoutput')")(t, p)
		config, err := pgconn.ParseConfig(p.db.DSN)
		if err != nil {
			t.Fatal(err)
		}
		config.RuntimeParams["replication"], config.RuntimeParams["application_name"] = "database", application
		conn, err := pgconn.ConnectConfig(t.Context(), config)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close(t.Context()) })
		options := pglogrepl.StartReplicationOptions{PluginArgs: []string{"proto_version '1'", "publication_names 'tiffin'"}}
		if err := pglogrepl.StartReplication(t.Context(), conn, p.db.Slot, 0, options); err != nil {
			t.Fatal(err)
		}
	}
}

// walsender is one of another program, at rest.
func walsender(t *testing.T, p *patient) {
	t.Helper()
	config, err := pgconn.ParseConfig(p.db.DSN)
	if err != nil {
		t.Fatal(err)
	}
	config.RuntimeParams["replication"] = "database"
	conn, err := pgconn.ConnectConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.WithoutCancel(t.Context())) })
}

// A daemon that runs is no fault of what it holds.
func TestDoctorKnowsADaemonsSlot(t *testing.T) {
	t.Parallel()
	for name, length := range map[string]int{"short": 0, "as long as a slot's may be": 63} { // the server cuts the reader's name short
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newPatient(t, servers.Postgres(t))
			p.db.Slot = servers.Unique(t, "s")
			p.db.Slot += strings.Repeat("_", max(0, length-len(p.db.Slot)))
			p.set("TIFFIN_SOURCE_SLOT", p.db.Slot)
			_, healthy, _ := examine(t, p.environ)
			slotHeldBy("tiffin/"+p.db.Slot)(t, p)
			ailment{}.judge(t, p.environ, healthy)
		})
	}
}

// Clocks: this host's is moved while the doctor asks one of the servers for its own.
func TestDoctorNamesTheClockThatIsOff(t *testing.T) {
	t.Parallel()
	p := newPatient(t, servers.Postgres(t))
	_, healthy, _ := examine(t, p.environ)
	for _, a := range []ailment{{warn: "source.clock", text: "is -"}, {warn: "feedback.clock", text: "is -"}} {
		area, _, _ := strings.Cut(a.warn, ".")
		a.judgeBy(t, p.environ, healthy, func(told map[string]checkup.Line) time.Time {
			_, begun := told[area+".login"]
			_, over := told[area+".clock"]
			if begun && !over {
				return time.Now().Add(time.Hour)
			}
			return time.Now()
		})
	}
}

// A standby has the same roles, tables and publications, and cannot be followed or written to.
func TestDoctorNamesAStandby(t *testing.T) {
	t.Parallel()
	p := newPatient(t, startPostgres(t, devstack.PostgresOptions{}))
	standby, err := p.server.StartStandby(t.Context(), p.db.Name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = standby.Close() })
	fails, healthy, _ := examine(t, p.environ)
	if len(fails) > 0 {
		t.Fatalf("all is well, and these fail: %v", fails)
	}
	ailment{fail: "source.primary"}.judge(t, append(p.environ, "TIFFIN_SOURCE_DSN="+standby.DSNFor(p.reader, "", p.db.Name)), healthy)
	ailment{fail: "feedback.primary"}.judge(t, append(p.environ, "TIFFIN_FEEDBACK_DSN="+standby.DSNFor(p.writer, "", p.db.Name)), healthy)
	// With the primary beside it, and the way to tell them apart, all is well.
	both := strings.Replace(p.server.DSNFor(p.reader, "", p.db.Name), "@", "@"+standby.Address()+",", 1) + "&target_session_attrs=primary"
	ailment{}.judge(t, append(p.environ, "TIFFIN_SOURCE_DSN="+both), healthy)
}

// What a slot may hold back is the server's to say, and it ends a slot that holds back more.
func TestDoctorNamesABoundThatIsMissingAndASlotThatIsLost(t *testing.T) {
	t.Parallel()
	p := newPatient(t, startPostgres(t, devstack.PostgresOptions{Settings: map[string]string{"max_slot_wal_keep_size": "1MB", "min_wal_size": "32MB", "max_wal_size": "32MB"}}))
	fails, healthy, _ := examine(t, p.environ)
	if len(fails) > 0 {
		t.Fatalf("all is well, and these fail: %v", fails)
	}
	conn := p.db.Connect(t)
	sql("SELECT pg_create_logical_replication_slot('$SLOT', 'pgoutput')")(t, p)
	until(t, conn, "SELECT wal_status = 'lost' FROM pg_replication_slots WHERE slot_name = '"+p.db.Slot+"'", func() {
		p.db.Exec(t, "SELECT pg_logical_emit_message(false, 'filler', 'x')", "SELECT pg_switch_wal()", "CHECKPOINT")
	})
	ailment{warn: "source.slot"}.judge(t, p.environ, healthy)
	sql("SELECT pg_drop_replication_slot('$SLOT')", "ALTER SYSTEM SET max_slot_wal_keep_size = -1", "SELECT pg_reload_conf()")(t, p)
	until(t, conn, "SELECT current_setting('max_slot_wal_keep_size') = '-1'", func() {})
	ailment{warn: "source.max_slot_wal_keep_size"}.judge(t, p.environ, healthy)
}

// until asks, and does something, until the answer is yes.
func until(t *testing.T, conn *pgx.Conn, question string, do func()) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for yes := false; !yes; {
		do()
		if err := conn.QueryRow(t.Context(), question).Scan(&yes); err != nil {
			t.Fatal(err)
		}
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", question)
		}
	}
}
