package acceptance

import (
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
)

// fault is a way to go wrong, the commands that meet it, and what they say then.
type fault struct {
	set      map[string]string
	commands []string
	says     string
}

// The commands by what they need. X stands for a message of the input topic.
var (
	readsSource   = []string{"tiffin run", "tiffin doctor", "tiffin audit --fresh"}
	readsFeedback = []string{"tiffin run", "tiffin doctor --json", "tiffin migrate", "tiffin verify", "tiffin explain X"}
	readsKafka    = []string{"tiffin run", "tiffin doctor", "tiffin verify --json"}
	setsUp        = []string{
		"slotsetup plan", "slotsetup apply --json", "slotsetup status", "slotsetup drop --yes", "slotsetup plan --json", "slotsetup apply", "slotsetup status --json",
		"slotsetup drop --yes --json",
	}
)

func (v *vault) faults(t *testing.T) map[string]fault {
	t.Helper()
	source, setup := "TIFFIN_SOURCE_DSN", "TIFFIN_SETUP_DSN"
	feedback, brokers := "TIFFIN_FEEDBACK_DSN", "TIFFIN_KAFKA_BROKERS"
	bare, _, _ := strings.Cut(v.env[feedback], " password=") // it is the last
	reader, keeper := v.env[source], v.env[setup]
	at := func(dsn, address string) string { return strings.Replace(dsn, v.source.Address(), address, 1) }
	writerAt := func(host string, port int) string {
		return strings.NewReplacer("host=127.0.0.1", "host="+host, fmt.Sprintf("port=%d", v.feedback.Port()), fmt.Sprintf("port=%d", port)).Replace(v.env[feedback])
	}
	trusting := func(dsn string) string {
		return strings.Replace(dsn, "sslrootcert=", "sslrootcert="+v.foreign+"&was=", 1)
	}
	falseSource, falseFeedback, falseKafka := impostor(t, v.source.Address()), impostor(t, v.feedback.Address()), impostor(t, v.kafka.Brokers()[0])
	const refused, unknown, mismatch, denied = "connection refused", "nohost.invalid", "127.0.0.2", "password authentication failed"
	bystander := v.source.DSNFor("bystander", v.right["source"].text, "app")
	return map[string]fault{
		"source: wrong password":   {map[string]string{source: v.source.DSNFor("reader", v.wrong("source"), "app")}, readsSource, denied},
		"setup: wrong password":    {map[string]string{setup: v.source.DSNFor("keeper", v.wrong("setup"), "app")}, setsUp, denied},
		"feedback: wrong password": {map[string]string{feedback: v.feedbackDSN(v.wrong("feedback"))}, readsFeedback, denied},
		"feedback: wrong PGPASSWORD": {map[string]string{
			feedback: bare, "PGPASSWORD": v.wrong("environment"),
		}, readsFeedback, denied},
		"feedback: wrong passfile": {map[string]string{
			feedback: bare, "PGPASSFILE": v.write(t, "pgpass", "*:*:*:*:"+v.wrong("passfile")+"\n"),
		}, readsFeedback, denied},
		"feedback: wrong service file": {map[string]string{
			feedback: "service=feedback", "PGSERVICEFILE": v.serviceFile(t, v.wrong("service")),
		}, readsFeedback, denied},
		"kafka: wrong password": {map[string]string{"TIFFIN_KAFKA_SASL_PASSWORD": v.wrong("kafka")}, readsKafka, "SASL"},
		"kafka: wrong plain password": {map[string]string{
			"TIFFIN_KAFKA_SASL_MECHANISM": "PLAIN", "TIFFIN_KAFKA_SASL_USERNAME": v.kafka.Username(), "TIFFIN_KAFKA_SASL_PASSWORD": v.wrong("plain"),
		}, readsKafka, "SASL"},
		"kafka: wrong password file": {map[string]string{
			"TIFFIN_KAFKA_SASL_PASSWORD": "", "TIFFIN_KAFKA_SASL_PASSWORD_FILE": v.write(t, "wrong-password", v.wrong("file")),
		}, readsKafka, "SASL"},

		"source: wrong authority":   {map[string]string{source: trusting(reader)}, readsSource, "certificate"},
		"setup: wrong authority":    {map[string]string{setup: trusting(keeper)}, setsUp, "certificate"},
		"feedback: wrong authority": {map[string]string{feedback: strings.Replace(v.env[feedback], v.feedback.CAFile(), v.source.CAFile(), 1)}, readsFeedback, "certificate"},
		"kafka: wrong authority":    {map[string]string{"TIFFIN_KAFKA_TLS_CA_FILE": v.foreign}, readsKafka, "certificate"},

		"source: wrong name":   {map[string]string{source: at(reader, falseSource)}, readsSource, mismatch},
		"setup: wrong name":    {map[string]string{setup: at(keeper, falseSource)}, setsUp, mismatch},
		"feedback: wrong name": {map[string]string{feedback: writerAt("127.0.0.2", portOf(falseFeedback))}, readsFeedback, mismatch},
		"kafka: wrong name":    {map[string]string{brokers: falseKafka}, readsKafka, mismatch},

		"source: unknown host":   {map[string]string{source: at(reader, "nohost.invalid:1")}, readsSource, unknown},
		"setup: unknown host":    {map[string]string{setup: at(keeper, "nohost.invalid:1")}, setsUp, unknown},
		"feedback: unknown host": {map[string]string{feedback: writerAt("nohost.invalid", 1)}, readsFeedback, unknown},
		"kafka: unknown host":    {map[string]string{brokers: "nohost.invalid:1"}, readsKafka, unknown},

		"source: refused":   {map[string]string{source: at(reader, "127.0.0.1:1")}, readsSource, refused},
		"setup: refused":    {map[string]string{setup: at(keeper, "127.0.0.1:1")}, setsUp, refused},
		"feedback: refused": {map[string]string{feedback: writerAt("127.0.0.1", 1)}, readsFeedback, refused},
		"kafka: refused":    {map[string]string{brokers: "127.0.0.1:1"}, readsKafka, refused},

		"source: no right":   {map[string]string{source: bystander}, readsSource, "GRANT SELECT"},
		"setup: no right":    {map[string]string{setup: bystander, "TIFFIN_SOURCE_PUBLICATION": "another"}, setsUp[1:2], "permission denied"},
		"feedback: no right": {map[string]string{feedback: v.bystander()}, []string{"tiffin run", "tiffin migrate"}, "permission denied"},
		"kafka: no right":    {map[string]string{"TIFFIN_KAFKA_SASL_USERNAME": "bystander"}, readsKafka, "AUTHORIZATION_FAILED"},

		"source: unknown database":   {map[string]string{source: v.source.DSNFor("reader", v.right["source"].text, "nosuch")}, readsSource, "nosuch"},
		"feedback: unknown database": {map[string]string{feedback: strings.Replace(v.env[feedback], "dbname=feedback", "dbname=nosuch", 1)}, readsFeedback, "nosuch"},
		"source: no table":           {map[string]string{"TIFFIN_SOURCE_TABLE": "nosuch"}, slices.Concat(readsSource, setsUp[:2]), "nosuch"},
		"kafka: no topic":            {map[string]string{"TIFFIN_KAFKA_INPUT": "nosuch"}, readsKafka[:2], "nosuch"},
		"kafka: no TLS":              {map[string]string{"TIFFIN_KAFKA_TLS_ENABLED": "false", "TIFFIN_KAFKA_TLS_CA_FILE": "", "TIFFIN_KAFKA_TLS_CERT_FILE": "", "TIFFIN_KAFKA_TLS_KEY_FILE": ""}, readsKafka[:2], "kafka"},
	}
}

