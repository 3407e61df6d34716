package devstack

import (
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

// KafkaVersion is the Apache Kafka that StartKafka runs.
const KafkaVersion = "4.1.0"

// bootstrapCheckpoint is the file of a formatted log directory that holds the cluster's first
// records: feature levels and SCRAM users.
const bootstrapCheckpoint = "bootstrap.checkpoint"

// What a machine may lack to run a Kafka; compare with errors.Is.
var (
	ErrNoJava  = errors.New("no java found in JAVA_HOME/bin or on PATH; install a Java 17 runtime or newer (Debian: apt-get install openjdk-17-jre-headless)")
	ErrNoMaven = errors.New("no mvn found on PATH, and Kafka is not in the cache yet; install Maven (Debian: apt-get install maven)")
)

// installation is Kafka's jars and the Java that runs them.
type installation struct {
	java string
	dir  string // jars below lib, and what was computed once
}

// installKafka finds Java and downloads the jars unless the cache has them.
func installKafka(ctx context.Context) (installation, error) {
	java, err := findJava()
	if err != nil {
		return installation{}, err
	}
	cache, err := cacheDirectory()
	if err != nil {
		return installation{}, err
	}
	i := installation{java: java, dir: filepath.Join(cache, "kafka-"+KafkaVersion)}
	unlock, err := lockFile(ctx, i.dir+".lock")
	if err != nil {
		return installation{}, fmt.Errorf("download kafka: %w", err)
	}
	defer unlock()
	if _, err := os.Stat(i.dir); err == nil {
		return i, nil
	}
	if err := downloadKafka(ctx, cache, i.dir); err != nil {
		return installation{}, fmt.Errorf("download kafka %s: %w", KafkaVersion, err)
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
func downloadKafka(ctx context.Context, cache, to string) error {
	mvn, err := exec.LookPath("mvn")
	if err != nil {
		return ErrNoMaven
	}
	staging, err := os.MkdirTemp(cache, "kafka-download-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(staging) }()
	if err := os.WriteFile(filepath.Join(staging, "pom.xml"), []byte(kafkaPOM()), 0o600); err != nil {
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
func kafkaPOM() string {
	var b strings.Builder
	b.WriteString(`<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>` +
		`<groupId>example.com</groupId><artifactId>devstack</artifactId><version>1</version><dependencies>`)
	for _, d := range [][3]string{
		{"org.apache.kafka", "kafka_2.13", KafkaVersion},
		{"org.apache.kafka", "kafka-tools", KafkaVersion},
		{"org.slf4j", "slf4j-simple", "1.7.36"}, // that of Kafka's slf4j-api
	} {
		fmt.Fprintf(&b, "<dependency><groupId>%s</groupId><artifactId>%s</artifactId><version>%s</version></dependency>", d[0], d[1], d[2])
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

// environment keeps JAVA_TOOL_OPTIONS and the like of the user away from the brokers.
func (i installation) environment() []string {
	return []string{"PATH=/usr/bin:/bin", "LC_ALL=C.UTF-8", "TZ=UTC"}
}

// bootstrap returns the checkpoint that StorageTool writes for these SCRAM users. It does not depend
// on node or cluster, so it is computed once (a second of a JVM) and kept in the cache.
func (i installation) bootstrap(ctx context.Context, work string, scramUsers []string) ([]byte, error) {
	sum := sha256.Sum256([]byte(strings.Join(scramUsers, "\n")))
	kept := filepath.Join(i.dir, "bootstrap-"+hex.EncodeToString(sum[:8]))
	if checkpoint, err := os.ReadFile(kept); err == nil {
		return checkpoint, nil
	}
	checkpoint, err := i.format(ctx, filepath.Join(work, "format"), scramUsers)
	if err != nil {
		return nil, err
	}
	if err := keepFile(kept, checkpoint); err != nil {
		return nil, fmt.Errorf("keep the checkpoint of the storage tool: %w", err)
	}
	return checkpoint, nil
}

// format runs StorageTool on a log directory of its own.
func (i installation) format(ctx context.Context, dir string, scramUsers []string) ([]byte, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make a directory to format: %w", err)
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
		return nil, fmt.Errorf("write the settings to format with: %w", err)
	}
	args := append([]string{"-Xmx128m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC"}, i.flags()...)
	args = append(args, "kafka.tools.StorageTool", "format", "--cluster-id", kafkaUUID(), "--config", properties)
	for _, user := range scramUsers {
		args = append(args, "--add-scram", user)
	}
	err := runToEnd(ctx, command{
		name: "kafka's storage tool", path: i.java, args: args, env: i.environment(), dir: dir, death: syscall.SIGKILL,
	})
	if err != nil {
		return nil, err
	}
	return os.ReadFile(filepath.Join(data, bootstrapCheckpoint))
}
