package testbed

import (
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"example.com/tiffin/internal/devstack"
)

// Given servers are asked what they are, and what is reported of them is nobody's assumption; a role
// that may create databases, and no more, is enough for a contender's stage.
func TestGivenServersAreAsked(t *testing.T) {
	t.Parallel()
	postgres := servers.Postgres(t) // without fsync
	conn, err := pgx.Connect(t.Context(), postgres.DSN("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(t.Context()) }()
	if _, err := conn.Exec(t.Context(), "CREATE ROLE bench_guest LOGIN CREATEDB REPLICATION"); err != nil {
		t.Fatal(err)
	}
	broker, err := devstack.StartFakeBroker(t.Context(), devstack.FakeBrokerOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer broker.Close()
	dsn := postgres.DSNFor("bench_guest", "", "postgres")
	s, err := Start(t.Context(), "", Given{Brokers: broker.Brokers(), Source: dsn, Feedback: dsn})
	if err != nil {
		t.Fatal(err)
	}
	stage, err := s.NewStage(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stage.NewLane(t.Context()); err != nil {
		t.Error(err)
	}
	if err := stage.Checkpoint(t.Context()); err != nil {
		t.Error(err)
	}
	if err := stage.Close(t.Context()); err != nil {
		t.Error(err)
	}
	f := s.Ask(t.Context())
	told := strings.Join(f.Settings, "\n")
	for _, want := range []string{"source database: given, ", "feedback database: given, ", "fsync off", "Kafka: given, brokers "} {
		if !strings.Contains(told, want) {
			t.Errorf("the servers' settings lack %q:\n%s", want, told)
		}
	}
	if f.Postgres == "" || slices.Contains(f.Settings, "") || strings.Contains(told, "heap") {
		t.Errorf("facts: %+v", f)
	}
}
