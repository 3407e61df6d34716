package cdc

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
)

var capture = flag.Bool("capture", false, "write testdata/capture anew, from the installed PostgreSQL")

// captureTable has every shape: a type of its own (a Type message), TOAST, and identities.
var captureTable = []string{
	`CREATE DOMAIN naming AS varchar`,
	`CREATE TYPE mood AS ENUM ('sad', 'ok')`,
	`CREATE TABLE subscribers_restaurants (id serial PRIMARY KEY, client_id varchar NOT NULL, restaurant_id naming NOT NULL, m mood, note text)`,
	`ALTER TABLE subscribers_restaurants ALTER COLUMN note SET STORAGE EXTERNAL`,
	`CREATE UNIQUE INDEX pair ON subscribers_restaurants (restaurant_id, client_id)`,
	`CREATE TABLE other (id serial PRIMARY KEY)`,
}

var captureChanges = []string{
	`INSERT INTO subscribers_restaurants (client_id, restaurant_id, m, note) VALUES ('a', 'r', 'ok', repeat('x', 2500)), ('b', 'r', NULL, NULL), ('', 'ß', 'sad', '')`,
	`UPDATE subscribers_restaurants SET m = 'sad' WHERE client_id = 'a'`,
	`UPDATE subscribers_restaurants SET client_id = 'c' WHERE client_id = 'a'`,
	`UPDATE subscribers_restaurants SET id = 77 WHERE client_id = 'b'`,
	`DELETE FROM subscribers_restaurants WHERE client_id = 'c'`,
	`BEGIN; INSERT INTO subscribers_restaurants (client_id, restaurant_id) VALUES ('s', 's'); SAVEPOINT s;
		INSERT INTO subscribers_restaurants (client_id, restaurant_id) VALUES ('t', 't'); ROLLBACK TO s; COMMIT`,
	`TRUNCATE subscribers_restaurants, other RESTART IDENTITY CASCADE`,
}

// captureScenarios are the files: identity, what is done, and the plugin's options.
var captureScenarios = map[string]struct {
	identity string
	changes  []string
	options  []any
}{
	"default": {
		"DEFAULT", append(slices.Clip(captureChanges),
			`SELECT pg_logical_emit_message(true, 'tiffin.fence', 'x')`,
			`SELECT pg_replication_origin_create('elsewhere')`,
			`SELECT pg_replication_origin_session_setup('elsewhere')`,
			`INSERT INTO subscribers_restaurants (client_id, restaurant_id) VALUES ('o', 'o')`,
			`SELECT pg_replication_origin_session_reset()`, `SELECT pg_replication_origin_drop('elsewhere')`),
		[]any{"proto_version", "1", "messages", "true"},
	},
	"index":   {"USING INDEX pair", captureChanges, []any{"proto_version", "1"}},
	"full":    {"FULL", captureChanges, []any{"proto_version", "1"}},
	"nothing": {"NOTHING", captureChanges[:1], []any{"proto_version", "1"}},
	// What comes of a large transaction, and of one that aborts, if streaming is asked for.
	"stream": {"FULL", []string{
		`SET logical_decoding_work_mem = '64kB'`,
		`INSERT INTO subscribers_restaurants (client_id, restaurant_id) SELECT i, repeat('x', 40) FROM generate_series(1, 700) i`,
		`BEGIN; SAVEPOINT s; INSERT INTO subscribers_restaurants (client_id, restaurant_id) SELECT i, repeat('y', 40) FROM generate_series(1, 700) i; ROLLBACK TO s;
			INSERT INTO subscribers_restaurants (client_id, restaurant_id) SELECT i, repeat('z', 40) FROM generate_series(1, 700) i; COMMIT`,
	}, []any{"proto_version", "2", "streaming", "on"}},
}

// TestCapture writes the seeds of the fuzzing tests:
//
//	go test ./cdc -run '^TestCapture$' -capture
//
// Without the flag it makes sure that this server sends messages of the same kinds. Before
// PostgreSQL 15 a transaction without changes of ours is sent as well, as nothing.
func TestCapture(t *testing.T) {
	t.Parallel()
	committed := captures(t)
	for name, scenario := range captureScenarios {
		db := servers.Database(t)
		conn := db.Connect(t)
		db.Exec(t, captureTable...)
		db.Exec(t, "ALTER TABLE subscribers_restaurants REPLICA IDENTITY "+scenario.identity, "CREATE PUBLICATION tiffin FOR TABLE subscribers_restaurants, other")
		if _, err := conn.Exec(t.Context(), "SELECT pg_create_logical_replication_slot($1, 'pgoutput')", db.Slot); err != nil {
			t.Fatal(err)
		}
		for _, sql := range scenario.changes {
			if _, err := conn.PgConn().Exec(t.Context(), sql).ReadAll(); err != nil {
				t.Fatalf("%s: %v", sql, err)
			}
		}
		rows, err := conn.Query(t.Context(), `SELECT data FROM pg_logical_slot_get_binary_changes($1, NULL, NULL, VARIADIC $2::text[])`,
			db.Slot, append(slices.Clip(scenario.options), "publication_names", "tiffin"))
		if err != nil {
			t.Fatal(err)
		}
		msgs, err := pgx.CollectRows(rows, pgx.RowTo[[]byte])
		if err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Exec(t.Context(), "SELECT pg_drop_replication_slot($1)", db.Slot); err != nil {
			t.Fatal(err)
		}
		if name == "stream" {
			msgs = thinned(msgs)
		}
		if *capture {
			writeCapture(t, name, msgs)
		} else if got, want := kinds(msgs), kinds(committed[name]); got != want {
			t.Errorf("%s: this server sends\n %s, the capture has\n %s", name, got, want)
		}
	}
}

// thinned leaves out most of the changes of a large transaction.
func thinned(msgs [][]byte) (few [][]byte) {
	changes := 0
	for _, msg := range msgs {
		if msg[0] == 'I' {
			if changes++; changes > 3 {
				continue
			}
		} else {
			changes = 0
		}
		few = append(few, msg)
	}
	return few
}

// repeated are blocks of a large transaction that go on with changes alone. How many there are others decide, too:
// what changes of catalogs by them invalidate is distributed to every transaction, and takes room in its buffer.
var repeated = regexp.MustCompile(`(SIIIE)+`)

func kinds(msgs [][]byte) string {
	var all strings.Builder
	for _, msg := range msgs {
		all.WriteByte(msg[0])
	}
	return repeated.ReplaceAllString(strings.ReplaceAll(all.String(), "BC", ""), "$1")
}

func writeCapture(t *testing.T, name string, msgs [][]byte) {
	t.Helper()
	file := filepath.Join("testdata", "capture", name+".wal")
	if err := os.WriteFile(file, bytes.Clone(framed(msgs...)), 0o600); err != nil {
		t.Fatal(err)
	}
}
