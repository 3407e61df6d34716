package migrations

import (
	"context"
	"os"
	"testing"

	"github.com/jackc/pgx/v5"

	"example.com/tiffin/internal/devstack/devstacktest"
)

// servers is shared by the tests of the package, as TestMain demands.
var servers devstacktest.Servers

func TestMain(m *testing.M) { os.Exit(servers.Main(m)) }

func options() Options {
	return Options{FeedbackTable: pgx.Identifier{"public", "subscribers_feedback"}}
}

// as connects as a role of its own that may log in and do nothing else.
func as(t *testing.T, db *devstacktest.Database) (role string, conn *pgx.Conn) {
	t.Helper()
	role = servers.Unique(t, "r")
	db.Exec(t, "CREATE ROLE "+role+" LOGIN PASSWORD 'secret'")
	conn, err := pgx.Connect(t.Context(), db.Server.DSNFor(role, "secret", db.Name))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.WithoutCancel(t.Context())) })
	return role, conn
}