// A secret given in settings shows in no log, error or list of processes, whatever goes wrong.
func TestSecretsShowInNoErrorOfAnyCommand(t *testing.T) {
	t.Parallel()
	v := newVault(t)
	number := 0
	for name, f := range v.faults(t) {
		number++
		f.set = maps.Clone(f.set)
		f.set["TIFFIN_SOURCE_SLOT"], f.set["TIFFIN_KAFKA_GROUP"] = fmt.Sprintf("fault_%d", number), fmt.Sprintf("fault-%d", number)
		if number%2 == 0 {
			f.set["TIFFIN_LOG_FORMAT"] = "json"
		}
		t.Run(name, func(t *testing.T) {
			for _, command := range f.commands {
				v.provoke(t, f.set, f.says, strings.Fields(strings.Replace(command, "X", inputOfVault+"/0/0", 1))...)
			}
		})
	}
	t.Run("settings", v.malformed)
	t.Run("bench", v.bench)
	t.Run("collector", v.collector)
	t.Run("the table's rights", v.rights)
	t.Run("all is well", v.well)
}

// malformed: settings that cannot be understood, of every command.
func (v *vault) malformed(t *testing.T) {
	planted := plant("malformed")
	v.secrets = append(v.secrets, planted)
	word := planted.word
	commands := slices.Concat(readsSource, readsFeedback, setsUp)
	for i, dsn := range []string{
		"postgres://u:" + word + "@h:port/d", "postgres://u:" + word + "%zz@h/d", "postgres://u:1/" + word + "@h/d", "postgres://u:1?" + word + "@h/d", "postgres://u:" + word + "@h/d?sslmode=maybe",
		"host=h password=" + word + " port=x", "password='" + word, word, "host=h password=one " + word, "host=h sslmode=verify-full sslrootcert=/nowhere password=" + word,
	} {
		// Each command once at least, each text to a few.
		for _, command := range []string{commands[i%len(commands)], commands[(i+5)%len(commands)], "slotsetup plan"} {
			set := map[string]string{"TIFFIN_SOURCE_DSN": dsn, "TIFFIN_FEEDBACK_DSN": dsn, "TIFFIN_SETUP_DSN": dsn}
			v.provoke(t, set, "cannot be understood", strings.Fields(strings.Replace(command, "X", inputOfVault+"/0/0", 1))...)
		}
	}
	key := v.write(t, "broken.key", "-----BEGIN PRIVATE KEY-----\n"+word+"\n-----END PRIVATE KEY-----\n")
	for _, set := range []map[string]string{
		{"TIFFIN_KAFKA_TLS_KEY_FILE": key},
		{"TIFFIN_KAFKA_TLS_KEY_FILE": word},
		{"TIFFIN_KAFKA_SASL_PASSWORD": "", "TIFFIN_KAFKA_SASL_PASSWORD_FILE": word},
		{"TIFFIN_KAFKA_SASL_PASSWORD_FILE": v.write(t, "second", word)},
		{"TIFFIN_KAFKA_SASL_MECHANISM": ""},
		{"TIFFIN_SOURCE_DSN": v.env["TIFFIN_SOURCE_DSN"] + "&sslcert=" + v.kafka.ClientCertFile() + "&sslkey=" + key + "&sslpassword=" + word},
	} {
		v.provoke(t, set, "in the settings", "tiffin", "doctor")
		v.provoke(t, set, "in the settings", "tiffin", "run")
	}
	locked := v.lockedKey(t, plant("keys").text)
	for _, variable := range []string{"TIFFIN_SOURCE_DSN", "TIFFIN_SETUP_DSN"} {
		set := map[string]string{variable: v.env[variable] + "&sslcert=" + v.kafka.ClientCertFile() + "&sslkey=" + locked + "&sslpassword=" + word}
		v.provoke(t, set, "in the settings", "slotsetup", "status")
		if variable == "TIFFIN_SOURCE_DSN" {
			v.provoke(t, set, "in the settings", "tiffin", "run")
		}
	}
	for _, text := range []string{"password=" + word, "[feedback]\npassword " + word, "[feedback]\nhost=h\nport=" + word, "[other]\npassword=" + word} {
		set := map[string]string{"TIFFIN_FEEDBACK_DSN": "service=feedback", "PGSERVICEFILE": v.write(t, "services", text+"\n")}
		v.provoke(t, set, "cannot be understood", "tiffin", "run")
		v.provoke(t, set, "cannot be understood", "tiffin", "migrate")
	}
	for _, headers := range []string{word, "authorization=" + word + "%zz", "=" + word, "a b=" + word} {
		set := map[string]string{"TIFFIN_TRACING_ENDPOINT": "http://127.0.0.1:1", "OTEL_EXPORTER_OTLP_HEADERS": headers}
		v.provoke(t, set, "OTEL_EXPORTER_OTLP_HEADERS: number 1", "tiffin", "run")
	}
	for _, text := range []string{
		"kafka: {sasl: {password: *W}}", "kafka: {sasl: {password:W}}", "kafka:\n  sasl:\n    password:W\n", "source: {dsn postgres://u:W@h/d}", "kafka:\n  sasl:\n    password: 'W\n",
		"kafka:\n  sasl:\n    password: W: more\n", "kafka: [W", "kafka:\n\tsasl: W", "kafka:\n  sasl:\n    password: @W", "W", "kafka: {sasl: {passwrod: W}}", "kafka: {sasl: {password: {W: 1}}}",
	} {
		file := v.write(t, "tiffin.yaml", strings.ReplaceAll(text, "W", word))
		v.provoke(t, nil, "in the settings", "tiffin", "doctor", "-c", file)
		v.provoke(t, nil, "in the settings", "slotsetup", "status", "-c", file)
	}
}

