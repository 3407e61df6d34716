package devstack

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// create makes certificates, configuration and log directories of all brokers.
func (k *Kafka) create(ctx context.Context) error {
	if k.options.SASL {
		if err := k.writeCertificates(); err != nil {
			return err
		}
	}
	each := 4 + 2*k.options.Detours // ports of a broker
	ports, err := freePorts(ctx, each*k.options.Brokers)
	if err != nil {
		return err
	}
	for i := range k.options.Brokers {
		p := ports[i*each:]
		b := &broker{id: i + 1, dir: filepath.Join(k.dir, "broker-"+strconv.Itoa(i+1))}
		b.ports = listenerPorts{plain: p[0], controller: p[1]}
		if k.options.SASL {
			b.ports.sasl, b.ports.mutual = p[2], p[3]
		}
		for n := range k.options.Detours {
			b.ports.detours = append(b.ports.detours, Detour{Advertised: loopback(p[4+2*n]), Listener: loopback(p[5+2*n])})
		}
		k.brokers = append(k.brokers, b)
	}
	if k.install.needsZooKeeper() {
		return k.createOlder(ctx)
	}
	checkpoint, err := k.install.bootstrap(ctx, k.dir, k.scramUsers())
	if err != nil {
		return err
	}
	k.clusterID = kafkaUUID()
	for _, b := range k.brokers {
		if err := b.format(checkpoint, k.clusterID); err != nil {
			return err
		}
		if err := os.WriteFile(b.properties(), propertiesFile(k.settings(b)), 0o600); err != nil {
			return fmt.Errorf("write the settings of broker %d: %w", b.id, err)
		}
	}
	return nil
}

// createOlder makes the configuration of brokers that make their log directories by themselves, and the users.
func (k *Kafka) createOlder(ctx context.Context) error {
	if k.options.SASL && !k.install.servesSASL() {
		return fmt.Errorf("kafka %s: %w", k.install.version, ErrNoSASL)
	}
	k.zooKeeper = &zooKeeper{dir: filepath.Join(k.dir, "zookeeper"), port: k.brokers[0].ports.controller}
	for _, b := range k.brokers {
		err := errors.Join(os.MkdirAll(b.data(), 0o700), os.WriteFile(b.properties(), propertiesFile(k.zooKeeper.settings(k.settings(b))), 0o600))
		if err != nil {
			return fmt.Errorf("write the settings of broker %d: %w", b.id, err)
		}
	}
	if !k.options.SASL {
		return nil
	}
	if err := k.zooKeeper.start(ctx, k.install); err != nil {
		return err
	}
	return k.zooKeeper.addUsers(ctx, k.install, k.Username(), k.Password())
}

// settings of one broker.
func (k *Kafka) settings(b *broker) map[string]string {
	if k.options.Properties != nil {
		return b.foreign(k.options.Properties)
	}
	replicas := strconv.Itoa(min(3, k.options.Brokers))
	inSync := strconv.Itoa(min(2, k.options.Brokers))
	var voters []string
	for _, other := range k.brokers {
		voters = append(voters, fmt.Sprintf("%d@%s", other.id, loopback(other.ports.controller)))
	}
	settings := map[string]string{
		"process.roles":                                    "broker,controller",
		"node.id":                                          strconv.Itoa(b.id),
		"controller.quorum.voters":                         strings.Join(voters, ","),
		"controller.listener.names":                        "CONTROLLER",
		"inter.broker.listener.name":                       "PLAINTEXT",
		"listeners":                                        fmt.Sprintf("PLAINTEXT://%s,CONTROLLER://%s", loopback(b.ports.plain), loopback(b.ports.controller)),
		"listener.security.protocol.map":                   "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SASL:SASL_SSL,MUTUAL:SSL",
		"log.dirs":                                         b.data(),
		"auto.create.topics.enable":                        "false",
		"default.replication.factor":                       replicas,
		"min.insync.replicas":                              inSync,
		"offsets.topic.num.partitions":                     "1", // each is created at the first use, which waits for it
		"offsets.topic.replication.factor":                 replicas,
		"transaction.state.log.num.partitions":             "3",
		"transaction.state.log.replication.factor":         replicas,
		"transaction.state.log.min.isr":                    inSync,
		"share.coordinator.state.topic.num.partitions":     "1",
		"share.coordinator.state.topic.replication.factor": replicas,
		"share.coordinator.state.topic.min.isr":            inSync,
		"group.initial.rebalance.delay.ms":                 "0",
		"group.min.session.timeout.ms":                     "1000", // tests wait for a dead member's time-out
	}
	if !k.options.Production {
		// A killed broker may register again only after its session's end: 9 s by default.
		settings["broker.session.timeout.ms"] = "3000"
		settings["broker.heartbeat.interval.ms"] = "500"
	}
	if k.options.SASL {
		maps.Copy(settings, k.securitySettings(b))
	}
	if k.options.Detours > 0 {
		b.addDetours(settings)
	}
	maps.Copy(settings, k.options.Settings)
	return settings
}

