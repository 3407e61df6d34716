package devstack

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// broker is one process of a Kafka.
type broker struct {
	id    int // node.id, from 1
	dir   string
	ports listenerPorts
	proc  *process // nil while stopped
}

// listenerPorts are TCP ports of 127.0.0.1; sasl and mutual are 0 without SASL.
type listenerPorts struct {
	plain, controller, sasl, mutual int
	detours                         []Detour
}

// Detour is one of a broker's listeners that are reached through a proxy.
type Detour struct {
	Advertised string // HOST:PORT that clients are told, where the proxy is to listen
	Listener   string // HOST:PORT that the proxy is to lead to
}

// fork starts the process unless it runs.
func (b *broker) fork(ctx context.Context, install installation, options KafkaOptions) error {
	if b.proc.running() {
		return nil
	}
	heap := options.HeapMB
	if heap == 0 {
		heap = 512
	}
	args := []string{"-Xms" + strconv.Itoa(heap) + "m", "-Xmx" + strconv.Itoa(heap) + "m"}
	if options.Production {
		// KAFKA_JVM_PERFORMANCE_OPTS of kafka-run-class.sh.
		args = append(args, "-server", "-XX:+UseG1GC", "-XX:MaxGCPauseMillis=20", "-XX:InitiatingHeapOccupancyPercent=35",
			"-XX:+ExplicitGCInvokesConcurrent", "-XX:MaxInlineLevel=15", "-Djava.awt.headless=true")
	} else {
		args[0] = "-Xms64m"
		args = append(args, "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC")
	}
	args = append(args, install.flags()...)
	args = append(args, "kafka.Kafka", b.properties())
	proc, err := startProcess(ctx, command{
		name: "kafka broker " + strconv.Itoa(b.id), path: install.java, args: args,
		env: install.environment(), dir: b.dir, death: syscall.SIGKILL, log: options.Log,
	})
	if err != nil {
		return err
	}
	b.proc = proc
	return nil
}

// ping succeeds once the broker itself knows that it is a member of a cluster with a controller and so many
// brokers at least. Who else may listen at its port while it is down is another cluster.
func (b *broker) ping(ctx context.Context, cluster string, brokers int) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "tcp", loopback(b.ports.plain)) // most probes end here, cheaply
	if err != nil {
		return err
	}
	_ = conn.Close()
	client, err := kgo.NewClient(kgo.SeedBrokers(loopback(b.ports.plain)))
	if err != nil {
		return err
	}
	defer client.Close()
	metadata, err := kadm.NewClient(client).BrokerMetadata(ctx)
	if err != nil {
		return err
	}
	if cluster != "" && metadata.Cluster != cluster {
		return fmt.Errorf("at the port of broker %d there is one of cluster %s", b.id, metadata.Cluster)
	}
	for _, known := range metadata.Brokers {
		if int(known.NodeID) == b.id && metadata.Controller >= 0 && len(metadata.Brokers) >= brokers {
			return nil
		}
	}
	return fmt.Errorf("broker %d is not yet registered", b.id)
}

func (b *broker) stop(ctx context.Context) error {
	if b.proc == nil {
		return nil
	}
	err := b.proc.stop(ctx, syscall.SIGTERM)
	b.proc = nil
	return err
}

func (b *broker) kill() {
	if b.proc != nil {
		b.proc.kill()
		b.proc = nil
	}
}

// format makes the log directory as StorageTool would, from a checkpoint that it made once.
func (b *broker) format(first checkpoint, clusterID string) error {
	data := b.data()
	if err := os.MkdirAll(filepath.Dir(filepath.Join(data, first.path)), 0o700); err != nil {
		return fmt.Errorf("make the log directory of broker %d: %w", b.id, err)
	}
	meta := fmt.Sprintf("version=1\nnode.id=%d\ncluster.id=%s\ndirectory.id=%s\n", b.id, clusterID, kafkaUUID())
	return errors.Join(
		os.WriteFile(filepath.Join(data, "meta.properties"), []byte(meta), 0o600),
		os.WriteFile(filepath.Join(data, first.path), first.content, 0o600),
	)
}

func (b *broker) data() string       { return filepath.Join(b.dir, "data") }
func (b *broker) properties() string { return filepath.Join(b.dir, "server.properties") }
