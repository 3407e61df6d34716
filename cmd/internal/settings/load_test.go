package settings

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// enough is the smallest environment that a daemon starts with.
func enough(more ...string) []string {
	return append([]string{
		"TIFFIN_SOURCE_DSN=postgres://reader@db:5432/app",
		"TIFFIN_FEEDBACK_DSN=host=db2 user=writer dbname=feedback",
		"TIFFIN_KAFKA_BROKERS=k1:9092,k2:9092",
	}, more...)
}

func write(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "tiffin.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func load(t *testing.T, file string, environ []string) *Settings {
	t.Helper()
	s, err := Load(Input{File: file, Environ: environ})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// faults returns the keys at fault, and the whole message.
func faults(t *testing.T, in Input) (keys []string, message string) {
	t.Helper()
	_, err := Load(in)
	var faults *Faults
	if !errors.As(err, &faults) {
		t.Fatalf("Load returned %v, want *Faults", err)
	}
	for _, fault := range faults.List {
		keys = append(keys, fault.Key)
	}
	slices.Sort(keys)
	return keys, err.Error()
}

func TestDefaultsAreThoseOfTheInterface(t *testing.T) {
	t.Parallel()
	s := load(t, "", enough())
	want := map[string]any{
		"source.table": s.Source.Table == Table{"public", "subscribers_restaurants"}, "source.publication": s.Source.Publication == "tiffin",
		"source.slot": s.Source.Slot == "tiffin", "source.setup": s.Source.Setup == "auto", "source.fence": s.Source.Fence == "flush",
		"source.max_staleness": s.Source.MaxStaleness == 0, "source.max_retained_wal": s.Source.MaxRetainedWAL == 8<<30,
		"setup.dsn": s.Setup.DSN == s.Source.DSN, "setup.role": s.Setup.Role == "reader",
		"feedback.table": s.Feedback.Table == Table{"public", "subscribers_feedback"}, "feedback.migrate": s.Feedback.Migrate,
		"kafka.brokers": slices.Equal(s.Kafka.Brokers, []string{"k1:9092", "k2:9092"}), "kafka.group": s.Kafka.Group == "tiffin",
		"kafka.instance_id": s.Kafka.InstanceID == "tiffin", "kafka.input": s.Kafka.Input == "campaigns", "kafka.output": s.Kafka.Output == "deliveries",
		"kafka.dead_letter": s.Kafka.DeadLetter == "campaigns.dlq", "kafka.start": s.Kafka.Start == "latest",
		"kafka.session_timeout": s.Kafka.SessionTimeout == 45*time.Second, "kafka.tls": s.Kafka.TLS == TLS{},
		"kafka.sasl": s.Kafka.SASL == SASL{}, "delivery.mode": s.Delivery.Mode == "exactly_once",
		"delivery.max_transaction_records": s.Delivery.MaxTransactionRecords == 50_000, "index.budget": s.Index.Budget == 256<<20, "index.spill_dir": s.Index.SpillDir == "", "source.failover": !s.Source.Failover,
		"http.listen": s.HTTP.Listen == "127.0.0.1:9464", "log.level": s.Log.Level == slog.LevelInfo, "log.format": s.Log.Format == "text",
		"tracing.endpoint": s.Tracing.Endpoint == "", "tracing.sample_ratio": s.Tracing.SampleRatio == 1,
	}
	for key, ok := range want {
		if ok != true {
			t.Errorf("%s has another default", key)
		}
	}
	if len(s.Warnings) != 0 {
		t.Errorf("warnings without a cause: %q", s.Warnings)
	}
}

func TestEveryKeyIsReadFromTheFileAndFromTheEnvironment(t *testing.T) {
	t.Parallel()
	cert, key := certificate(t)
	spill := t.TempDir()
	values := map[string]string{
		"source.dsn": "postgres://u@h/d", "source.table": "s.t", "setup.dsn": "postgres://dba@h/d", "setup.role": "r",
		"source.publication": "p", "source.slot": "sl", "source.setup": "never", "source.fence": "emit", "source.max_staleness": "90s",
		"source.max_retained_wal": "1GiB", "feedback.dsn": "postgres://w@h/d", "feedback.table": `"My S"."T"`, "feedback.migrate": "false",
		"kafka.brokers": "a:1,b:2", "kafka.group": "g", "kafka.instance_id": "i", "kafka.input": "in", "kafka.output": "out",
		"kafka.dead_letter": "dead", "kafka.start": "earliest", "kafka.session_timeout": "6s", "kafka.tls.enabled": "true", "kafka.tls.ca_file": cert, "kafka.tls.cert_file": cert,
		"kafka.tls.key_file": key, "kafka.sasl.mechanism": "SCRAM-SHA-512", "kafka.sasl.username": "user", "kafka.sasl.password": "0123",
		"delivery.mode": "at_least_once", "delivery.max_transaction_records": "7", "index.budget": "64KiB", "index.spill_dir": spill, "source.failover": "true", "http.listen": "0.0.0.0:1",
		"log.level": "debug", "log.format": "json", "tracing.endpoint": "https://collector:4318", "tracing.sample_ratio": "0.25",
	}
	var yaml strings.Builder
	var environ []string
	for _, key := range Keys() {
		value, ok := values[key.Name]
		if !ok && key.Name != passwordFileKey {
			t.Fatalf("the test knows no value for %s", key.Name)
		} else if ok {
			// A dotted name at the top is as good as a section.
			yaml.WriteString(key.Name + ": '" + value + "'\n")
			environ = append(environ, key.Env()+"="+value)
		}
	}
	want := Settings{
		Source: Source{
			DSN: "postgres://u@h/d", Table: Table{"s", "t"}, Publication: "p", Slot: "sl", Setup: "never", Fence: "emit",
			MaxStaleness: 90 * time.Second, MaxRetainedWAL: 1 << 30, Failover: true,
		},
		Setup:    Setup{DSN: "postgres://dba@h/d", Role: "r"},
		Feedback: Feedback{DSN: "postgres://w@h/d", Table: Table{"My S", "T"}},
		Kafka: Kafka{
			Brokers: []string{"a:1", "b:2"}, Group: "g", InstanceID: "i", Input: "in", Output: "out", DeadLetter: "dead", Start: "earliest",
			SessionTimeout: 6 * time.Second,
			TLS:            TLS{Enabled: true, CAFile: cert, CertFile: cert, KeyFile: key},
			SASL:           SASL{Mechanism: "SCRAM-SHA-512", Username: "user", Password: "0123"},
		},
		Delivery: Delivery{Mode: "at_least_once", MaxTransactionRecords: 7},
		Index:    Index{Budget: 64 << 10, SpillDir: spill}, HTTP: HTTP{Listen: "0.0.0.0:1"}, Log: Log{Level: slog.LevelDebug, Format: "json"},
		Tracing: Tracing{Endpoint: "https://collector:4318", SampleRatio: 0.25},
	}
	for from, s := range map[string]*Settings{"file": load(t, write(t, yaml.String()), nil), "environment": load(t, "", environ)} {
		if s.Source != want.Source || s.Setup != want.Setup || s.Feedback != want.Feedback || s.Delivery != want.Delivery ||
			s.Index != want.Index || s.HTTP != want.HTTP || s.Log != want.Log || s.Tracing != want.Tracing || !slices.Equal(s.Kafka.Brokers, want.Kafka.Brokers) {
			t.Errorf("from the %s: %+v", from, s)
		}
		s.Kafka.Brokers, want.Kafka.Brokers = nil, nil
		if got := s.Kafka; got.SASL != want.Kafka.SASL || got.SessionTimeout != want.Kafka.SessionTimeout || got.TLS != want.Kafka.TLS || got.Group+got.InstanceID+got.Input+got.Output+got.DeadLetter+got.Start != "giinoutdeadearliest" {
			t.Errorf("kafka from the %s: %+v", from, got)
		}
		want.Kafka.Brokers = []string{"a:1", "b:2"}
	}
}

func TestEnvironmentWinsOverTheFile(t *testing.T) {
	t.Parallel()
	file := write(t, "kafka:\n  brokers: [file:1, file:2]\n  group: file\nsource: {dsn: 'host=file'}\n")
	s := load(t, file, []string{"TIFFIN_KAFKA_BROKERS=env:1", "TIFFIN_FEEDBACK_DSN=host=env", "TIFFIN_KAFKA_GROUP="})
	if !slices.Equal(s.Kafka.Brokers, []string{"env:1"}) || s.Source.DSN != "host=file" || s.Feedback.DSN != "host=env" {
		t.Errorf("got %v %v %v", s.Kafka.Brokers, s.Source.DSN, s.Feedback.DSN)
	}
	if s.Kafka.Group != "file" {
		t.Errorf("an empty variable set the group to %q", s.Kafka.Group)
	}
}

func TestAllFaultsAtOnceEachWithItsKeyAndPlace(t *testing.T) {
	t.Parallel()
	file := write(t, "source:\n  fence: sometimes\n  slotname: x\nkafka:\n  group: g\n  group: h\n  brokers: nowhere\n  start: [a]\nnonsense: 1\n")
	keys, message := faults(t, Input{File: file, Environ: []string{
		"TIFFIN_FEEDBACK_DSN=host=db port=70000", "TIFFIN_INDEX_BUDGET=much", "TIFFIN_HTTP_LISTEN=9464",
	}})
	want := []string{"feedback.dsn", "http.listen", "index.budget", "kafka.brokers", "kafka.group", "kafka.start", "nonsense", "source.dsn", "source.fence", "source.slotname"}
	if !slices.Equal(keys, want) {
		t.Errorf("faults of %q\nwant     %q\n%s", keys, want, message)
	}
	for _, part := range []string{
		"10 faults in the settings:", "source.fence (" + file + ":2): ", "index.budget (TIFFIN_INDEX_BUDGET): ",
		"source.dsn: is required: set it in the file or by TIFFIN_SOURCE_DSN", "want flush, emit or off", "did you mean source.slot?", file + ":6",
	} {
		if !strings.Contains(message, part) {
			t.Errorf("the message lacks %q:\n%s", part, message)
		}
	}
}

func TestUnknownVariableIsAWarning(t *testing.T) {
	t.Parallel()
	s := load(t, "", enough("TIFFIN_SERVICE_HOST=10.0.0.1", "TIFFIN_KAFKA_GRUP=x", "OTHER=1"))
	if len(s.Warnings) != 2 || !strings.Contains(s.Warnings[0], "did you mean TIFFIN_KAFKA_GROUP?") || !strings.HasSuffix(s.Warnings[1], "TIFFIN_SERVICE_HOST is ignored") {
		t.Errorf("warnings: %q", s.Warnings)
	}
}

func TestOffIsOffHoweverYAMLReadsIt(t *testing.T) {
	t.Parallel()
	for _, word := range []string{"off", "'off'", "OFF", "false", "no"} {
		s := load(t, write(t, "http: {listen: "+word+"}\nkafka: {instance_id: "+word+", sasl: {mechanism: "+word+"}}\nsource: {fence: "+word+"}\n"), enough())
		if s.HTTP.Listen != "" || s.Kafka.InstanceID != "" || s.Kafka.SASL.Mechanism != "" || s.Source.Fence != "off" {
			t.Errorf("%s: %+v %+v fence %q", word, s.HTTP, s.Kafka, s.Source.Fence)
		}
	}
	for word, want := range map[string]bool{"off": false, "on": true, "no": false, "yes": true, "True": true} {
		if s := load(t, write(t, "feedback: {migrate: "+word+"}"), enough()); s.Feedback.Migrate != want {
			t.Errorf("feedback.migrate: %s is %v", word, s.Feedback.Migrate)
		}
	}
}

func TestValuesAreTheTextThatWasWritten(t *testing.T) {
	t.Parallel()
	s := load(t, write(t, "kafka:\n  sasl: {mechanism: plain, username: 1e3, password: 0123}\n  tls: {enabled: on}\n"), enough())
	if s.Kafka.SASL != (SASL{Mechanism: "PLAIN", Username: "1e3", Password: "0123"}) {
		t.Errorf("got %+v with password %q", s.Kafka.SASL, s.Kafka.SASL.Password.Reveal())
	}
}

func TestBadFilesAreNamed(t *testing.T) {
	t.Parallel()
	tests := map[string]struct{ text, want string }{
		"syntax":           {"kafka:\n  group: [a\n", "is no YAML: "},
		"tab":              {"kafka:\n\tgroup: a\n", "is no YAML: "},
		"a list":           {"- a\n", "want keys and values"},
		"a text":           {"hello\n", "want keys and values"},
		"two documents":    {"kafka: {}\n---\nkafka: {}\n", "more than one document"},
		"section twice":    {"kafka: {group: a}\nkafka: {input: b}\n", "kafka (FILE:2): was given before, at line 1"},
		"dotted and deep":  {"kafka.group: a\nkafka: {group: b}\n", "kafka.group (FILE:2): was given before, at FILE:1"},
		"value as section": {"kafka: {group: {a: b}}\n", "kafka.group (FILE:1): is a value, not a section"},
		"section as value": {"kafka: a\n", "kafka (FILE:1): is a section"},
		"alias":            {"kafka: &x {group: *x}\n", "is an alias of YAML"},
		"unknown section":  {"kafak: {}\n", "kafak (FILE:1): unknown key"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			file := write(t, test.text)
			_, message := faults(t, Input{File: file, Environ: enough()})
			if !strings.Contains(message, strings.ReplaceAll(test.want, "FILE", file)) {
				t.Errorf("want %q in:\n%s", test.want, message)
			}
		})
	}
	if _, message := faults(t, Input{File: "/nowhere/tiffin.yaml", Environ: enough()}); !strings.Contains(message, "/nowhere/tiffin.yaml: cannot be read: no such file") {
		t.Errorf("a missing file: %s", message)
	}
	if _, message := faults(t, Input{File: t.TempDir(), Environ: enough()}); !strings.Contains(message, "cannot be read: is a directory") {
		t.Errorf("a directory: %s", message)
	}
}

