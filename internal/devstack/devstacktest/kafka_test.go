package devstacktest

import (
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"
)

// Tests of one binary share the broker, not the topics.
func TestTopicsAreOfOneTest(t *testing.T) {
	t.Parallel()
	first, second := servers.Topic(t, "in", 1), servers.Topic(t, "in", 1)
	if first == second {
		t.Fatalf("both topics are %s", first)
	}
	client, err := kgo.NewClient(kgo.SeedBrokers(servers.Kafka(t).Brokers()...))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	for _, topic := range []string{first, second} {
		if err := client.ProduceSync(t.Context(), &kgo.Record{Topic: topic}).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
}
