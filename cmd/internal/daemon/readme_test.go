package daemon

import (
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"example.com/tiffin/internal/manual"
	"example.com/tiffin/migrations"
)

// TestReadmeGrantsAreEnough runs the README's statements and then the daemon with the roles
// that they make: it needs no right that the README does not name.
func TestReadmeGrantsAreEnough(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	reader, writer := servers.Unique(t, "reader"), servers.Unique(t, "writer")
	names := strings.NewReplacer("tiffin_reader", reader, "tiffin_writer", writer, "DATABASE app", "DATABASE "+w.db.Name, "DATABASE feedback", "DATABASE "+w.db.Name)
	for _, info := range []string{"source", "feedback"} {
		w.db.Exec(t, names.Replace(manual.Named(t, "README.md", "sql "+info)))
	}
	w.db.Exec(t, "REVOKE CREATE ON SCHEMA public FROM PUBLIC", migrationScript(t, writer))
	defer w.db.Exec(t, fmt.Sprintf("DROP OWNED BY %[1]s, %[2]s; DROP ROLE %[1]s, %[2]s", reader, writer))

	server := w.db.Server
	r := start(t, append(w.environ, "TIFFIN_SOURCE_DSN="+server.DSNFor(reader, "choose one", w.db.Name),
		"TIFFIN_FEEDBACK_DSN="+server.DSNFor(writer, "choose another", w.db.Name)), nil)
	r.waitReady(t)
	w.publish(t, "r1")
	if got := w.clients(t, 2); fmt.Sprint(got) != "map[ann:1 bob:1]" {
		t.Errorf("delivered to %v", got)
	}
	r.stop()
	if err := r.end(t); err != nil {
		t.Error(err)
	}
}

// migrationScript is what tiffin migrate --print shows for a role.
func migrationScript(t *testing.T, role string) string {
	t.Helper()
	script, err := migrations.SQL(migrations.Options{FeedbackTable: pgx.Identifier{"public", "subscribers_feedback"}, Role: role})
	if err != nil {
		t.Fatal(err)
	}
	return script
}
