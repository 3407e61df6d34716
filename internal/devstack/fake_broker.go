package devstack

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// FakeBrokerOptions describe an in-process broker. The zero value listens on a free port and has no
// topics.
type FakeBrokerOptions struct {
	Port   int              // on 127.0.0.1; 0: any free one
	Topics map[string]int32 // name -> partitions
}

// FakeBroker is franz-go's in-memory broker in this process: enough of Kafka for consumer groups and
// transactions, and for kcat to talk to, but no evidence about a real broker. It has no goroutines
// of the caller's; its methods may be called from several at once.
type FakeBroker struct {
	cluster   *kfake.Cluster
	addresses []string // asked of a closed cluster, ListenAddrs would wait for ever
}

// StartFakeBroker listens and returns. Close ends it and all that it held.
func StartFakeBroker(ctx context.Context, options FakeBrokerOptions) (*FakeBroker, error) {
	port := options.Port
	if port == 0 {
		ports, err := freePorts(ctx, 1)
		if err != nil {
			return nil, err
		}
		port = ports[0]
	}
	cluster, err := kfake.NewCluster(
		kfake.NumBrokers(1),
		kfake.Ports(port),
		kfake.ListenFn(func(network, address string) (net.Listener, error) {
			var config net.ListenConfig
			return config.Listen(ctx, network, address)
		}),
	)
	if err != nil {
		return nil, fmt.Errorf("start the in-process broker on %s: %w", loopback(port), err)
	}
	b := &FakeBroker{cluster: cluster, addresses: cluster.ListenAddrs()}
	if err := b.createTopics(ctx, options); err != nil {
		b.Close()
		return nil, err
	}
	return b, nil
}

// Brokers is its one address.
func (b *FakeBroker) Brokers() []string { return slices.Clone(b.addresses) }

// HoldCommits keeps every transaction open that a client wants to end, until it is released: the
// moment between the commit of another sink and this one's, for as long as a test needs.
func (b *FakeBroker) HoldCommits() (release func()) {
	open := make(chan struct{})
	b.cluster.ControlKey(int16(kmsg.EndTxn), func(kmsg.Request) (kmsg.Response, error, bool) {
		b.cluster.SleepControl(func() { <-open })
		return nil, nil, false
	})
	return sync.OnceFunc(func() { close(open) })
}

// Close ends all connections; clients see a broker that is gone.
func (b *FakeBroker) Close() { b.cluster.Close() }

func (b *FakeBroker) createTopics(ctx context.Context, options FakeBrokerOptions) error {
	client, err := kgo.NewClient(kgo.SeedBrokers(b.Brokers()...))
	if err != nil {
		return fmt.Errorf("connect to the in-process broker: %w", err)
	}
	defer client.Close()
	var faults []error
	for topic, partitions := range options.Topics {
		if _, err := kadm.NewClient(client).CreateTopic(ctx, partitions, 1, nil, topic); err != nil {
			faults = append(faults, fmt.Errorf("create topic %s on the in-process broker: %w", topic, err))
		}
	}
	return errors.Join(faults...)
}
