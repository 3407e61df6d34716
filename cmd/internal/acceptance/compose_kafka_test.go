package acceptance

import (
	"maps"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"example.com/tiffin/internal/devstack"
	"example.com/tiffin/internal/devstack/devstacktest"
)

// A broker that has compose's settings and no others, as those of the image are gone as soon as one is given
// (KafkaDockerWrapper.prepareServerConfigs), starts; the loop makes the topics that it names, a second time
// too; clients inside and outside reach it; and the daemon commits its transactions to it.
func TestComposeBrokerServesTheDaemon(t *testing.T) {
	t.Parallel()
	needTools(t, "psql")
	c := readCompose(t)
	kafka, outside := c.kafka(t)
	inside := kafka.PlainBrokers()[0]
	for range 2 {
		c.makeTopics(t, kafka)
	}
	for _, address := range []string{inside, outside} {
		client, err := kgo.NewClient(kgo.SeedBrokers(address))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(client.Close)
		listed, err := kadm.NewClient(client).ListTopics(t.Context())
		if err != nil {
			t.Fatalf("%s: %v", address, err)
		}
		made := map[string]int{}
		for _, topic := range listed {
			made[topic.Topic] = len(topic.Partitions)
		}
		if want := map[string]int{"campaigns": 6, "deliveries": 12, "campaigns.dlq": 1}; !maps.Equal(made, want) {
			t.Errorf("%s has %v, want %v", address, made, want)
		}
	}
	server := c.postgres(t)
	c.deliver(t, server, inside)
	wantAnswer(t, server.DSN("feedback"), "SELECT string_agg(outcome || ' to ' || recipients, ', ') FROM tiffin.trigger", "delivered to 100")
}

// What the broker keeps must outlive its container: the ledger in Postgres does.
func TestComposeBrokerKeepsItsLogOnTheVolume(t *testing.T) {
	t.Parallel()
	c := readCompose(t)
	if kept := c.properties()["log.dirs"]; !slices.Contains(c.Services.Kafka.Volumes, "kafka:"+kept) {
		t.Errorf("log.dirs is %q, the volumes are %q", kept, c.Services.Kafka.Volumes)
	}
}

// properties are compose's variables as the image's entry point translates them
// (KafkaDockerWrapper.getServerConfigsFromEnv).
func (c compose) properties() map[string]string {
	properties := map[string]string{}
	for name, value := range c.Services.Kafka.Environment {
		if name, ok := strings.CutPrefix(name, "KAFKA_"); ok {
			name = strings.NewReplacer("___", "-", "__", "_", "_", ".").Replace(strings.ToLower(name))
			properties[name] = value
		}
	}
	return properties
}

// kafka starts a broker with compose's properties, of which only addresses and the directory are others, and
// returns the address that its clients outside are told.
func (c compose) kafka(t *testing.T) (server *devstack.Kafka, outside string) {
	t.Helper()
	outside = freeAddress(t)
	here := strings.NewReplacer(
		"@kafka:9093", "@127.0.0.1:{controller}", "CONTROLLER://:9093", "CONTROLLER://127.0.0.1:{controller}",
		"INSIDE://kafka:9092", "INSIDE://127.0.0.1:{plain}", "INSIDE://:9092", "INSIDE://127.0.0.1:{plain}",
		"OUTSIDE://127.0.0.1:19092", "OUTSIDE://"+outside, "OUTSIDE://:19092", "OUTSIDE://"+outside,
	)
	properties := c.properties()
	for name, value := range properties {
		properties[name] = here.Replace(value)
	}
	return devstacktest.StartKafka(t, devstack.KafkaOptions{Properties: properties}), outside
}

// makeTopics runs the service topics to its end.
func (c compose) makeTopics(t *testing.T, kafka *devstack.Kafka) {
	t.Helper()
	tools := t.TempDir()
	if err := kafka.WriteScripts(tools); err != nil {
		t.Fatal(err)
	}
	topics := c.Services.Topics
	here := strings.NewReplacer("$$", "$", "/opt/kafka/bin/", tools+"/", "kafka:9092", kafka.PlainBrokers()[0])
	script := here.Replace(topics.Command[0])
	if left := regexp.MustCompile(`\bkafka:|/opt/`).FindString(script); left != "" || len(topics.Command) != 1 {
		t.Fatalf("%q is left in\n%s", left, script)
	}
	loop := exec.CommandContext(t.Context(), topics.Entrypoint[0], append(slices.Clone(topics.Entrypoint[1:]), script)...)
	loop.Env = []string{"PATH=" + os.Getenv("PATH")}
	if out, err := loop.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}
