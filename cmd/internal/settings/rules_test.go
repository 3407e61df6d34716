package settings

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestContradictionsAreNamed(t *testing.T) {
	t.Parallel()
	cert, key := certificate(t)
	_, other := certificate(t)
	empty := write(t, "\n")
	tests := map[string]struct {
		environ []string
		keys    []string
	}{
		"certificate without key":       {[]string{"TIFFIN_KAFKA_TLS_ENABLED=true", "TIFFIN_KAFKA_TLS_CERT_FILE=" + cert}, []string{"kafka.tls.cert_file"}},
		"key without certificate":       {[]string{"TIFFIN_KAFKA_TLS_ENABLED=true", "TIFFIN_KAFKA_TLS_KEY_FILE=" + key}, []string{"kafka.tls.key_file"}},
		"key of another":                {[]string{"TIFFIN_KAFKA_TLS_ENABLED=true", "TIFFIN_KAFKA_TLS_CERT_FILE=" + cert, "TIFFIN_KAFKA_TLS_KEY_FILE=" + other}, []string{"kafka.tls.key_file"}},
		"authority that is no PEM":      {[]string{"TIFFIN_KAFKA_TLS_ENABLED=true", "TIFFIN_KAFKA_TLS_CA_FILE=" + empty}, []string{"kafka.tls.ca_file"}},
		"authority without TLS":         {[]string{"TIFFIN_KAFKA_TLS_CA_FILE=" + cert}, []string{"kafka.tls.ca_file"}},
		"authority that is not there":   {[]string{"TIFFIN_KAFKA_TLS_ENABLED=true", "TIFFIN_KAFKA_TLS_CA_FILE=/nowhere/ca.cert"}, []string{"kafka.tls.ca_file"}},
		"mechanism alone":               {[]string{"TIFFIN_KAFKA_SASL_MECHANISM=PLAIN"}, []string{"kafka.sasl.password", "kafka.sasl.username"}},
		"password alone":                {[]string{"TIFFIN_KAFKA_SASL_PASSWORD=x"}, []string{"kafka.sasl.mechanism"}},
		"unknown mechanism":             {[]string{"TIFFIN_KAFKA_SASL_MECHANISM=GSSAPI"}, []string{"kafka.sasl.mechanism"}},
		"two passwords":                 {sasl("TIFFIN_KAFKA_SASL_PASSWORD=x", "TIFFIN_KAFKA_SASL_PASSWORD_FILE="+cert), []string{passwordFileKey}},
		"password file that is missing": {sasl("TIFFIN_KAFKA_SASL_PASSWORD_FILE=/nowhere"), []string{passwordFileKey}},
		"password file that is empty":   {sasl("TIFFIN_KAFKA_SASL_PASSWORD_FILE=" + empty), []string{passwordFileKey}},
		"output is input":               {[]string{"TIFFIN_KAFKA_OUTPUT=campaigns"}, []string{"kafka.output"}},
		"dead letters to the input":     {[]string{"TIFFIN_KAFKA_DEAD_LETTER=campaigns"}, []string{"kafka.dead_letter"}},
		"dead letters to the output":    {[]string{"TIFFIN_KAFKA_DEAD_LETTER=deliveries"}, []string{"kafka.dead_letter"}},
		"topic name":                    {[]string{"TIFFIN_KAFKA_INPUT=a/b"}, []string{"kafka.input"}},
		"slot name":                     {[]string{"TIFFIN_SOURCE_SLOT=Tiffin-1"}, []string{"source.slot"}},
		"no records":                    {[]string{"TIFFIN_DELIVERY_MAX_TRANSACTION_RECORDS=0"}, []string{"delivery.max_transaction_records"}},
		"size without sense":            {[]string{"TIFFIN_SOURCE_MAX_RETAINED_WAL=-1GiB", "TIFFIN_INDEX_BUDGET=0"}, []string{"index.budget", "source.max_retained_wal"}},
		"spill directory missing":       {[]string{"TIFFIN_INDEX_SPILL_DIR=/nowhere"}, []string{"index.spill_dir"}},
		"spill directory is a file":     {[]string{"TIFFIN_INDEX_SPILL_DIR=" + empty}, []string{"index.spill_dir"}},
		"duration without unit":         {[]string{"TIFFIN_SOURCE_MAX_STALENESS=30"}, []string{"source.max_staleness"}},
		"session timeout that is none":  {[]string{"TIFFIN_KAFKA_SESSION_TIMEOUT=abc"}, []string{"kafka.session_timeout"}},
		"session timeout too short":     {[]string{"TIFFIN_KAFKA_SESSION_TIMEOUT=999ms"}, []string{"kafka.session_timeout"}},
		"duration below zero":           {[]string{"TIFFIN_SOURCE_MAX_STALENESS=-1s"}, []string{"source.max_staleness"}},
		"collector with a password":     {[]string{"TIFFIN_TRACING_ENDPOINT=http://u:hunter2@h:4318"}, []string{"tracing.endpoint"}},
		"collector without a scheme":    {[]string{"TIFFIN_TRACING_ENDPOINT=h:4318"}, []string{"tracing.endpoint"}},
		"more than all messages":        {[]string{"TIFFIN_TRACING_SAMPLE_RATIO=1.5"}, []string{"tracing.sample_ratio"}},
		"no number of messages":         {[]string{"TIFFIN_TRACING_SAMPLE_RATIO=NaN"}, []string{"tracing.sample_ratio"}},
		"port out of range":             {[]string{"TIFFIN_HTTP_LISTEN=:65536"}, []string{"http.listen"}},
		"broker without port":           {[]string{"TIFFIN_KAFKA_BROKERS=a:1,b"}, []string{"kafka.brokers"}},
		"broker missing in the list":    {[]string{"TIFFIN_KAFKA_BROKERS=a:1,,b:2"}, []string{"kafka.brokers"}},
		"table injection":               {[]string{"TIFFIN_SOURCE_TABLE=a.b; drop table c"}, []string{"source.table"}},
		"table of three parts":          {[]string{"TIFFIN_FEEDBACK_TABLE=a.b.c"}, []string{"feedback.table"}},
		"level":                         {[]string{"TIFFIN_LOG_LEVEL=loud", "TIFFIN_LOG_FORMAT=xml"}, []string{"log.format", "log.level"}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			keys, message := faults(t, Input{Environ: enough(test.environ...)})
			if !slices.Equal(keys, test.keys) {
				t.Errorf("faults of %q, want %q\n%s", keys, test.keys, message)
			}
		})
	}
}

