package stream_test

import (
	"fmt"
	"strings"
	"testing"
)

// One client's messages come in the order in which they were published, over batches,
// transactions and producers in rotation.
func TestOneClientsMessagesKeepTheirOrder(t *testing.T) {
	t.Parallel()
	list := clients(20)
	r := newRig(t, 1, map[string][]string{"r": list})
	r.cfg.MaxTransactionRecords = 40 // two messages a batch
	const messages = 150
	var values [][]byte
	for i := range messages {
		values = append(values, campaign("r", fmt.Sprint(i)).json(t))
	}
	r.publish(0, values...)
	r.untilNow()
	seen := map[string]int{}
	for _, rec := range r.records(r.cfg.Kafka.Output) {
		client := string(rec.Key)
		if want := fmt.Sprintf("%s/0/%d", r.cfg.Kafka.Input, seen[client]); string(rec.Headers[0].Value) != want {
			t.Fatalf("client %s: message %s, want %s next", client, rec.Headers[0].Value, want)
		}
		if !strings.Contains(string(rec.Value), client) {
			t.Fatalf("record of %s is %s", client, rec.Value)
		}
		seen[client]++
	}
	for _, client := range list {
		if seen[client] != messages {
			t.Errorf("client %s: %d messages, want %d", client, seen[client], messages)
		}
	}
}
