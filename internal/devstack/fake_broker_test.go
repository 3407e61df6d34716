package devstack

import (
	"net"
	"strconv"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"
)

// What is produced can be consumed, on the loopback address only, and after Close nothing listens.
func TestFakeBrokerTakesAndGives(t *testing.T) {
	t.Parallel()
	b, err := StartFakeBroker(t.Context(), FakeBrokerOptions{Topics: map[string]int32{"campaigns": 1}})
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(b.Brokers()[0], "127.0.0.1:") {
		t.Fatalf("listens on %s", b.Brokers())
	}
	client := newClient(t, kgo.SeedBrokers(b.Brokers()...), kgo.DefaultProduceTopic("campaigns"))
	produce(t, client, "one")
	if got := consume(t, b.Brokers(), "campaigns", 1); got[0] != "one" {
		t.Fatalf("consumed %q", got)
	}
	b.Close()
	_, port, err := net.SplitHostPort(b.Brokers()[0])
	if err != nil {
		t.Fatal(err)
	}
	number, err := strconv.Atoi(port)
	if err != nil {
		t.Fatal(err)
	}
	again, err := StartFakeBroker(t.Context(), FakeBrokerOptions{Port: number})
	if err != nil {
		t.Fatal(err)
	}
	again.Close()
}