func TestEmptyFilesAndEmptySectionsAreDefaults(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"", "# nothing\n", "kafka:\nsource: {}\n", "kafka:\n  group:\n  instance_id: ~\n", "---\n"} {
		if s := load(t, write(t, text), enough()); s.Kafka.Group != "tiffin" || s.Kafka.InstanceID != "tiffin" {
			t.Errorf("%q: %+v", text, s.Kafka)
		}
	}
}

func TestACommandNeedsOnlyItsOwnKeys(t *testing.T) {
	t.Parallel()
	if _, err := Load(Input{Environ: []string{"TIFFIN_FEEDBACK_DSN=host=h"}, Needs: []string{"feedback.dsn"}}); err != nil {
		t.Error(err)
	}
	if _, err := Load(Input{Environ: []string{"TIFFIN_FEEDBACK_DSN=host=h", "TIFFIN_INDEX_SPILL_DIR=/nowhere"}, Needs: []string{"feedback.dsn"}}); err != nil {
		t.Errorf("who does not spill: %v", err)
	}
	keys, _ := faults(t, Input{Environ: []string{"TIFFIN_KAFKA_BROKERS=,"}, Needs: []string{"feedback.dsn"}})
	if !slices.Equal(keys, []string{"feedback.dsn", "kafka.brokers"}) {
		t.Errorf("faults of %q: what is set must be right, needed or not", keys)
	}
}
