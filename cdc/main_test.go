package cdc

import (
	"os"
	"testing"

	"example.com/tiffin/internal/devstack"
	"example.com/tiffin/internal/devstack/devstacktest"
)

var servers devstacktest.Servers

func TestMain(m *testing.M) { os.Exit(servers.Main(m)) }

// onEach runs a guarantee on the installed PostgreSQL and on the newest.
func onEach(t *testing.T, guarantee func(*testing.T, *devstack.Postgres)) {
	t.Run("installed", func(t *testing.T) {
		t.Parallel()
		guarantee(t, servers.Postgres(t))
	})
	t.Run("newest", func(t *testing.T) {
		t.Parallel()
		guarantee(t, servers.NewestPostgres(t))
	})
}

func databaseOn(t *testing.T, server *devstack.Postgres) *devstacktest.Database {
	t.Helper()
	return devstacktest.NewDatabase(t, server, servers.Unique(t, "t"))
}

// own is a server for a test that stops or configures it.
func own(t *testing.T, options devstack.PostgresOptions) *devstack.Postgres {
	t.Helper()
	server, err := devstack.StartPostgres(t.Context(), options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Close(); err != nil {
			t.Error(err)
		}
	})
	return server
}

// quiet is a database on a server of the test's own, whose log nobody else lengthens.
func quiet(t *testing.T, settings map[string]string) *devstacktest.Database {
	t.Helper()
	return devstacktest.NewDatabase(t, own(t, devstack.PostgresOptions{Settings: settings}), "alone")
}
