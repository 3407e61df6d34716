package devstack

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
)

// KafkaVersion is the Apache Kafka that StartKafka runs where neither its options nor KAFKA_VERSION in the
// environment name another.
const KafkaVersion = "4.1.0"

// checkpoint is the file of a formatted log directory that holds the cluster's first records: feature
// levels and SCRAM users.
type checkpoint struct {
	path    string // in the log directory
	content []byte
}

// checkpointPaths are where StorageTool leaves it: the newer ones as a snapshot of the metadata log (KIP-1170).
func checkpointPaths() []string {
	return []string{"bootstrap.checkpoint", "__cluster_metadata-0/00000000000000000000-0000000000.checkpoint"}
}

// findCheckpoint reads it from where such a path of the log directory is.
func findCheckpoint(where func(path string) string) (c checkpoint, err error) {
	for _, path := range checkpointPaths() {
		if c.content, err = os.ReadFile(where(path)); err == nil {
			c.path = path
			return c, nil
		}
	}
	return c, fmt.Errorf("find the checkpoint of the storage tool: %w", err)
}

// What a machine may lack to run a Kafka; compare with errors.Is.
var (
	ErrNoJava  = errors.New("no java found in JAVA_HOME/bin or on PATH; install a Java 17 runtime or newer (Debian: apt-get install openjdk-17-jre-headless)")
	ErrNoMaven = errors.New("no mvn found on PATH, and Kafka is not in the cache yet; install Maven (Debian: apt-get install maven)")
)

// installation is Kafka's jars and the Java that runs them.
type installation struct {
	version string
	java    string
	dir     string // jars below lib, and what was computed once
}

// kafkaVersion is the version to run; asked is that of the options, which wins.
func kafkaVersion(asked string) string {
	return cmp.Or(asked, os.Getenv("KAFKA_VERSION"), KafkaVersion)
}

// KafkaBefore reports whether the version that the environment chooses is older than major.minor.
func KafkaBefore(major, minor int) bool {
	return installation{version: kafkaVersion("")}.before(major, minor)
}

// KafkaServesSASL reports whether KafkaOptions.SASL may be asked of the version that the environment chooses.
func KafkaServesSASL() bool { return installation{version: kafkaVersion("")}.servesSASL() }

// installKafka finds Java and downloads a version's jars unless the cache has them.
func installKafka(ctx context.Context, version string) (installation, error) {
	java, err := findJava()
	if err != nil {
		return installation{}, err
	}
	cache, err := cacheDirectory()
	if err != nil {
		return installation{}, err
	}
	i := installation{version: version, java: java, dir: filepath.Join(cache, "kafka-"+version)}
	unlock, err := lockFile(ctx, i.dir+".lock")
	if err != nil {
		return installation{}, fmt.Errorf("download kafka: %w", err)
	}
	defer unlock()
	if _, err := os.Stat(i.dir); err == nil {
		return i, nil
	}
	if err := downloadKafka(ctx, version, cache, i.dir); err != nil {
		return installation{}, fmt.Errorf("download kafka %s: %w", version, err)
	}
	return i, nil
}

func findJava() (string, error) {
	if home := os.Getenv("JAVA_HOME"); home != "" {
		java := filepath.Join(home, "bin", "java")
		if _, err := os.Stat(java); err == nil {
			return java, nil
		}
	}
	java, err := exec.LookPath("java")
	if err != nil {
		return "", ErrNoJava
	}
	return java, nil
}

