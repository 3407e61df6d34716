package devstack

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"
)

// An acknowledged record is there after a stop and after a kill of the broker, at the same address.
func TestKafkaKeepsRecordsOverStopAndKill(t *testing.T) {
	t.Parallel()
	k := startKafka(t, KafkaOptions{})
	client := newClient(t, kgo.SeedBrokers(k.Brokers()...), kgo.DefaultProduceTopic("kept"))
	createTopic(t, client, "kept")
	produce(t, client, "one")

	if err := k.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	if pid := k.PIDs()[0]; pid != 0 {
		t.Fatalf("the stopped broker has pid %d", pid)
	}
	restart(t, k)
	produce(t, client, "two")
	k.Kill()
	restart(t, k)
	produce(t, client, "three")
	if got := consume(t, k.Brokers(), "kept", 3); strings.Join(got, " ") != "one two three" {
		t.Fatalf("consumed %q", got)
	}
}

// Close leaves neither a process nor a file, also when the brokers run.
func TestKafkaLeavesNothingBehind(t *testing.T) {
	t.Parallel()
	parent := t.TempDir()
	k := startKafka(t, KafkaOptions{Dir: parent})
	pid := k.PIDs()[0]
	if err := k.Close(); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pid, 0); !errors.Is(err, syscall.ESRCH) {
		t.Fatalf("the broker (pid %d) is still there: %v", pid, err)
	}
	if left, _ := os.ReadDir(parent); len(left) != 0 {
		t.Fatalf("left behind: %v", left)
	}
	if err := k.Start(t.Context()); !errors.Is(err, ErrClosed) {
		t.Fatalf("start after close: %v, want ErrClosed", err)
	}
}

// Every mechanism lets the user in over TLS that is verified, none lets a wrong password in, and
// the mutual TLS listener demands the certificate.
func TestKafkaChecksWhoConnects(t *testing.T) {
	t.Parallel()
	k := startKafka(t, KafkaOptions{SASL: true})
	for name, mechanism := range map[string]func(password string) sasl.Mechanism{
		"SCRAM-SHA-512": func(p string) sasl.Mechanism {
			return scram.Auth{User: k.Username(), Pass: p}.AsSha512Mechanism()
		},
		"SCRAM-SHA-256": func(p string) sasl.Mechanism {
			return scram.Auth{User: k.Username(), Pass: p}.AsSha256Mechanism()
		},
		"PLAIN": func(p string) sasl.Mechanism { return plain.Auth{User: k.Username(), Pass: p}.AsMechanism() },
	} {
		secure := []kgo.Opt{kgo.SeedBrokers(k.Brokers()...), kgo.DialTLSConfig(trust(t, k.CAFile()))}
		right := newClient(t, append(secure, kgo.SASL(mechanism(k.Password())))...)
		if err := ping(t, right); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		wrong := newClient(t, append(secure, kgo.SASL(mechanism("wrong")))...)
		if err := ping(t, wrong); !errors.Is(err, kerr.SaslAuthenticationFailed) {
			t.Errorf("%s with a wrong password: %v", name, err)
		}
	}
	pair, err := tls.LoadX509KeyPair(k.ClientCertFile(), k.ClientKeyFile())
	if err != nil {
		t.Fatal(err)
	}
	config := trust(t, k.CAFile())
	if err := ping(t, newClient(t, kgo.SeedBrokers(k.MutualTLSBrokers()...), kgo.DialTLSConfig(config))); err == nil {
		t.Error("mutual TLS let a client without a certificate in")
	}
	config.Certificates = []tls.Certificate{pair}
	if err := ping(t, newClient(t, kgo.SeedBrokers(k.MutualTLSBrokers()...), kgo.DialTLSConfig(config))); err != nil {
		t.Errorf("mutual TLS: %v", err)
	}
	if err := ping(t, newClient(t, kgo.SeedBrokers(k.PlainBrokers()...))); err != nil {
		t.Errorf("plaintext: %v", err)
	}
}

