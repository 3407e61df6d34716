package daemon

import (
	"net"
	"strings"
	"testing"
)

// The kernel accepts for a process that hangs. What is heard of it is one line, within the time that a
// check has, and no word of credentials, which nobody has looked at.
func TestDoctorNamesASilentServer(t *testing.T) {
	t.Parallel()
	silent, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = silent.Close() })
	address := silent.Addr().String()
	_, port, _ := strings.Cut(address, ":")
	says := ailment{text: address + " accepts connections and does not answer", fix: "ss -ltnp 'sport = :" + port + "'"}
	for name, c := range map[string]struct {
		ailment
		variable, value string
	}{
		"source, TLS demanded":   {ailment{fail: "source.tls"}, "SOURCE_DSN", "postgres://u@%s/d?sslmode=require"},
		"source, TLS preferred":  {ailment{fail: "source.tls"}, "SOURCE_DSN", "postgres://u@%s/d"},
		"source, no TLS":         {ailment{fail: "source.login"}, "SOURCE_DSN", "postgres://u@%s/d?sslmode=disable"},
		"feedback, TLS demanded": {ailment{fail: "feedback.tls"}, "FEEDBACK_DSN", "postgres://u@%s/d?sslmode=require"},
		"feedback, no TLS":       {ailment{fail: "feedback.login"}, "FEEDBACK_DSN", "postgres://u@%s/d?sslmode=disable"},
		"kafka, TLS":             {ailment{fail: "kafka.tls"}, "KAFKA_TLS_ENABLED", "true"},
		"kafka, no TLS":          {ailment{fail: "kafka.login"}, "KAFKA_TLS_ENABLED", "false"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newPatient(t, servers.Postgres(t))
			_, healthy, _ := examine(t, p.environ)
			if strings.HasPrefix(c.variable, "KAFKA_") {
				p.set("TIFFIN_KAFKA_BROKERS", address)
			}
			p.set("TIFFIN_"+c.variable, strings.ReplaceAll(c.value, "%s", address))
			a := says
			a.fail = c.fail
			if line := a.judge(t, p.environ, healthy); strings.Contains(line.Fix, "password") {
				t.Errorf("%+v: nobody has asked for a password", line)
			}
		})
	}
}