// bench takes DSNs of servers that run already.
func (v *vault) bench(t *testing.T) {
	const source, feedback = "BENCH_SOURCE_DSN", "BENCH_FEEDBACK_DSN"
	good := map[string]string{source: v.env["TIFFIN_SETUP_DSN"], feedback: v.feedback.DSNFor("writer", v.right["feedback"].text, "feedback"), "BENCH_KAFKA_BROKERS": v.kafka.PlainBrokers()[0]}
	for dsn, says := range map[string]string{
		v.source.DSNFor("keeper", v.wrong("bench"), "app"):        "password authentication failed",
		"postgres://u:" + v.right["source"].word + "@h:port/d":    "must be URLs",
		"postgres://u:1/" + v.right["source"].word + "@h/d":       "must be URLs",
		"host=h password=" + v.right["source"].word:               "must be URLs",
		"postgres://u:" + v.right["source"].word + "@127.0.0.1:1": "connection refused",
	} {
		set := maps.Clone(good)
		set[source] = dsn
		v.provoke(t, set, says, "bench", "throughput", "--quick", "--dir", t.TempDir())
	}
}

// collector: the one that spans go to refuses them, and says whose they were.
func (v *vault) collector(t *testing.T) {
	planted := plant("collector")
	v.secrets = append(v.secrets, planted)
	var asked atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body) // what came
		v.look(t, "the spans", body)
		given := r.Header.Get("Authorization")
		if given == "Bearer "+planted.text {
			asked.Add(1)
		}
		w.Header().Set("WWW-Authenticate", given)
		http.Error(w, "not you: "+given, http.StatusUnauthorized)
	}))
	t.Cleanup(server.Close)
	v.publish(t)
	for _, format := range []string{"text", "json"} {
		v.provoke(t, map[string]string{
			"TIFFIN_TRACING_ENDPOINT": server.URL, "OTEL_EXPORTER_OTLP_HEADERS": "authorization=" + url.PathEscape("Bearer "+planted.text),
			"TIFFIN_SOURCE_SLOT": "collector_" + format, "TIFFIN_KAFKA_GROUP": "collector-" + format, "TIFFIN_LOG_FORMAT": format,
		}, "401 Unauthorized", "tiffin", "run")
	}
	if asked.Load() == 0 {
		t.Error("the collector was never sent the planted header")
	}
	if n := v.places["the spans"]; n < 500 {
		t.Errorf("of the spans only %d bytes were seen", n)
	}
}