// foreign are somebody's properties with this broker's ports and directory.
func (b *broker) foreign(properties map[string]string) map[string]string {
	here := strings.NewReplacer("{plain}", strconv.Itoa(b.ports.plain), "{controller}", strconv.Itoa(b.ports.controller))
	settings := map[string]string{}
	for name, value := range properties {
		settings[name] = here.Replace(value)
	}
	settings["log.dirs"] = b.data()
	return settings
}

// addDetours names listeners that tell clients another address than their own.
func (b *broker) addDetours(settings map[string]string) {
	advertised, _, _ := strings.Cut(settings["listeners"], ",CONTROLLER://")
	if _, secure, ok := strings.Cut(settings["listeners"], ",SASL://"); ok {
		advertised += ",SASL://" + secure
	}
	for n, d := range b.ports.detours {
		name := "DETOUR" + strconv.Itoa(n)
		settings["listeners"] += fmt.Sprintf(",%s://%s", name, d.Listener)
		settings["listener.security.protocol.map"] += fmt.Sprintf(",%s:PLAINTEXT", name)
		advertised += fmt.Sprintf(",%s://%s", name, d.Advertised)
	}
	settings["advertised.listeners"] = advertised
}

func (k *Kafka) securitySettings(b *broker) map[string]string {
	scram := "org.apache.kafka.common.security.scram.ScramLoginModule required;"
	return map[string]string{
		"listeners": fmt.Sprintf("PLAINTEXT://%s,CONTROLLER://%s,SASL://%s,MUTUAL://%s",
			loopback(b.ports.plain), loopback(b.ports.controller), loopback(b.ports.sasl), loopback(b.ports.mutual)),
		"sasl.enabled.mechanisms":                           "SCRAM-SHA-512,SCRAM-SHA-256,PLAIN",
		"listener.name.sasl.scram-sha-512.sasl.jaas.config": scram,
		"listener.name.sasl.scram-sha-256.sasl.jaas.config": scram,
		"listener.name.sasl.plain.sasl.jaas.config":         fmt.Sprintf("org.apache.kafka.common.security.plain.PlainLoginModule required user_%s=%q;", k.Username(), k.Password()),
		"ssl.keystore.type":                                 "PEM",
		"ssl.keystore.location":                             filepath.Join(k.dir, "server.pem"),
		"ssl.truststore.type":                               "PEM",
		"ssl.truststore.location":                           k.CAFile(),
		"listener.name.mutual.ssl.client.auth":              "required",
	}
}

func (k *Kafka) scramUsers() []string {
	if !k.options.SASL {
		return nil
	}
	var users []string
	for _, mechanism := range []string{"SCRAM-SHA-512", "SCRAM-SHA-256"} {
		users = append(users, fmt.Sprintf("%s=[name=%s,password=%s]", mechanism, k.Username(), k.Password()))
	}
	return users
}

func (k *Kafka) writeCertificates() error {
	now := time.Now()
	ca, err := newAuthority(now)
	if err != nil {
		return err
	}
	server, err := ca.issue("kafka", now)
	if err != nil {
		return err
	}
	client, err := ca.issue("client", now)
	if err != nil {
		return err
	}
	store := slices.Concat(server.key, server.certificate) // Kafka wants both in one file
	return errors.Join(client.write(k.dir, "client"),
		os.WriteFile(filepath.Join(k.dir, "server.pem"), store, 0o600),
		os.WriteFile(k.CAFile(), ca.pem, 0o644))
}

// propertiesFile is a Java properties file; its escape character is the backslash.
func propertiesFile(settings map[string]string) []byte {
	var b []byte
	for _, key := range slices.Sorted(maps.Keys(settings)) {
		b = fmt.Appendf(b, "%s=%s\n", key, strings.ReplaceAll(settings[key], `\`, `\\`))
	}
	return b
}

// kafkaUUID is 16 random bytes as Kafka writes them (org.apache.kafka.common.Uuid), which may not
// begin with a dash.
func kafkaUUID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails, see crypto/rand
	b[0] &= 0x7f           // the dash is the letter 62 = 0b111110
	return base64.RawURLEncoding.EncodeToString(b[:])
}