// A command that needs no brokers is not held up by half of what leads to them: the password is in the
// environment of many a shell, the rest in a file that was not named. A bad value stays one.
func TestHalfASettingOfKafkaHoldsUpOnlyWhoNeedsIt(t *testing.T) {
	t.Parallel()
	cert, _ := certificate(t)
	for name, test := range map[string]struct {
		environ []string
		whole   []string // faults where Kafka is needed
		without []string // and where it is not
	}{
		"password":      {[]string{"TIFFIN_KAFKA_SASL_PASSWORD=x"}, []string{"kafka.sasl.mechanism"}, nil},
		"mechanism":     {[]string{"TIFFIN_KAFKA_SASL_MECHANISM=PLAIN"}, []string{"kafka.sasl.password", "kafka.sasl.username"}, nil},
		"authority":     {[]string{"TIFFIN_KAFKA_TLS_CA_FILE=" + cert}, []string{"kafka.tls.ca_file"}, nil},
		"certificate":   {[]string{"TIFFIN_KAFKA_TLS_ENABLED=true", "TIFFIN_KAFKA_TLS_CERT_FILE=" + cert}, []string{"kafka.tls.cert_file"}, nil},
		"two passwords": {sasl("TIFFIN_KAFKA_SASL_PASSWORD=x", "TIFFIN_KAFKA_SASL_PASSWORD_FILE="+cert), []string{passwordFileKey}, []string{passwordFileKey}},
		"no mechanism":  {[]string{"TIFFIN_KAFKA_SASL_MECHANISM=GSSAPI"}, []string{"kafka.sasl.mechanism"}, []string{"kafka.sasl.mechanism"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if keys, _ := faults(t, Input{Environ: enough(test.environ...), Needs: []string{"kafka.brokers"}}); !slices.Equal(keys, test.whole) {
				t.Errorf("with Kafka: %q, want %q", keys, test.whole)
			}
			in := Input{Environ: enough(test.environ...), Needs: []string{"feedback.dsn"}}
			if test.without == nil {
				if _, err := Load(in); err != nil {
					t.Errorf("without Kafka: %v", err)
				}
			} else if keys, _ := faults(t, in); !slices.Equal(keys, test.without) {
				t.Errorf("without Kafka: %q, want %q", keys, test.without)
			}
		})
	}
}

