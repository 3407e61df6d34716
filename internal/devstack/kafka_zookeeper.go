package devstack

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// ErrNoSASL says that KafkaOptions.SASL was asked of an older Kafka; compare with errors.Is.
var ErrNoSASL = errors.New("certificates whose PEM file has no password are read from 3.0 on only")

// zooKeeper is the one that brokers older than 3.5 keep their cluster in.
type zooKeeper struct {
	dir  string
	port int
	proc *process // nil before the first start
}

// before reports whether a version of Kafka is older than major.minor.
func (i installation) before(major, minor int) bool {
	x, rest, _ := strings.Cut(i.version, ".")
	y, _, _ := strings.Cut(rest, ".")
	m, errMajor := strconv.Atoi(x)
	n, errMinor := strconv.Atoi(y)
	return errors.Join(errMajor, errMinor) == nil && (m < major || m == major && n < minor)
}

// needsZooKeeper reports whether the version is older than the StorageTool that makes SCRAM users (KIP-900).
func (i installation) needsZooKeeper() bool { return i.before(3, 5) }

func (i installation) servesSASL() bool { return !i.before(3, 0) }

// start starts the server unless it runs, and waits until it listens.
func (z *zooKeeper) start(ctx context.Context, install installation) error {
	if z.proc.running() {
		return nil
	}
	properties := filepath.Join(z.dir, "zoo.cfg")
	settings := propertiesFile(map[string]string{
		"dataDir": filepath.Join(z.dir, "data"), "clientPort": strconv.Itoa(z.port), "clientPortAddress": "127.0.0.1",
		"tickTime":           "500", // twice that is the shortest session
		"admin.enableServer": "false", "maxClientCnxns": "0",
	})
	if err := errors.Join(os.MkdirAll(z.dir, 0o700), os.WriteFile(properties, settings, 0o600)); err != nil {
		return fmt.Errorf("write the settings of zookeeper: %w", err)
	}
	proc, err := startProcess(ctx, command{
		name: "zookeeper", path: install.java, args: append(install.small(), "org.apache.zookeeper.server.quorum.QuorumPeerMain", properties),
		env: install.environment(), dir: z.dir, death: syscall.SIGKILL,
	})
	if err != nil {
		return err
	}
	z.proc = proc
	return proc.waitReady(ctx, func(ctx context.Context) error {
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", loopback(z.port))
		if err != nil {
			return err
		}
		return conn.Close()
	})
}

// addUsers makes the SCRAM users of the cluster, before any broker runs.
func (z *zooKeeper) addUsers(ctx context.Context, install installation, name, password string) error {
	secret := "=[password=" + password + "]"
	return runToEnd(ctx, command{
		name: "kafka's tool for users", path: install.java, env: install.environment(), dir: z.dir, death: syscall.SIGKILL,
		args: append(install.small(), "kafka.admin.ConfigCommand", "--zookeeper", loopback(z.port), "--alter", "--entity-type", "users", "--entity-name", name,
			"--add-config", "SCRAM-SHA-512"+secret+",SCRAM-SHA-256"+secret),
	})
}

func (z *zooKeeper) kill() {
	if z != nil && z.proc != nil {
		z.proc.kill()
	}
}

// settings are those of a broker of KRaft, turned into those of one that keeps its cluster in ZooKeeper.
func (z *zooKeeper) settings(kraft map[string]string) map[string]string {
	settings := map[string]string{
		"broker.id":                       kraft["node.id"],
		"zookeeper.connect":               loopback(z.port),
		"zookeeper.session.timeout.ms":    "3000", // a killed broker may register again only after its session's end
		"zookeeper.connection.timeout.ms": "20000",
	}
	for name, value := range kraft {
		if name != "process.roles" && name != "node.id" && !strings.HasPrefix(name, "controller.") {
			settings[name] = value
		}
	}
	before, after, _ := strings.Cut(settings["listeners"], ",CONTROLLER://")
	_, others, more := strings.Cut(after, ",")
	if settings["listeners"] = before; more {
		settings["listeners"] += "," + others
	}
	return settings
}
