package daemon

import (
	"crypto/x509"
	"encoding/pem"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"example.com/tiffin/internal/devstack/devstacktest"
)

// What keeps a client out of a real broker's ports: one side speaks TLS and the other does not, one
// wants a login and the other has none, and certificates that somebody does not trust.
func TestDoctorNamesWhatKafkaDoesNotLetIn(t *testing.T) {
	t.Parallel()
	kafka := guardedKafka(t, map[string]string{"sasl.enabled.mechanisms": "SCRAM-SHA-512,SCRAM-SHA-256"})
	secure, plain, mutual := kafka.Brokers()[0], kafka.PlainBrokers()[0], kafka.MutualTLSBrokers()[0]
	impostor := devstacktest.OpenRouteFrom(t, "127.0.0.2:0", secure).Address()
	foreign, foreignKey := foreignClient(t)
	noLogin := map[string]string{"SASL_MECHANISM": "", "SASL_USERNAME": "", "SASL_PASSWORD": ""}
	noTLS := map[string]string{"TLS_ENABLED": "false", "TLS_CA_FILE": ""}
	for name, c := range map[string]struct {
		ailment
		settings map[string]string
	}{
		"TLS off at a TLS port":        {ailment{fail: "kafka.tls", text: "speaks only TLS", fix: "kafka.tls.enabled: true"}, at(secure, noTLS)},
		"TLS on at a plain port":       {ailment{fail: "kafka.tls", text: "speaks no TLS", fix: "kafka.tls.enabled: false"}, at(plain, noLogin)},
		"login off where one is asked": {ailment{fail: "kafka.login", text: "wants a login", fix: "kafka.sasl.mechanism: SCRAM-SHA-512"}, at(secure, noLogin)},
		"login where none is asked":    {ailment{fail: "kafka.login", text: "no login", fix: "kafka.sasl.mechanism"}, at(plain, noTLS)},
		"mechanism not offered":        {ailment{fail: "kafka.login", text: "PLAIN", fix: "kafka.sasl.mechanism: SCRAM-SHA-512"}, at(secure, map[string]string{"SASL_MECHANISM": "PLAIN"})},
		"user unknown": {
			ailment{fail: "kafka.login", text: "SASL_AUTHENTICATION_FAILED", fix: "kafka-configs.sh --bootstrap-server " + secure + " --command-config admin.properties --alter --entity-type users --entity-name nobody_knows"},
			at(secure, map[string]string{"SASL_USERNAME": "nobody_knows"}),
		},
		"wrong password":            {ailment{fail: "kafka.login", text: "SASL_AUTHENTICATION_FAILED", fix: "kafka.sasl.password"}, at(secure, map[string]string{"SASL_PASSWORD": wrongPassword})},
		"authority not trusted":     {ailment{fail: "kafka.tls", text: `the certificate of localhost, 127.0.0.1 is signed by "CN=tiffin devstack authority", which is not trusted`, fix: "openssl s_client -connect " + secure}, at(secure, map[string]string{"TLS_CA_FILE": foreign})},
		"certificate for another":   {ailment{fail: "kafka.tls", text: "the certificate is for localhost, 127.0.0.1, not for 127.0.0.2", fix: "kafka.brokers"}, at(impostor)},
		"no client certificate":     {ailment{fail: "kafka.tls", text: "demands a client certificate", fix: "kafka.tls.cert_file"}, at(mutual, noLogin)},
		"client of a foreign house": {ailment{fail: "kafka.tls", text: `does not trust the client certificate "O=Acme Co"`, fix: "openssl x509 -noout -subject -issuer -dates -in " + foreign}, at(mutual, noLogin, map[string]string{"TLS_CERT_FILE": foreign, "TLS_KEY_FILE": foreignKey})},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := newGuarded(t, kafka)
			_, healthy, _ := examine(t, g.environ)
			for variable, value := range c.settings {
				g.set("TIFFIN_KAFKA_"+variable, value)
			}
			if line := c.judge(t, g.environ, healthy); strings.Contains(line.Fix, ": openssl ") {
				shows(t, line.Fix)
			}
		})
	}
}

// at is a client of one broker, with other settings than those that are right.
func at(broker string, settings ...map[string]string) map[string]string {
	all := map[string]string{"BROKERS": broker}
	for _, some := range settings {
		maps.Copy(all, some)
	}
	return all
}

// shows runs the command that a fix ends with.
func shows(t *testing.T, fix string) {
	t.Helper()
	command := fix[strings.LastIndex(fix, ": ")+len(": "):]
	if out, err := exec.CommandContext(t.Context(), "sh", "-c", command).Output(); err != nil || len(out) == 0 {
		t.Errorf("%s: %v\n%s", command, err, out)
	}
}

// foreignClient is the certificate of somebody whom the brokers' authority does not know, and its key.
func foreignClient(t *testing.T) (certificate, key string) {
	t.Helper()
	server := httptest.NewTLSServer(http.NotFoundHandler())
	t.Cleanup(server.Close)
	pair := server.TLS.Certificates[0]
	der, err := x509.MarshalPKCS8PrivateKey(pair.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for name, block := range map[string]*pem.Block{
		"foreign.crt": {Type: "CERTIFICATE", Bytes: pair.Certificate[0]},
		"foreign.key": {Type: "PRIVATE KEY", Bytes: der},
	} {
		if err := os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return filepath.Join(dir, "foreign.crt"), filepath.Join(dir, "foreign.key")
}