// certificate makes a certificate and its key, as PEM files.
func certificate(t *testing.T) (certFile, keyFile string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return write(t, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert}))),
		write(t, string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret})))
}

func sasl(more ...string) []string {
	return append([]string{"TIFFIN_KAFKA_SASL_MECHANISM=SCRAM-SHA-256", "TIFFIN_KAFKA_SASL_USERNAME=u"}, more...)
}

func TestPasswordFileIsThePassword(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{"p\n": "p", "p": "p", "p\r\n": "p", " p \n\n": " p \n"} {
		s := load(t, "", enough(sasl("TIFFIN_KAFKA_SASL_PASSWORD_FILE="+write(t, text))...))
		if got := s.Kafka.SASL.Password.Reveal(); got != want {
			t.Errorf("a file of %q is the password %q, want %q", text, got, want)
		}
	}
}

func TestTableNamesAreReadAsPostgresReadsThem(t *testing.T) {
	t.Parallel()
	tests := map[string]struct{ schema, name, quoted string }{
		"a.b":                {"a", "b", `"a"."b"`},
		"Public.Feedback":    {"public", "feedback", `"public"."feedback"`},
		`"My S"."a.b"`:       {"My S", "a.b", `"My S"."a.b"`},
		`"a""b".c`:           {`a"b`, "c", `"a""b"."c"`},
		"feedback":           {"public", "feedback", `"public"."feedback"`},
		"public.подписчики":  {"public", "подписчики", `"public"."подписчики"`},
		`public."x; drop y"`: {"public", "x; drop y", `"public"."x; drop y"`},
	}
	for text, want := range tests {
		var table Table
		if err := table.parse(text); err != nil {
			t.Errorf("%s: %v", text, err)
		} else if (table != Table{want.schema, want.name}) || table.String() != want.quoted {
			t.Errorf("%s is %#v, quoted %s", text, table, table)
		}
	}
	for _, text := range []string{"", ".", "a.", ".b", `"a`, `"a"b`, `a."b"c`, "a b", "a.b.c", `""`, "a;b", "a-b", strings.Repeat("x", 64)} {
		if err := new(Table).parse(text); err == nil {
			t.Errorf("%q was taken for a table", text)
		}
	}
}

func TestPlainPasswordInTheClearIsAWarning(t *testing.T) {
	t.Parallel()
	s := load(t, "", enough("TIFFIN_KAFKA_SASL_MECHANISM=PLAIN", "TIFFIN_KAFKA_SASL_USERNAME=u", "TIFFIN_KAFKA_SASL_PASSWORD=p"))
	if len(s.Warnings) != 1 || !strings.Contains(s.Warnings[0], "readable") {
		t.Errorf("warnings: %q", s.Warnings)
	}
}
