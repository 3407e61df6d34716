package devstacktest

import (
	"errors"
	"os"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"example.com/tiffin/internal/devstack"
)

// Kafka is the shared server. On a machine without Java or Maven the test is skipped and says so;
// with CI=true that is a failure. A test that stops, kills or configures a broker must start its
// own by StartKafka instead.
func (s *Servers) Kafka(tb testing.TB) *devstack.Kafka {
	tb.Helper()
	server, err := s.kafka.get(func() (*devstack.Kafka, error) {
		return devstack.StartKafka(tb.Context(), s.KafkaOptions)
	})
	orSkip(tb, err)
	return server
}

// StartKafka starts a Kafka for this test alone and closes it at the test's end; where there can be
// none it skips as Servers.Kafka does.
func StartKafka(tb testing.TB, options devstack.KafkaOptions) *devstack.Kafka {
	tb.Helper()
	server, err := devstack.StartKafka(tb.Context(), options)
	orSkip(tb, err)
	tb.Cleanup(func() {
		if err := server.Close(); err != nil {
			tb.Errorf("clean up: %v", err)
		}
	})
	return server
}

// Topic makes a topic for this test on the shared Kafka and returns its unique name.
func (s *Servers) Topic(tb testing.TB, prefix string, partitions int32) string {
	tb.Helper()
	name := s.Unique(tb, prefix)
	CreateTopic(tb, s.Kafka(tb).PlainBrokers(), name, partitions, nil)
	return name
}

// CreateTopic makes a topic with as many replicas as the brokers' default says. The settings are of
// the topic; nil: the broker's.
func CreateTopic(tb testing.TB, brokers []string, name string, partitions int32, settings map[string]*string) {
	tb.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(brokers...))
	if err != nil {
		tb.Fatal(err)
	}
	defer client.Close()
	if _, err := kadm.NewClient(client).CreateTopic(tb.Context(), partitions, -1, settings, name); err != nil {
		tb.Fatalf("create topic %s: %v", name, err)
	}
}

func orSkip(tb testing.TB, err error) {
	tb.Helper()
	lacking := errors.Is(err, devstack.ErrNoJava) || errors.Is(err, devstack.ErrNoMaven)
	if errors.Is(err, devstack.ErrNoSASL) {
		tb.Skip(err)
	}
	if lacking && os.Getenv("CI") != "true" {
		tb.Skipf("needs a real Kafka: %v", err)
	}
	if err != nil {
		tb.Fatal(err)
	}
}
