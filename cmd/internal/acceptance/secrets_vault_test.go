package acceptance

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"example.com/tiffin/internal/devstack"
	"example.com/tiffin/internal/devstack/devstacktest"
)

// vault is a set of servers that ask for a password over TLS, each for one of its own, and the
// settings that open them all.
type vault struct {
	lookout
	source, feedback *devstack.Postgres
	sourceDB         *devstacktest.Database
	feedbackDB       *devstacktest.Database
	kafka            *devstack.Kafka
	foreign          string // an authority that signed none of their certificates
	dir              string
	env              map[string]string
	right            map[string]secret // the passwords, by whose they are
}

const inputOfVault = "campaigns"

func newVault(t *testing.T) *vault {
	t.Helper()
	v := &vault{dir: t.TempDir(), right: map[string]secret{}}
	for _, whose := range []string{"source", "feedback", "setup", "kafka"} {
		v.right[whose] = plant(whose)
		v.secrets = append(v.secrets, v.right[whose])
	}
	options := devstack.PostgresOptions{TLS: true, Auth: devstack.AuthSCRAM}
	for _, server := range []**devstack.Postgres{&v.source, &v.feedback} {
		started, err := devstack.StartPostgres(t.Context(), options)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = started.Close() })
		*server = started
	}
	v.foreign = v.feedback.CAFile() // each server has an authority of its own
	v.sourceDB = devstacktest.NewDatabase(t, v.source, "app")
	v.feedbackDB = devstacktest.NewDatabase(t, v.feedback, "feedback")
	v.sourceDB.Exec(t, "CREATE TABLE subscribers_restaurants (id serial PRIMARY KEY, client_id varchar NOT NULL, restaurant_id varchar NOT NULL)",
		"INSERT INTO subscribers_restaurants (client_id, restaurant_id) VALUES ('ann', 'r1'), ('bob', 'r1')",
		"CREATE ROLE reader LOGIN REPLICATION PASSWORD '"+v.right["source"].text+"'", "GRANT SELECT ON subscribers_restaurants TO reader",
		"CREATE ROLE bystander LOGIN REPLICATION PASSWORD '"+v.right["source"].text+"'",
		"CREATE ROLE keeper SUPERUSER LOGIN PASSWORD '"+v.right["setup"].text+"'", "CREATE PUBLICATION tiffin FOR TABLE subscribers_restaurants")
	v.feedbackDB.Exec(t, "CREATE ROLE writer LOGIN PASSWORD '"+v.right["feedback"].text+"'", "CREATE ROLE bystander LOGIN PASSWORD '"+v.right["feedback"].text+"'",
		"GRANT CREATE ON SCHEMA public TO writer", "GRANT CREATE ON DATABASE feedback TO writer")
	v.startKafka(t)
	v.write(t, "password", v.right["kafka"].text+"\n")
	v.env = map[string]string{
		"PATH": "/usr/bin:/bin", "HOME": v.dir, "PGPASSFILE": filepath.Join(v.dir, "none"),
		"TIFFIN_SOURCE_DSN": v.source.DSNFor("reader", v.right["source"].text, "app"), "TIFFIN_SETUP_DSN": v.source.DSNFor("keeper", v.right["setup"].text, "app"),
		"TIFFIN_SETUP_ROLE": "reader", "TIFFIN_FEEDBACK_DSN": v.feedbackDSN(v.right["feedback"].text), "TIFFIN_KAFKA_START": "earliest",
		"TIFFIN_KAFKA_BROKERS": strings.Join(v.kafka.Brokers(), ","), "TIFFIN_KAFKA_TLS_ENABLED": "true", "TIFFIN_KAFKA_TLS_CA_FILE": v.kafka.CAFile(),
		"TIFFIN_KAFKA_TLS_CERT_FILE": v.kafka.ClientCertFile(), "TIFFIN_KAFKA_TLS_KEY_FILE": v.kafka.ClientKeyFile(),
		"TIFFIN_KAFKA_SASL_MECHANISM": "SCRAM-SHA-512", "TIFFIN_KAFKA_SASL_USERNAME": "planted", "TIFFIN_KAFKA_SASL_PASSWORD": v.right["kafka"].text,
		"TIFFIN_HTTP_LISTEN": "127.0.0.1:0", "TIFFIN_LOG_LEVEL": "debug",
	}
	v.secrets = append(v.secrets, lines(t, "the key file", v.kafka.ClientKeyFile())...)
	return v
}

func (v *vault) startKafka(t *testing.T) {
	t.Helper()
	v.kafka = devstacktest.StartKafka(t, devstack.KafkaOptions{SASL: true, Settings: map[string]string{ // the bystander has no rights
		"authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer", "super.users": "User:ANONYMOUS;User:planted",
	}})
	for topic, partitions := range map[string]int32{inputOfVault: 1, "deliveries": 1, "campaigns.dlq": 1} {
		devstacktest.CreateTopic(t, v.kafka.PlainBrokers(), topic, partitions, nil)
	}
	v.setKafkaPassword(t, "planted", v.right["kafka"].text)
	v.setKafkaPassword(t, "bystander", v.right["kafka"].text)
}

// setKafkaPassword changes a user's, of which planted is the daemon's: who is connected already stays so.
func (v *vault) setKafkaPassword(t *testing.T, user, password string) {
	t.Helper()
	altered, err := kadm.NewClient(v.client(t)).AlterUserSCRAMs(t.Context(), nil, []kadm.UpsertSCRAM{
		{User: user, Mechanism: kadm.ScramSha512, Iterations: 4096, Password: password},
	})
	if err != nil || !altered.Ok() {
		t.Fatal(err, altered)
	}
}

