package acceptance

import (
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.yaml.in/yaml/v3"

	"example.com/tiffin/internal/devstack"
	"example.com/tiffin/internal/manual"
)

// The roles, passwords and databases that compose names to the daemon are those that the script of its
// Postgres makes, with every right that the daemon needs and no other. The brokers are in memory.
func TestComposeDatabasesGrantWhatTheDaemonNeeds(t *testing.T) {
	t.Parallel()
	needTools(t, "psql")
	c := readCompose(t)
	server := c.postgres(t)
	broker, err := devstack.StartFakeBroker(t.Context(), devstack.FakeBrokerOptions{
		Topics: map[string]int32{"campaigns": 6, "deliveries": 12, "campaigns.dlq": 1},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(broker.Close)
	c.deliver(t, server, broker.Brokers()[0])

	for question, want := range map[string]string{
		"SELECT count(*) || ' rows of ' || count(DISTINCT client_id) FROM subscribers_feedback": "100 rows of 100",
		"SELECT string_agg(outcome || ' to ' || recipients, ', ') FROM tiffin.trigger":          "delivered to 100",
		"SELECT tableowner FROM pg_tables WHERE tablename = 'subscribers_feedback'":             "tiffin_writer",
	} {
		wantAnswer(t, server.DSN("feedback"), question, want)
	}
	for question, want := range map[string]string{
		"SELECT string_agg(slot_name || ' ' || plugin, ', ') FROM pg_replication_slots": "tiffin pgoutput",
		// Without it one connection does the whole load.
		"SELECT has_column_privilege('tiffin_reader', 'subscribers_restaurants', 'ctid', 'SELECT')::text": "true",
		"SELECT string_agg(DISTINCT grantee || ' ' || privilege_type, ', ') FROM information_schema.column_privileges " +
			"WHERE table_name = 'subscribers_restaurants' AND grantee <> 'postgres'": "tiffin_reader SELECT",
		"SELECT string_agg(grantee || ' ' || privilege_type, ', ') FROM information_schema.table_privileges " +
			"WHERE table_name = 'subscribers_restaurants' AND grantee <> 'postgres'": "",
		"SELECT string_agg(rolname, ', ') FROM pg_roles WHERE rolname LIKE 'tiffin%' AND rolreplication":                                             "tiffin_reader",
		"SELECT string_agg(rolname, ', ') FROM pg_roles WHERE rolname LIKE 'tiffin%' AND (rolsuper OR rolcreaterole OR rolcreatedb OR rolbypassrls)": "",
	} {
		wantAnswer(t, server.DSN("app"), question, want)
	}
}

// deliver has the daemon, as compose runs it, handle a campaign for 100 clients.
func (c compose) deliver(t *testing.T, server *devstack.Postgres, broker string) {
	t.Helper()
	w := &world{t: t, env: []string{"TIFFIN_HTTP_LISTEN=off", "TIFFIN_KAFKA_START=earliest"}}
	here := strings.NewReplacer("@postgres:5432/", "@"+server.Address()+"/", "kafka:9092", broker)
	for name, value := range c.Services.Tiffin.Environment {
		w.env = append(w.env, name+"="+here.Replace(value))
	}
	var err error
	if w.cl, err = kgo.NewClient(kgo.SeedBrokers(broker), kgo.DefaultProduceTopic("campaigns")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.cl.Close)
	w.publish(message("123e4567-e89b-12d3-a456-426614174000", "c", "x", 0, 1<<40, nil))
	w.untilNow()
}

// compose is what the tests need of compose.yaml.
type compose struct {
	Services struct {
		Postgres struct{ Command, Volumes []string }
		Kafka    struct {
			Environment map[string]string
			Volumes     []string
		}
		Topics struct{ Entrypoint, Command []string }
		Tiffin struct{ Environment map[string]string }
	}
}

func readCompose(t *testing.T) (c compose) {
	t.Helper()
	if err := yaml.Unmarshal([]byte(manual.Text(t, "deploy/compose/compose.yaml")), &c); err != nil {
		t.Fatal(err)
	}
	return c
}

// postgres is a server with the settings of compose's, on which its scripts were run as the image's
// entry point does. It asks for passwords.
func (c compose) postgres(t *testing.T) *devstack.Postgres {
	t.Helper()
	options := devstack.PostgresOptions{Auth: devstack.AuthSCRAM, Settings: map[string]string{}}
	for _, argument := range c.Services.Postgres.Command {
		if name, value, ok := strings.Cut(argument, "="); ok {
			options.Settings[name] = value
		}
	}
	server, err := devstack.StartPostgres(t.Context(), options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Close(); err != nil {
			t.Error(err)
		}
	})
	host, port, err := net.SplitHostPort(server.Address())
	if err != nil {
		t.Fatal(err)
	}
	scripts := 0
	for _, volume := range c.Services.Postgres.Volumes {
		script, _, ok := strings.Cut(volume, ":/docker-entrypoint-initdb.d/")
		if !ok {
			continue
		}
		scripts++
		psql := exec.CommandContext(t.Context(), "psql", "-v", "ON_ERROR_STOP=1", "--no-password", "--no-psqlrc",
			"--username", server.Username(), "--dbname", "postgres", "-f", filepath.Join(manual.Root(t), "deploy", "compose", script))
		psql.Env = []string{"PATH=" + os.Getenv("PATH"), "PGHOST=" + host, "PGPORT=" + port, "PGPASSWORD=" + server.Password()}
		if out, err := psql.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", script, err, out)
		}
	}
	if scripts == 0 {
		t.Fatalf("no script among %q", c.Services.Postgres.Volumes)
	}
	return server
}

// wantAnswer asks as the superuser; no row and null are the empty text.
func wantAnswer(t *testing.T, dsn, question, want string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(t.Context())) }()
	var answer string
	if err := conn.QueryRow(t.Context(), "SELECT coalesce(("+question+"), '')").Scan(&answer); err != nil || answer != want {
		t.Errorf("%s: %q, %v; want %q", question, answer, err, want)
	}
}