// downloadKafka has Maven copy the jars and all that they depend on: it knows the user's mirrors,
// proxies and local repository. The directory appears at once and complete.
func downloadKafka(ctx context.Context, version, cache, to string) error {
	mvn, err := exec.LookPath("mvn")
	if err != nil {
		return ErrNoMaven
	}
	staging, err := os.MkdirTemp(cache, "kafka-download-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(staging) }()
	if err := os.WriteFile(filepath.Join(staging, "pom.xml"), []byte(kafkaPOM(version)), 0o600); err != nil {
		return err
	}
	err = runToEnd(ctx, command{
		name: "mvn", path: mvn, dir: staging, env: os.Environ(), death: syscall.SIGKILL,
		args: []string{
			"--batch-mode", "--quiet", "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies",
			"-DincludeScope=runtime", "-DoutputDirectory=" + filepath.Join(staging, "kafka", "lib"),
		},
	})
	if err != nil {
		return err
	}
	return os.Rename(filepath.Join(staging, "kafka"), to)
}

// kafkaPOM names the broker, the storage tool and a logging backend, without which it logs nothing.
func kafkaPOM(version string) string {
	const older = "<exclusion><groupId>org.slf4j</groupId><artifactId>slf4j-reload4j</artifactId></exclusion>" + // the backends of Kafka 3
		"<exclusion><groupId>org.slf4j</groupId><artifactId>slf4j-log4j12</artifactId></exclusion>" // and 2
	var b strings.Builder
	b.WriteString(`<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>` +
		`<groupId>example.com</groupId><artifactId>devstack</artifactId><version>1</version><dependencies>`)
	for _, d := range [][3]string{
		{"org.apache.kafka", "kafka_2.13", version},
		{"org.apache.kafka", "kafka-tools", version},
		{"org.slf4j", "slf4j-simple", "1.7.36"}, // that of Kafka's slf4j-api
	} {
		fmt.Fprintf(&b, "<dependency><groupId>%s</groupId><artifactId>%s</artifactId><version>%s</version>"+
			"<exclusions>%s</exclusions></dependency>", d[0], d[1], d[2], older)
	}
	b.WriteString("</dependencies></project>")
	return b.String()
}

// flags of every JVM: class path and quiet logging to standard error.
func (i installation) flags() []string {
	return []string{
		"-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
		"-Dorg.slf4j.simpleLogger.showDateTime=true",
		"-Dorg.slf4j.simpleLogger.dateTimeFormat=HH:mm:ss.SSS",
		"-cp", filepath.Join(i.dir, "lib", "*"),
	}
}

// small are the flags of a JVM that does little, or not for long.
func (i installation) small() []string {
	return append([]string{"-Xmx128m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC"}, i.flags()...)
}

// environment keeps JAVA_TOOL_OPTIONS and the like of the user away from the brokers.
func (i installation) environment() []string {
	return []string{"PATH=/usr/bin:/bin", "LC_ALL=C.UTF-8", "TZ=UTC"}
}

// bootstrap returns the checkpoint that StorageTool writes for these SCRAM users. It does not depend
// on node or cluster, so it is computed once (a second of a JVM) and kept in the cache.
func (i installation) bootstrap(ctx context.Context, work string, scramUsers []string) (checkpoint, error) {
	sum := sha256.Sum256([]byte(strings.Join(scramUsers, "\n")))
	kept := func(path string) string {
		return filepath.Join(i.dir, hex.EncodeToString(sum[:8])+"-"+filepath.Base(path))
	}
	if c, err := findCheckpoint(kept); err == nil {
		return c, nil
	}
	c, err := i.format(ctx, filepath.Join(work, "format"), scramUsers)
	if err != nil {
		return c, err
	}
	if err := keepFile(kept(c.path), c.content); err != nil {
		return c, fmt.Errorf("keep the checkpoint of the storage tool: %w", err)
	}
	return c, nil
}

// format runs StorageTool on a log directory of its own.
func (i installation) format(ctx context.Context, dir string, scramUsers []string) (c checkpoint, err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return c, fmt.Errorf("make a directory to format: %w", err)
	}
	data, properties := filepath.Join(dir, "data"), filepath.Join(dir, "server.properties")
	settings := propertiesFile(map[string]string{
		"process.roles":             "broker,controller",
		"node.id":                   "1",
		"controller.quorum.voters":  "1@127.0.0.1:1",
		"controller.listener.names": "CONTROLLER",
		"listeners":                 "PLAINTEXT://127.0.0.1:2,CONTROLLER://127.0.0.1:1", // never opened
		"log.dirs":                  data,
	})
	if err := os.WriteFile(properties, settings, 0o600); err != nil {
		return c, fmt.Errorf("write the settings to format with: %w", err)
	}
	args := append(i.small(), "kafka.tools.StorageTool", "format", "--cluster-id", kafkaUUID(), "--config", properties)
	for _, user := range scramUsers {
		args = append(args, "--add-scram", user)
	}
	err = runToEnd(ctx, command{
		name: "kafka's storage tool", path: i.java, args: args, env: i.environment(), dir: dir, death: syscall.SIGKILL,
	})
	if err != nil {
		return c, err
	}
	return findCheckpoint(func(path string) string { return filepath.Join(data, path) })
}
