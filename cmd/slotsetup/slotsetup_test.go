package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"example.com/tiffin/cmd/internal/command"
	"example.com/tiffin/cmd/internal/command/commandtest"
	"example.com/tiffin/internal/devstack/devstacktest"
)

var servers devstacktest.Servers

func TestMain(m *testing.M) { os.Exit(servers.Main(m)) }

func execute(t *testing.T, args ...string) (status int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	status = command.Run(t.Context(), newRootCommand(), args, command.Streams{In: strings.NewReader(""), Out: &out, Err: &errs})
	return status, out.String(), errs.String()
}

// From a bare table to a prepared source and back, with the statuses that scripts rely on.
func TestPlanApplyStatusDrop(t *testing.T) {
	t.Parallel()
	db := servers.Database(t)
	db.Exec(t, `CREATE TABLE subscribers_restaurants (id serial PRIMARY KEY, client_id varchar NOT NULL, restaurant_id varchar NOT NULL)`)
	file := filepath.Join(t.TempDir(), "tiffin.yaml")
	if err := os.WriteFile(file, []byte("source:\n  dsn: "+db.DSN+"\n  slot: "+db.Slot+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		args   []string
		status int
		says   string
	}{
		{[]string{"status", "-c", file}, 1, "does not exist"},
		{[]string{"plan", "-c", file}, 0, "CREATE PUBLICATION"},
		{[]string{"apply", "-c", file}, 0, "pg_create_logical_replication_slot"},
		{[]string{"apply", "-c", file}, 0, "0 statements run"},
		{[]string{"plan", "-c", file}, 0, "nothing is missing"},
		{[]string{"status", "-c", file}, 0, "complete"},
		{[]string{"drop", "-c", file}, 2, "--yes"},
		{[]string{"drop", "-c", file, "--yes"}, 0, "DROP PUBLICATION"},
		{[]string{"drop", "-c", file, "--yes"}, 0, "nothing to drop"},
		{[]string{"status", "-c", file}, 1, "does not exist"},
	} {
		status, out, errs := execute(t, step.args...)
		if status != step.status || !strings.Contains(out+errs, step.says) {
			t.Errorf("slotsetup %v: exit %d, want %d and %q\n%s%s", step.args, status, step.status, step.says, out, errs)
		}
	}
}

// A fault of usage or settings is 2, and every command shows an example.
func TestUsage(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{{}, {"unknown"}, {"apply", "extra"}, {"plan", "--no"}, {"plan", "-c", "/does/not/exist"}} {
		if status, _, errs := execute(t, args...); status != command.ExitUsage || errs == "" {
			t.Errorf("slotsetup %v: exit %d, %q", args, status, errs)
		}
	}
	for _, name := range []string{"plan", "apply", "status", "drop"} {
		if status, out, _ := execute(t, name, "--help"); status != 0 || !strings.Contains(out, "slotsetup "+name+" -c") {
			t.Errorf("slotsetup %s --help: exit %d\n%s", name, status, out)
		}
	}
}

func TestNoFlagTakesASecret(t *testing.T) {
	t.Parallel()
	if found := commandtest.SecretFlags(newRootCommand()); len(found) > 0 {
		t.Errorf("%q would show a secret to everyone who lists processes", found)
	}
}
