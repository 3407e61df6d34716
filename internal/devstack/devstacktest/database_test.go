package devstacktest

import (
	"os"
	"testing"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

var servers Servers

func TestMain(m *testing.M) { os.Exit(servers.Main(m)) }

// A test's database and slots are gone after it, even a slot that a connection still reads.
func TestDatabaseIsGoneAfterItsTest(t *testing.T) {
	t.Parallel()
	var name string
	outer := t
	t.Run("inner", func(t *testing.T) {
		d := servers.Database(t)
		name = d.Name
		d.Exec(t, "CREATE TABLE t (id int)", "CREATE PUBLICATION p FOR TABLE t",
			"SELECT pg_create_logical_replication_slot('"+d.Slot+"', 'pgoutput')")
		stream(t, outer, d)
	})
	conn, err := pgx.Connect(t.Context(), servers.Postgres(t).DSN("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(detached(t)) }()
	var left int
	const count = `SELECT (SELECT count(*) FROM pg_database WHERE datname = $1) + (SELECT count(*) FROM pg_replication_slots WHERE database = $1)`
	if err := conn.QueryRow(t.Context(), count, name).Scan(&left); err != nil {
		t.Fatal(err)
	}
	if left != 0 {
		t.Fatalf("%d of database and slot left, want none", left)
	}
}

// stream reads the slot on a connection that nobody closes before the database is dropped.
func stream(t, outer *testing.T, d *Database) {
	t.Helper()
	conn, err := pgconn.Connect(t.Context(), d.DSN+"&replication=database")
	if err != nil {
		t.Fatal(err)
	}
	outer.Cleanup(func() { _ = conn.Close(detached(outer)) })
	options := pglogrepl.StartReplicationOptions{PluginArgs: []string{"proto_version '1'", "publication_names 'p'"}}
	if err := pglogrepl.StartReplication(t.Context(), conn, d.Slot, 0, options); err != nil {
		t.Fatal(err)
	}
}
