package settings

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestSecretsShowNowhere(t *testing.T) {
	t.Parallel()
	s := load(t, "", []string{
		"TIFFIN_SOURCE_DSN=postgres://u:hunter2@h/d?sslpassword=hunter2&sslmode=require",
		"TIFFIN_SETUP_DSN=postgres://u:hunter2@h1:1,h2:2/d",
		`TIFFIN_FEEDBACK_DSN=host=h password = 'hunter2 \' hunter2' user=u sslpassword=hunter2`,
		"TIFFIN_KAFKA_BROKERS=k:1", "TIFFIN_KAFKA_SASL_MECHANISM=PLAIN", "TIFFIN_KAFKA_SASL_USERNAME=u", "TIFFIN_KAFKA_SASL_PASSWORD=hunter2",
	})
	var logged bytes.Buffer
	for _, handler := range []slog.Handler{slog.NewTextHandler(&logged, nil), slog.NewJSONHandler(&logged, nil)} {
		slog.New(handler).Info("settings", "settings", s, "dsn", s.Source.DSN, "password", s.Kafka.SASL.Password, "kafka", s.Kafka)
	}
	encoded, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	shown := fmt.Sprintf("%v %+v %#v %s %q %s %s %s", *s, *s, *s, s, s.Kafka.SASL.Password, s, logged.String(), encoded)
	if strings.Contains(shown, "hunter2") {
		t.Errorf("a secret shows in %s", shown)
	}
	for _, part := range []string{"kafka.sasl.password: xxxxx", "postgres://u:xxxxx@h/d?sslmode=require&sslpassword=xxxxx", "host=h password = xxxxx user=u sslpassword=xxxxx"} {
		if !strings.Contains(s.String(), part) {
			t.Errorf("want %q in\n%s", part, s)
		}
	}
	if s.Kafka.SASL.Password.Reveal() != "hunter2" || !strings.Contains(s.Source.DSN.Reveal(), "hunter2") {
		t.Error("Reveal hides the secret")
	}
}

func TestFaultsRepeatNoSecret(t *testing.T) {
	t.Parallel()
	for _, dsn := range []string{
		"postgres://u:hunter2@h:port/d", "postgres://u:hunter2%zz@h/d", "postgres://u:hunter2@h/d?sslmode=maybe", "hunter2", "host=h password=hunter2 port=x",
		"password='hunter2", "postgres:/u:hunter2@h", "host=h password=hunter2 connect_timeout=soon", "host=h password=a`:hunter2 port=x", "host=h password=a`: hunter2 port=x",
		"host=h password=hunter2 sslmode=verify-full sslrootcert=/nowhere/ca.pem",
	} {
		keys, message := faults(t, Input{Environ: enough("TIFFIN_SOURCE_DSN=" + dsn)})
		if len(keys) != 1 || keys[0] != "source.dsn" || strings.Contains(message, "hunter2") {
			t.Errorf("%q: faults of %q\n%s", dsn, keys, message)
		}
	}
}

// Broken YAML around a secret, a secret where a path belongs: the fault names the place, and no word of it.
func TestFaultsOfAFileRepeatNoSecret(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		"kafka: {sasl: {password: *hunter2}}", "kafka:\n  sasl:\n    password:hunter2\n", "kafka: {sasl: {password:hunter2}}", "kafka: {sasl: {password=hunter2: }}",
		"source: {dsn postgres://u:hunter2@h/d}", "kafka:\n  sasl:\n    password: 'hunter2\n", "kafka:\n  sasl:\n    password: hunter2: more\n", "kafka:\n\tsasl: hunter2",
		"kafka: [hunter2", "hunter2", "[hunter2]", "%hunter2\n---\n", "kafka:\n  sasl:\n    password: @hunter2", "kafka: {sasl: {passwrod: hunter2}}", "kafka: {sasl: hunter2}",
		"kafka: {sasl: {password: [hunter2]}}", "kafka: {sasl: {password: {hunter2: 1}}}", "kafka: {sasl: {password: hunter2, password: hunter2}}", "kafka: {sasl: {password: &hunter2 [*hunter2]}}",
		"kafka: {sasl: {mechanism: PLAIN, username: u, password_file: hunter2}}", "kafka: {tls: {enabled: true, ca_file: hunter2}}", "kafka: {sasl: {'hunter2'}}", "source: {dsn: 'postgres://u:1/hunter2@h/d'}",
		"kafka: {tls: {enabled: true, key_file: \"-----BEGIN PRIVATE KEY-----\\nhunter2/=\\n\"}}",
	} {
		if _, message := faults(t, Input{File: write(t, text)}); strings.Contains(message, "hunter2") {
			t.Errorf("%q: %s", text, message)
		}
	}
}

// Not parallel: pgx reads the environment of the process.
func TestLibpqVariablesStandInForTheDSN(t *testing.T) {
	for _, name := range []string{"PGPASSWORD", "PGSERVICE", "PGSSLMODE"} {
		t.Setenv(name, "")
	}
	t.Setenv("PGHOST", "db")
	t.Setenv("PGUSER", "someone")
	environ := []string{"PGHOST=db", "PGUSER=someone", "TIFFIN_KAFKA_BROKERS=k:1"}
	s := load(t, "", environ)
	if s.Source.DSN != "" || s.Setup.Role != "someone" {
		t.Errorf("DSN %q, role %q", s.Source.DSN, s.Setup.Role)
	}
	t.Setenv("PGPORT", "seventy")
	if keys, message := faults(t, Input{Environ: environ}); strings.Join(keys, " ") != "feedback.dsn source.dsn" || !strings.Contains(message, "PG* variables") {
		t.Errorf("faults of %q\n%s", keys, message)
	}
}

// The password of a file is asked for at each login: it may be another by then, or away.
func TestPasswordOfAFileIsReadAnew(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "password")
	write := func(text string) {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("first\n")
	s, err := Load(Input{Needs: []string{}, Environ: []string{
		"TIFFIN_KAFKA_SASL_MECHANISM=PLAIN", "TIFFIN_KAFKA_SASL_USERNAME=u", "TIFFIN_KAFKA_SASL_PASSWORD_FILE=" + file, "TIFFIN_KAFKA_TLS_ENABLED=true",
	}})
	if err != nil {
		t.Fatal(err)
	}
	write("second\r\n")
	if now, err := s.Kafka.SASL.PasswordNow(); err != nil || now.Reveal() != "second" || s.Kafka.SASL.Password.Reveal() != "first" {
		t.Errorf("%q, %v, at the start %q", now.Reveal(), err, s.Kafka.SASL.Password.Reveal())
	}
	write("")
	if _, err := s.Kafka.SASL.PasswordNow(); err == nil || !strings.Contains(err.Error(), "kafka.sasl.password_file names "+file+", which is empty") {
		t.Error(err)
	}
}
