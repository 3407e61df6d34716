package devstack

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// kafkaStartLimit bounds the start of all brokers on a machine that does a lot besides; 3 s is usual.
const kafkaStartLimit = 120 * time.Second

// KafkaOptions describe a throwaway Apache Kafka. The zero value is one plaintext broker.
type KafkaOptions struct {
	Dir     string // the servers' directory is made below it; empty: the system's for temporary files
	Version string // from 2.4 on; empty: KAFKA_VERSION of the environment, else KafkaVersion
	Brokers int    // 1 to 9, each also a controller; 0: 1. Internal topics have min(3, Brokers) replicas
	// SASL adds two listeners to the plaintext one: SASL_SSL with SCRAM-SHA-512, SCRAM-SHA-256 and
	// PLAIN for Username and Password, and SSL that demands a client certificate. From Kafka 3.0 on (KafkaServesSASL).
	SASL bool
	// Detours are further plaintext listeners of every broker, each of which tells clients an address
	// where nobody listens yet: the caller puts a proxy there that leads to it (see Kafka.Detour).
	Detours int
	// Production runs the JVM as Kafka's own scripts do (G1, both compilers), for benchmarks. Otherwise
	// it is tuned to start quickly.
	Production bool
	HeapMB     int               // of each broker, MiB; 0: 512
	Settings   map[string]string // of server.properties; they win over the defaults
	// Properties, if any, are the whole of server.properties but for log.dirs, in place of defaults and
	// Settings: somebody's file, of whose ports {plain} and {controller} are to be the broker's.
	Properties map[string]string
	Log        io.Writer // warnings of the brokers, written from other goroutines; nil: only the tail is kept, for errors
}

// Kafka is a running Apache Kafka of its own, with KRaft, or a ZooKeeper before 3.5. Topics are not created by use unless
// Settings say so. Its methods may be called from several goroutines.
type Kafka struct {
	dir     string
	options KafkaOptions
	install installation
	brokers []*broker
	// clusterID is what the brokers say of themselves; empty: they choose it.
	clusterID string
	zooKeeper *zooKeeper // nil: the brokers are controllers themselves

	mu     sync.Mutex // serialises starts and stops
	closed bool
}

// StartKafka starts the brokers and waits until each of them answers. The first start on a machine
// downloads Kafka (54 MB) with Maven to the user's cache. Without Java or Maven the error is
// ErrNoJava or ErrNoMaven. ctx bounds the start, not the servers' life: that ends with Close, which
// the caller must call.
func StartKafka(ctx context.Context, options KafkaOptions) (*Kafka, error) {
	options.Brokers = max(options.Brokers, 1)
	if options.Brokers > 9 {
		return nil, fmt.Errorf("start kafka: %d brokers asked for, 9 is the most", options.Brokers)
	}
	install, err := installKafka(ctx, kafkaVersion(options.Version))
	if err != nil {
		return nil, err
	}
	dir, err := newDirectory(options.Dir, "kafka", nil) // Kafka runs as root as well as anyone
	if err != nil {
		return nil, err
	}
	k := &Kafka{dir: dir, options: options, install: install}
	if err := k.create(ctx); err != nil {
		return nil, errors.Join(err, k.Close())
	}
	if err := k.Start(ctx); err != nil {
		return nil, errors.Join(err, k.Close())
	}
	return k, nil
}

// Start starts the brokers that do not run, on the same ports and data, and waits until all answer.
func (k *Kafka) Start(ctx context.Context) error { return k.start(ctx, k.brokers) }

// StartBroker does the same for one broker, counted from 0.
func (k *Kafka) StartBroker(ctx context.Context, n int) error {
	return k.start(ctx, k.brokers[n:n+1])
}

// start forks all before it waits for the first: a controller needs a majority to answer.
func (k *Kafka) start(ctx context.Context, brokers []*broker) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.closed {
		return fmt.Errorf("start kafka: %w", ErrClosed)
	}
	ctx, cancel := context.WithTimeout(ctx, kafkaStartLimit)
	defer cancel()
	if k.zooKeeper != nil {
		if err := k.zooKeeper.start(ctx, k.install); err != nil {
			return err
		}
	}
	for _, b := range brokers {
		if err := b.fork(ctx, k.install, k.options); err != nil {
			return err
		}
	}
	known := 1
	if k.zooKeeper != nil { // whose brokers hear of each other later
		known = k.running()
	}
	for _, b := range brokers {
		if err := b.proc.waitReady(ctx, func(ctx context.Context) error { return b.ping(ctx, k.clusterID, known) }); err != nil {
			return err
		}
	}
	return k.Gone()
}

