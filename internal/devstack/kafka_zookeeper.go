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

// ErrNoSASL says that an older Kafka than the tests of logins want was asked for; compare with errors.Is.
var ErrNoSASL = errors.New("users for SASL are made from 3.5 on only")

// zooKeeper is the one that brokers older than 3.5 keep their cluster in.
type zooKeeper struct {
	dir  string
	port int
	proc *process // nil before the first start
}

// needsZooKeeper reports whether a version of Kafka is older than the StorageTool that StartKafka relies on.
func needsZooKeeper(version string) bool {
	major, rest, _ := strings.Cut(version, ".")
	minor, _, _ := strings.Cut(rest, ".")
	x, errMajor := strconv.Atoi(major)
	y, errMinor := strconv.Atoi(minor)
	return errors.Join(errMajor, errMinor) == nil && (x < 3 || x == 3 && y < 5)
}

// start starts the server unless it runs, and waits until it listens.
func (z *zooKeeper) start(ctx context.Context, install installation) error {
	if z.proc != nil && z.proc.running() {
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
	args := append([]string{"-Xmx128m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC"}, install.flags()...)
	proc, err := startProcess(ctx, command{
		name: "zookeeper", path: install.java, args: append(args, "org.apache.zookeeper.server.quorum.QuorumPeerMain", properties),
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
