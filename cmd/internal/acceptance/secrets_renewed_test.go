package acceptance

import (
	"strings"
	"testing"

	"example.com/tiffin/internal/devstack/devstacktest"
)

// Who changes a password writes the new one into its file: the next connections of every part log in with
// it, without a restart.
func TestChangedPasswordFilesAreReadAtTheNextConnection(t *testing.T) {
	t.Parallel()
	v := newVault(t)
	passfile := func(source, feedback string) string {
		return v.write(t, "pgpass", "*:*:app:reader:"+source+"\n*:*:feedback:writer:"+feedback+"\n")
	}
	old := map[string]string{"source": v.right["source"].text, "feedback": v.right["feedback"].text}
	bare, _, _ := strings.Cut(v.env["TIFFIN_FEEDBACK_DSN"], " password=")
	authority := v.source.CAFile()
	p := v.launch(t, map[string]string{
		"TIFFIN_SOURCE_DSN":   "postgres://reader@" + v.source.Address() + "/app?sslmode=verify-full&sslrootcert=" + authority,
		"TIFFIN_FEEDBACK_DSN": bare, "PGPASSFILE": passfile(old["source"], old["feedback"]),
		"TIFFIN_KAFKA_SASL_PASSWORD": "", "TIFFIN_KAFKA_SASL_PASSWORD_FILE": v.write(t, "kafka-password", v.right["kafka"].text+"\n"),
	}, "tiffin", "run")
	d := &watched{vault: v, process: p}
	d.await(t, "msg=ready")

	d.refuse(t, v.sourceDB, "reader")
	passfile(v.wrong("renewed"), old["feedback"])
	d.tells(t, "/readyz", `{"ready":true`)
	d.refuse(t, v.feedbackDB, "writer")
	passfile(v.wrong("renewed"), v.wrong("renewed"))
	d.tells(t, "/readyz", `{"ready":true`)

	v.setKafkaPassword(t, "planted", v.wrong("renewed"))
	stopped(t, v.kafka.Stop)
	d.tells(t, "/readyz", `"ready":false`)
	if err := v.kafka.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	d.tells(t, "/readyz", "SASL_AUTHENTICATION_FAILED")
	v.write(t, "kafka-password", v.wrong("renewed")+"\n")
	d.tells(t, "/readyz", `{"ready":true`)

	v.publish(t)
	d.tells(t, "/metrics", "tiffin_deliveries_total 2")
	// The page connects by itself, to both sinks.
	d.tells(t, "/live/campaigns", `"records_sent":2`)
	d.scrape(t)
	v.look(t, "the daemon's log", []byte(p.log.String()))
}

// refuse changes a role's password and ends its sessions: every new one is refused.
func (d *watched) refuse(t *testing.T, db *devstacktest.Database, role string) {
	t.Helper()
	db.Exec(t, "ALTER ROLE "+role+" PASSWORD '"+d.wrong("renewed")+"'",
		"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '"+role+"'")
	d.tells(t, "/readyz", "password authentication failed")
}
