package stream_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"example.com/tiffin/internal/devstack/devstacktest"
	"example.com/tiffin/stream"
)

// Every way to log in that the old job had, and mutual TLS, delivers exactly once.
func TestSecureConnectionsDeliver(t *testing.T) {
	t.Parallel()
	k := secureKafka(t)
	for _, mechanism := range []string{"SCRAM-SHA-512", "SCRAM-SHA-256", "PLAIN", ""} {
		t.Run("mechanism "+mechanism, func(t *testing.T) {
			t.Parallel()
			r := newRigOn(t, k, 1, map[string][]string{"r": clients(3)})
			r.cfg.Kafka.TLS = stream.TLSConfig{Enabled: true, CAFile: k.CAFile()}
			if mechanism == "" {
				r.cfg.Kafka.Brokers = k.MutualTLSBrokers()
				r.cfg.Kafka.TLS.CertFile, r.cfg.Kafka.TLS.KeyFile = k.ClientCertFile(), k.ClientKeyFile()
			} else {
				r.cfg.Kafka.Brokers = k.Brokers()
				r.cfg.Kafka.SASL = stream.SASLConfig{Mechanism: mechanism, Username: k.Username(), Password: k.Password()}
			}
			m := campaign("r", "x")
			r.publish(0, m.json(t))
			r.untilNow()
			var want []delivery
			for _, c := range clients(3) {
				want = append(want, r.expect(m, 0, 0, c))
			}
			r.cfg.Kafka.Brokers = k.PlainBrokers() // the checks below read in the clear
			r.wantBoth(want)
		})
	}
}

// What waiting cannot mend ends a start, and says what it is.
func TestHopelessStartsEndAndNameTheFault(t *testing.T) {
	t.Parallel()
	k := secureKafka(t)
	for _, c := range []struct {
		name   string
		change func(*stream.Config)
		want   []string
	}{
		{"wrong password", func(c *stream.Config) {
			c.Kafka.SASL = stream.SASLConfig{Mechanism: "SCRAM-SHA-512", Username: k.Username(), Password: "wrong"}
		}, []string{"SASL_AUTHENTICATION_FAILED", "fix:", "kafka.sasl.password"}},
		{"wrong password, PLAIN", func(c *stream.Config) {
			c.Kafka.SASL = stream.SASLConfig{Mechanism: "PLAIN", Username: k.Username(), Password: "wrong"}
		}, []string{"SASL_AUTHENTICATION_FAILED", "fix:", "kafka.sasl.password"}},
		{"untrusted certificate", func(c *stream.Config) { c.Kafka.TLS.CAFile = otherCA(t) }, []string{"certificate", "127.0.0.1", "kafka.tls.ca_file"}},
		{"no client certificate", func(c *stream.Config) {
			c.Kafka.Brokers, c.Kafka.SASL = k.MutualTLSBrokers(), stream.SASLConfig{}
		}, []string{"certificate", "kafka.tls.cert_file"}},
		{"no TLS at a TLS port", func(c *stream.Config) { c.Kafka.TLS = stream.TLSConfig{} }, []string{"only TLS", "fix:", "kafka.tls.enabled"}},
		{"neither TLS nor login at a TLS port", func(c *stream.Config) {
			c.Kafka.TLS, c.Kafka.SASL = stream.TLSConfig{}, stream.SASLConfig{}
		}, []string{"only TLS", "fix:", "kafka.tls.enabled"}},
		{"TLS at a plain port", func(c *stream.Config) { c.Kafka.Brokers = k.PlainBrokers() }, []string{"no TLS", "fix:", "kafka.tls.enabled"}},
		{"no login at a port that wants one", func(c *stream.Config) { c.Kafka.SASL = stream.SASLConfig{} }, []string{"wants a login", "SCRAM-SHA-512", "fix:", "kafka.sasl.mechanism"}},
		{"login at a port that wants none", func(c *stream.Config) {
			c.Kafka.Brokers, c.Kafka.TLS = k.PlainBrokers(), stream.TLSConfig{}
		}, []string{"ILLEGAL_SASL_STATE", "fix:", "kafka.sasl.mechanism"}},
		{"brokers that allow no transaction as long as ours", func(c *stream.Config) {
			c.Kafka.TransactionTimeout = time.Hour
		}, []string{"INVALID_TRANSACTION_TIMEOUT", "fix:", "transaction.max.timeout.ms"}},
		{"CA file missing", func(c *stream.Config) { c.Kafka.TLS.CAFile = "/nowhere/ca.pem" }, []string{"/nowhere/ca.pem"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r := newRigOn(t, k, 1, nil)
			r.cfg.Kafka.Brokers = k.Brokers()
			r.cfg.Kafka.TLS = stream.TLSConfig{Enabled: true, CAFile: k.CAFile()}
			r.cfg.Kafka.SASL = stream.SASLConfig{Mechanism: "SCRAM-SHA-512", Username: k.Username(), Password: k.Password()}
			c.change(&r.cfg)
			err := r.tryUntilNow()
			if err == nil || !stream.IsPermanent(err) {
				t.Fatalf("error %v: want a permanent one", err)
			}
			for _, word := range c.want {
				if !strings.Contains(err.Error(), word) {
					t.Errorf("error %q: want it to say %q", err, word)
				}
			}
		})
	}
}

