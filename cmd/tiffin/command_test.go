package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"example.com/tiffin/cmd/internal/command"
	"example.com/tiffin/cmd/internal/command/commandtest"
	"example.com/tiffin/cmd/internal/settings"
)

// execute runs one command line in this process.
func execute(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	code = command.Run(t.Context(), newRootCommand(), args, command.Streams{In: strings.NewReader(""), Out: &out, Err: &errs})
	return code, out.String(), errs.String()
}

func TestEveryCommandHelpsWithAnExample(t *testing.T) {
	t.Parallel()
	if found := commandtest.Unexplained(t.Context(), newRootCommand); len(found) > 0 {
		t.Errorf("%q", found)
	}
}

func TestHelpOfRunNamesEverySetting(t *testing.T) {
	t.Parallel()
	_, stdout, _ := execute(t, "run", "--help")
	for _, key := range settings.Keys() {
		if !strings.Contains(stdout, key.Name) {
			t.Errorf("run --help lacks %s", key.Name)
		}
	}
}

func TestNoFlagTakesASecret(t *testing.T) {
	t.Parallel()
	if found := commandtest.SecretFlags(newRootCommand()); len(found) > 0 {
		t.Errorf("%q would show a secret to everyone who lists processes", found)
	}
}

func TestFaultsOfUsageExitWith2(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{
		{},
		{"rum"},
		{"--nonsense"},
		{"run", "--nonsense"},
		{"run", "extra"},
		{"run", "-c"},
		{"run", "-c", ""},
		{"run", "--ledger-behind", "guess"},
		{"version", "extra"},
		{"migrate", "--role", "r"},
	} {
		code, stdout, stderr := execute(t, args...)
		if code != command.ExitUsage || stdout != "" || !strings.HasPrefix(stderr, "tiffin: ") || !strings.Contains(stderr, "--help") {
			t.Errorf("tiffin %q: %d %q %q", args, code, stdout, stderr)
		}
	}
}

// Not parallel: commands read the environment of the process.
func TestFaultsOfSettingsExitWith2AndAreToldAtOnce(t *testing.T) {
	clearEnvironment(t)
	path := filepath.Join(t.TempDir(), "tiffin.yaml")
	if err := os.WriteFile(path, []byte("kafka: {brokers: 'k:1', sasl: {mechanism: magic}}\nsuorce: {dsn: x}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	code, stdout, stderr := execute(t, "run", "-c", path)
	if code != command.ExitUsage || stdout != "" {
		t.Errorf("exit %d, stdout %q", code, stdout)
	}
	for _, key := range []string{"source.dsn", "feedback.dsn", "kafka.sasl.mechanism", "suorce.dsn"} {
		if !strings.Contains(stderr, key) {
			t.Errorf("the message lacks %s:\n%s", key, stderr)
		}
	}
}

// Not parallel: as above.
func TestPrintedMigrationNeedsNoSettings(t *testing.T) {
	clearEnvironment(t)
	code, stdout, stderr := execute(t, "migrate", "--print")
	if code != command.ExitOK || !strings.Contains(stdout, "CREATE TABLE tiffin.progress") || strings.Contains(stdout, "GRANT") || stderr != "" {
		t.Errorf("%d %q %q", code, stdout, stderr)
	}
	// What a shell has for the daemon, which reads the rest from its file, is no fault here.
	t.Setenv("TIFFIN_KAFKA_SASL_PASSWORD", "hunter2")
	t.Setenv("TIFFIN_KAFKA_TLS_CA_FILE", "/dev/null")
	if code, stdout, stderr = execute(t, "migrate", "--print"); code != command.ExitUsage || !strings.Contains(stderr, "/dev/null") {
		t.Errorf("a bad value: %d %q %q", code, stdout, stderr)
	}
	t.Setenv("TIFFIN_KAFKA_TLS_CA_FILE", "")
	t.Setenv("TIFFIN_FEEDBACK_DSN", "postgres://writer:hunter2@h/d")
	t.Setenv("TIFFIN_FEEDBACK_TABLE", "other.fb")
	_, stdout, _ = execute(t, "migrate", "--print")
	if !strings.Contains(stdout, `GRANT SELECT, INSERT ON "other"."fb" TO "writer";`) || strings.Contains(stdout, "hunter2") {
		t.Errorf("the grants are not for the user of the DSN:\n%s", stdout)
	}
}

// Not parallel: as above.
func TestMigrateSaysWhatItDid(t *testing.T) {
	clearEnvironment(t)
	t.Setenv("TIFFIN_FEEDBACK_DSN", servers.Database(t).DSN)
	for _, want := range []string{
		"schema tiffin: version 0 -> 3\nfeedback table \"public\".\"subscribers_feedback\": created\n",
		"schema tiffin is current: version 3\n",
	} {
		if code, stdout, stderr := execute(t, "migrate"); code != command.ExitOK || stdout != want || stderr != "" {
			t.Errorf("%d %q %q, want %q", code, stdout, stderr, want)
		}
	}
	t.Setenv("TIFFIN_FEEDBACK_DSN", "postgres://u:hunter2@127.0.0.1:1/d")
	if code, _, stderr := execute(t, "migrate"); code != command.ExitFault || !strings.Contains(stderr, "feedback database") || strings.Contains(stderr, "hunter2") {
		t.Errorf("without a server: %d %q", code, stderr)
	}
}

func TestVersionNamesTheBuild(t *testing.T) {
	t.Parallel()
	if code, stdout, _ := execute(t, "version"); code != command.ExitOK || !strings.HasPrefix(stdout, "tiffin ") || !strings.Contains(stdout, " go1.") {
		t.Errorf("%d %q", code, stdout)
	}
}

// clearEnvironment hides the settings of whoever runs the tests.
func clearEnvironment(t *testing.T) {
	t.Helper()
	for _, entry := range os.Environ() {
		if name, _, _ := strings.Cut(entry, "="); strings.HasPrefix(name, settings.EnvPrefix) || strings.HasPrefix(name, "PG") {
			t.Setenv(name, "")
			if err := os.Unsetenv(name); err != nil {
				t.Fatal(err)
			}
		}
	}
}