// With three brokers, one may be killed: a topic with three replicas still takes acks=all.
func TestKafkaClusterSurvivesOneBroker(t *testing.T) {
	t.Parallel()
	k := startKafka(t, KafkaOptions{Brokers: 3, HeapMB: 256})
	client := newClient(t, kgo.SeedBrokers(k.Brokers()...), kgo.DefaultProduceTopic("replicated"))
	createTopic(t, client, "replicated")
	produce(t, client, "one")
	k.KillBroker(1)
	produce(t, client, "two")
	if err := k.StartBroker(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	if got := consume(t, k.Brokers()[1:2], "replicated", 2); strings.Join(got, " ") != "one two" {
		t.Fatalf("consumed %q", got)
	}
}

// A broker that cannot start says why.
func TestKafkaShowsWhyItDidNotStart(t *testing.T) {
	t.Parallel()
	skipWithoutKafka(t)
	_, err := StartKafka(t.Context(), KafkaOptions{Settings: map[string]string{"num.io.threads": "many"}})
	if err == nil || !strings.Contains(err.Error(), "Invalid value many for configuration num.io.threads") {
		t.Fatalf("error: %v", err)
	}
}

func startKafka(t *testing.T, options KafkaOptions) *Kafka {
	t.Helper()
	skipWithoutKafka(t)
	k, err := StartKafka(t.Context(), options)
	if errors.Is(err, ErrNoSASL) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := k.Close(); err != nil {
			t.Error(err)
		}
	})
	return k
}

// skipWithoutKafka skips on a machine that cannot run one, except in CI, where that is a failure.
func skipWithoutKafka(t *testing.T) {
	t.Helper()
	_, err := installKafka(t.Context(), kafkaVersion(""))
	if os.Getenv("CI") != "true" && (errors.Is(err, ErrNoJava) || errors.Is(err, ErrNoMaven)) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func restart(t *testing.T, k *Kafka) {
	t.Helper()
	if err := k.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func newClient(t *testing.T, options ...kgo.Opt) *kgo.Client {
	t.Helper()
	client, err := kgo.NewClient(options...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return client
}

func ping(t *testing.T, client *kgo.Client) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	return client.Ping(ctx)
}

func createTopic(t *testing.T, client *kgo.Client, topic string) {
	t.Helper()
	if _, err := kadm.NewClient(client).CreateTopic(t.Context(), 1, -1, nil, topic); err != nil {
		t.Fatal(err)
	}
}

func produce(t *testing.T, client *kgo.Client, value string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	if err := client.ProduceSync(ctx, kgo.StringRecord(value)).FirstErr(); err != nil {
		t.Fatalf("produce %q: %v", value, err)
	}
}

func consume(t *testing.T, brokers []string, topic string, n int) []string {
	t.Helper()
	client := newClient(t, kgo.SeedBrokers(brokers...), kgo.ConsumeTopics(topic))
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	var values []string
	for len(values) < n {
		fetches := client.PollFetches(ctx)
		if err := ctx.Err(); err != nil {
			t.Fatalf("consumed only %q of %d records: %v", values, n, err)
		}
		fetches.EachRecord(func(r *kgo.Record) { values = append(values, string(r.Value)) })
	}
	return values
}

func trust(t *testing.T, caFile string) *tls.Config {
	t.Helper()
	pem, err := os.ReadFile(caFile)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		t.Fatalf("no certificate in %s", caFile)
	}
	return &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
}

// A client that is given a detour's addresses talks to the brokers through the proxies alone.
func TestKafkaDetourLeadsThroughTheProxy(t *testing.T) {
	t.Parallel()
	k := startKafka(t, KafkaOptions{Detours: 2})
	way := k.Detour(1)[0]
	client := newClient(t, kgo.SeedBrokers(way.Advertised), kgo.DefaultProduceTopic("around"))
	if err := ping(t, client); err == nil {
		t.Fatal("the advertised address answers although no proxy is there")
	}
	proxied := relay(t, way)
	createTopic(t, client, "around")
	produce(t, client, "one")
	if n := proxied.Load(); n == 0 {
		t.Fatal("no connection went through the proxy")
	}
	if got := consume(t, k.Brokers(), "around", 1); strings.Join(got, " ") != "one" {
		t.Fatalf("consumed %q", got)
	}
}

// relay is the least of a proxy; it counts connections.
func relay(t *testing.T, way Detour) *atomic.Int64 {
	t.Helper()
	l, err := net.Listen("tcp", way.Advertised)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	var accepted atomic.Int64
	go func() {
		for {
			from, err := l.Accept()
			if err != nil {
				return
			}
			accepted.Add(1)
			to, err := net.Dial("tcp", way.Listener)
			if err != nil {
				_ = from.Close()
				continue
			}
			go func() { _, _ = io.Copy(to, from); _ = to.Close() }()
			go func() { _, _ = io.Copy(from, to); _ = from.Close() }()
		}
	}()
	return &accepted
}