// client needs no password.
func (v *vault) client(t *testing.T) *kgo.Client {
	t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(v.kafka.PlainBrokers()...))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return client
}

// feedbackDSN is of the other form: key=value.
func (v *vault) feedbackDSN(password string) string {
	return fmt.Sprintf("host=127.0.0.1 port=%d user=writer dbname=feedback sslmode=verify-full sslrootcert=%s password='%s'", v.feedback.Port(), v.feedback.CAFile(), password)
}

// bystander is the DSN of who may log in to the feedback database, and nothing else.
func (v *vault) bystander() string {
	return strings.Replace(v.env["TIFFIN_FEEDBACK_DSN"], "user=writer", "user=bystander", 1)
}

// serviceFile names the feedback database as the service feedback, by a file of the password's own.
func (v *vault) serviceFile(t *testing.T, password string) string {
	t.Helper()
	return v.write(t, fmt.Sprintf("services-%x", sha256.Sum256([]byte(password))), fmt.Sprintf(
		"# of the feedback database\n[feedback]\nhost=127.0.0.1\nport=%d\nuser=writer\ndbname=feedback\nsslmode=verify-full\nsslrootcert=%s\npassword=%s\n",
		v.feedback.Port(), v.feedback.CAFile(), password))
}

// lockedKey is the client's key, encrypted.
func (v *vault) lockedKey(t *testing.T, password string) string {
	t.Helper()
	text, err := os.ReadFile(v.kafka.ClientKeyFile())
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(text)
	//nolint:staticcheck // what is unsafe about it is what libpq's sslpassword is for
	locked, err := x509.EncryptPEMBlock(rand.Reader, block.Type, block.Bytes, []byte(password), x509.PEMCipherAES256)
	if err != nil {
		t.Fatal(err)
	}
	return v.write(t, "locked.key", string(pem.EncodeToMemory(locked)))
}

// publish puts a campaign for two clients into the input topic.
func (v *vault) publish(t *testing.T) {
	t.Helper()
	campaign := devstack.Campaign{Restaurant: "r1", ID: "c", Content: "x", Owner: "o", OwnerContact: "k", End: 99999999999, Created: 1}
	if err := v.client(t).ProduceSync(t.Context(), &kgo.Record{Topic: inputOfVault, Value: campaign.JSON()}).FirstErr(); err != nil {
		t.Fatal(err)
	}
}

func (v *vault) write(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(v.dir, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// wrong is a secret that opens nothing.
func (v *vault) wrong(what string) string {
	s := plant("wrong" + what)
	v.mu.Lock()
	defer v.mu.Unlock()
	if !slices.Contains(v.secrets, s) {
		v.secrets = append(v.secrets, s)
	}
	return s.text
}

// environ is the environment of a program, with some changes; an empty value unsets.
func (v *vault) environ(changes map[string]string) (environ []string) {
	for name, value := range v.env {
		if _, changed := changes[name]; !changed {
			environ = append(environ, name+"="+value)
		}
	}
	for name, value := range changes {
		if value != "" {
			environ = append(environ, name+"="+value)
		}
	}
	return environ
}

// launch starts a program of which all is read that it shows.
func (v *vault) launch(t *testing.T, changes map[string]string, args ...string) *process {
	t.Helper()
	dir, err := programs()
	if err != nil {
		t.Fatal(err)
	}
	p := &process{cmd: exec.Command(filepath.Join(dir, args[0]), args[1:]...), done: make(chan error, 1)}
	p.cmd.Env = v.environ(changes)
	p.cmd.Stdout, p.cmd.Stderr = &p.log, &p.log
	p.cmd.SysProcAttr = mortal()
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	v.look(t, "the list of processes", processList(p.cmd.Process.Pid))
	go func() { p.done <- p.cmd.Wait() }()
	t.Cleanup(p.kill)
	return p
}

// provoke runs a program until it has ended, or said what it waits for, and returns what it showed.
func (v *vault) provoke(t *testing.T, changes map[string]string, says string, args ...string) string {
	t.Helper()
	p := v.launch(t, changes, args...)
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	limit := time.After(90 * time.Second)
	for ended := false; !ended; {
		select {
		case err := <-p.done:
			p.done <- err
			ended = true
		case <-limit:
			t.Errorf("%v does not end:\n%s", args, p.log.String())
			ended = true
		case <-ticker.C:
			if args[1] == "run" && strings.Contains(p.log.String(), says) {
				v.look(t, "the list of processes", processList(p.cmd.Process.Pid))
				_ = p.cmd.Process.Signal(syscall.SIGTERM) // it may just end
			}
		}
	}
	shown := p.log.String()
	if !strings.Contains(shown, says) {
		t.Errorf("%v does not say %q:\n%s", args, says, shown)
	}
	v.look(t, strings.Join(args[:2], " "), []byte(shown))
	return shown
}

// impostor is an address that leads to a server, and that its certificate does not bear.
func impostor(t *testing.T, to string) string {
	t.Helper()
	return devstacktest.OpenRouteFrom(t, "127.0.0.2:0", to).Address()
}

func portOf(address string) int {
	_, text, _ := net.SplitHostPort(address)
	port, _ := strconv.Atoi(text)
	return port
}

// stopped waits for a server's orderly end.
func stopped(t *testing.T, stop func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if err := stop(ctx); err != nil {
		t.Fatal(err)
	}
}