// well: every command once where nothing is wrong, in both formats of the log.
func (v *vault) well(t *testing.T) {
	for _, format := range []string{"text", "json"} {
		set := map[string]string{"TIFFIN_SOURCE_SLOT": "well", "TIFFIN_LOG_FORMAT": format, "TIFFIN_UNKNOWN": v.right["kafka"].text}
		for command, says := range map[string]string{
			"slotsetup plan": "", "slotsetup plan --json": `"ok":true`, "slotsetup status": "well", "slotsetup status --json": "well", "tiffin migrate": "tiffin", "tiffin migrate --print --role writer": "GRANT", "tiffin run --until-now": "", "tiffin doctor": "kafka.login",
			"tiffin doctor --json": `"ok":true`, "tiffin verify": "", "tiffin explain X": "", "tiffin audit --fresh": "0 differences", "tiffin version": "tiffin",
		} {
			v.provoke(t, set, says, strings.Fields(strings.Replace(command, "X", inputOfVault+"/0/0", 1))...)
		}
	}
	service := map[string]string{
		"TIFFIN_SOURCE_SLOT": "service", "TIFFIN_FEEDBACK_DSN": "service=feedback", "PGSERVICEFILE": v.serviceFile(t, v.right["feedback"].text),
	}
	v.provoke(t, service, "msg=ready", "tiffin", "run")
	set := map[string]string{"TIFFIN_SOURCE_SLOT": "well"}
	for _, command := range []string{"apply --json", "drop --slot-only --yes --json", "apply", "drop --yes"} {
		v.provoke(t, set, "well", append([]string{"slotsetup"}, strings.Fields(command)...)...)
	}
}

// rights: of the feedback database all may be used but the table itself. The message is one that collector delivered.
func (v *vault) rights(t *testing.T) {
	v.feedbackDB.Exec(t, "GRANT USAGE ON SCHEMA tiffin TO bystander", "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA tiffin TO bystander")
	set := map[string]string{"TIFFIN_FEEDBACK_DSN": v.bystander(), "TIFFIN_SOURCE_SLOT": "rights", "TIFFIN_KAFKA_GROUP": "collector-json"}
	for command, says := range map[string]string{
		"tiffin run": "lacks a right", "tiffin doctor --json": "lacks a right", "tiffin migrate": "lacks a right", "tiffin verify": "permission denied for table subscribers_feedback", "tiffin explain X": "delivered",
	} {
		v.provoke(t, set, says, strings.Fields(strings.Replace(command, "X", inputOfVault+"/0/0", 1))...)
	}
}