// Gone is an error that tells of the brokers that ended by themselves, with what they wrote last; nil if there are
// none. Call it while nobody starts or stops any.
func (k *Kafka) Gone() (err error) {
	for _, b := range k.brokers {
		if b.proc != nil && !b.proc.running() {
			err = errors.Join(err, b.proc.ended())
		}
	}
	return err
}

func (k *Kafka) running() (n int) {
	for _, b := range k.brokers {
		if b.proc.running() {
			n++
		}
	}
	return n
}

// Stop stops all brokers in order (SIGTERM) and waits until they are gone; Start may follow. A
// broker that has not stopped when ctx is done is killed, and the error says so.
func (k *Kafka) Stop(ctx context.Context) error { return k.stop(ctx, k.brokers) }

// StopBroker does the same for one broker, counted from 0.
func (k *Kafka) StopBroker(ctx context.Context, n int) error {
	return k.stop(ctx, k.brokers[n:n+1])
}

// stop stops the brokers at the same time: the last of a quorum cannot hand anything over and would
// wait for the others.
func (k *Kafka) stop(ctx context.Context, brokers []*broker) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	faults := make([]error, len(brokers))
	var wg sync.WaitGroup
	for i, b := range brokers {
		wg.Go(func() { faults[i] = b.stop(ctx) })
	}
	wg.Wait()
	return errors.Join(faults...)
}

// Kill ends all brokers by SIGKILL and waits until they are gone. Start may follow.
func (k *Kafka) Kill() {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, b := range k.brokers {
		b.kill()
	}
}

// KillBroker does the same for one broker, counted from 0.
func (k *Kafka) KillBroker(n int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.brokers[n].kill()
}

// Close kills the brokers and removes everything they wrote. It may be called more than once.
func (k *Kafka) Close() error {
	k.Kill() // nothing is kept: no orderly stop is needed
	k.mu.Lock()
	defer k.mu.Unlock()
	k.closed = true
	k.zooKeeper.kill()
	if err := os.RemoveAll(k.dir); err != nil {
		return fmt.Errorf("remove the kafka directory: %w", err)
	}
	return nil
}

// Brokers are the addresses that a client is to be given: the SASL_SSL listeners if there are any,
// the plaintext ones otherwise. They stay the same over restarts.
func (k *Kafka) Brokers() []string {
	if k.options.SASL {
		return k.addresses(func(b *broker) int { return b.ports.sasl })
	}
	return k.PlainBrokers()
}

// PlainBrokers are the addresses of the plaintext listeners, which are always there.
func (k *Kafka) PlainBrokers() []string {
	return k.addresses(func(b *broker) int { return b.ports.plain })
}

// MutualTLSBrokers are the addresses of the listeners that demand a client certificate; nil without
// SASL.
func (k *Kafka) MutualTLSBrokers() []string {
	if !k.options.SASL {
		return nil
	}
	return k.addresses(func(b *broker) int { return b.ports.mutual })
}

func (k *Kafka) addresses(port func(*broker) int) []string {
	var list []string
	for _, b := range k.brokers {
		list = append(list, loopback(port(b)))
	}
	return list
}

// Detour is the n-th listener of every broker, counted from 0, that is reached through a proxy. A
// client that is given only the advertised addresses of one n stays on these.
func (k *Kafka) Detour(n int) []Detour {
	var list []Detour
	for _, b := range k.brokers {
		list = append(list, b.ports.detours[n])
	}
	return list
}

// PIDs are the process ids of the brokers, 0 for one that is stopped.
func (k *Kafka) PIDs() []int {
	k.mu.Lock()
	defer k.mu.Unlock()
	var list []int
	for _, b := range k.brokers {
		pid := 0
		if b.proc != nil {
			pid = b.proc.pid()
		}
		list = append(list, pid)
	}
	return list
}

// Username is the only user of the SASL listeners, for all mechanisms.
func (k *Kafka) Username() string { return "tiffin" }

// Password is that user's.
func (k *Kafka) Password() string { return "correct-horse" }

// CAFile is the authority that signed the brokers' certificates and whose clients they trust.
func (k *Kafka) CAFile() string { return filepath.Join(k.dir, "ca.crt") }

// ClientCertFile is a certificate that MutualTLSBrokers accept.
func (k *Kafka) ClientCertFile() string { return filepath.Join(k.dir, "client.crt") }

// ClientKeyFile is the key of ClientCertFile.
func (k *Kafka) ClientKeyFile() string { return filepath.Join(k.dir, "client.key") }
