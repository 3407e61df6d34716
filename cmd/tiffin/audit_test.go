package main

import (
	"encoding/json"
	"strings"
	"testing"
)

// Not parallel: commands read the environment of the process.
func TestAuditSaysThatIndexAndTableAreEqual(t *testing.T) {
	clearEnvironment(t)
	db := servers.Database(t)
	db.Exec(t, `CREATE TABLE subscribers_restaurants (id serial PRIMARY KEY, client_id varchar NOT NULL, restaurant_id varchar NOT NULL)`,
		`INSERT INTO subscribers_restaurants (client_id, restaurant_id) SELECT i, i % 7 FROM generate_series(1, 100) i`)
	t.Setenv("TIFFIN_SOURCE_DSN", db.DSN)
	t.Setenv("TIFFIN_SOURCE_SLOT", db.Slot)
	code, stdout, stderr := execute(t, "audit")
	if code != exitOK || !strings.Contains(stdout, "7 restaurants, 100 rows, 0 differences") {
		t.Errorf("%d %q %q", code, stdout, stderr)
	}
	_, stdout, _ = execute(t, "audit", "--json")
	var summary struct {
		OK   bool
		Rows int
	}
	if err := json.Unmarshal([]byte(stdout), &summary); err != nil || !summary.OK || summary.Rows != 100 {
		t.Errorf("%q: %v", stdout, err)
	}
	t.Setenv("TIFFIN_SOURCE_DSN", "postgres://u:hunter2@127.0.0.1:1/d")
	if code, _, stderr := execute(t, "audit"); code != exitFault || strings.Contains(stderr, "hunter2") {
		t.Errorf("without a server: %d %q", code, stderr)
	}
}