// otherCA is a certificate that the broker's does not descend from.
func otherCA(t *testing.T) string {
	t.Helper()
	certificate, _ := selfSigned(t)
	file := filepath.Join(t.TempDir(), "other.crt")
	if err := os.WriteFile(file, certificate, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// What may pass is waited for, and named within 30 s.
func TestAbsentServersAreNamedAndAwaited(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		change func(*rig)
		want   []string
	}{
		{"no broker", func(r *rig) { r.cfg.Kafka.Brokers = []string{"127.0.0.1:1"} }, []string{"kafka", "127.0.0.1:1", "refused", "kafka.brokers"}},
		{"no database", func(r *rig) { r.cfg.FeedbackDSN = "postgres://tiffin@127.0.0.1:1/x" }, []string{"feedback database", "127.0.0.1", "refused", "feedback.dsn"}},
		{"no topic", func(r *rig) { r.cfg.Kafka.Output = "no.such.topic" }, []string{"no.such.topic", "create it"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, 1, nil)
			c.change(r)
			e, stop := r.start()
			r.eventually("the reason", func() bool {
				why := strings.Join(e.Reasons(), "; ")
				for _, word := range c.want {
					if !strings.Contains(why, word) {
						return false
					}
				}
				return true
			})
			if err := stop(); err != nil {
				t.Errorf("stopped with %v: want a clean end", err)
			}
		})
	}
}

// The output topic is missing at the start: once somebody has made it, the same process delivers.
func TestMissingOutputTopicIsAwaited(t *testing.T) {
	t.Parallel()
	r := newRig(t, 1, map[string][]string{"r": clients(3)})
	r.cfg.Kafka.Output = servers.Unique(t, "late")
	m := campaign("r", "x")
	offset := r.publish(0, m.json(t))
	e, stop := r.start()
	r.eventually("the reason", func() bool {
		return containsAll(strings.Join(e.Reasons(), "; "), []string{r.cfg.Kafka.Output, "create it"})
	})
	if n := r.rowCount(); n != 0 {
		t.Errorf("%d rows whose records have no topic", n)
	}
	devstacktest.CreateTopic(t, r.cfg.Kafka.Brokers, r.cfg.Kafka.Output, 2, nil)
	r.eventuallyOr("the delivery", func() bool { return r.rowCount() == 3 && r.groupOffset(0) == offset+1 }, func() string { return strings.Join(e.Reasons(), "; ") })
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	var want []delivery
	for _, c := range clients(3) {
		want = append(want, r.expect(m, 0, offset, c))
	}
	r.wantBoth(want)
}

// A missing column is named at the start.
func TestUnfitFeedbackTableIsNamed(t *testing.T) {
	t.Parallel()
	r := newRig(t, 1, nil)
	r.cfg.Prepare = nil
	r.db.Exec(t, `CREATE TABLE subscribers_feedback (id bigserial PRIMARY KEY, restaurant_id text NOT NULL)`)
	err := r.tryUntilNow()
	var pg *pgconn.PgError
	if !errors.As(err, &pg) || !stream.IsPermanent(err) || !strings.Contains(err.Error(), "subscribers_feedback") {
		t.Fatalf("error %v: want one that names the table and is permanent", err)
	}
}
