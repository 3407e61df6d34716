package stream

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/twmb/franz-go/pkg/kmsg"

	"example.com/tiffin/internal/checkup"
)

// loginFile is the one that Kafka's own tools are to log in with, where the brokers take no stranger: of
// somebody who may more than the daemon (docs/security.md shows what is in it). Without it they would
// wait for a minute, and say that the brokers do not answer.
const loginFile = "admin.properties"

// command is one of Kafka's own tools with its arguments, as a shell takes it.
func (v *visit) command(tool string, arguments ...string) string {
	words := []string{"kafka-" + tool + ".sh", "--bootstrap-server", v.k.Brokers[0]}
	if v.k.TLS.Enabled || v.k.SASL.Mechanism != "" {
		words = append(words, "--command-config", loginFile)
	}
	words = append(words, arguments...)
	for i, word := range words {
		words[i] = checkup.Word(word)
	}
	return strings.Join(words, " ")
}

// grant is the command that gives the daemon's user a right.
func (v *visit) grant(operation string, resource ...string) string {
	return v.command("acls", append([]string{"--add", "--allow-principal", "User:" + v.k.principal(), "--operation", operation}, resource...)...)
}

// principal is as whom the brokers know the daemon, unless ssl.principal.mapping.rules say otherwise.
func (k *KafkaConfig) principal() string {
	if k.SASL.Username != "" {
		return k.SASL.Username
	}
	config, err := k.TLS.config()
	if !k.TLS.Enabled || err != nil || len(config.Certificates) == 0 {
		return "ANONYMOUS"
	}
	return config.Certificates[0].Leaf.Subject.String() // RFC 2253, as X500Principal.getName
}

// create is the command that makes a topic: deliveries are spread as campaigns are, dead letters are few,
// and for the input the brokers' num.partitions holds.
func (v *visit) create(name string) string {
	command := v.command("topics", "--create", "--topic", name)
	campaigns := len(v.metadata(v.k.Input).Partitions)
	switch {
	case name == v.k.DeadLetter:
		return command + " --partitions 1"
	case name == v.k.Output && campaigns > 0:
		return fmt.Sprintf("%s --partitions %d", command, campaigns)
	}
	return command
}

// limit is the command that shows settings of the first broker to whoever may read them.
func (v *visit) limit(pattern string) string {
	id := strconv.Itoa(int(v.meta.Brokers[0].NodeID))
	return v.command("configs", "--describe", "--all", "--entity-type", "brokers", "--entity-name", id) + " | grep " + checkup.Word(pattern)
}

// enoughReplicas are so many that one broker may stop while another fails.
const enoughReplicas = 3

// assignment is Kafka's file format for the places of partitions (kafka-reassign-partitions.sh).
type assignment struct {
	Version    int     `json:"version"`
	Partitions []place `json:"partitions"`
}

type place struct {
	Topic     string  `json:"topic"`
	Partition int32   `json:"partition"`
	Replicas  []int32 `json:"replicas"`
}

// spread is the command that gives a topic's partitions replicas on further brokers. Who leads now
// stays the first.
func (v *visit) spread(t *kmsg.MetadataResponseTopic) string {
	plan, brokers := assignment{Version: 1}, v.meta.Brokers
	for i, p := range t.Partitions {
		replicas := slices.Clone(p.Replicas)
		for next := i; len(replicas) < min(enoughReplicas, len(brokers)); next++ {
			if id := brokers[next%len(brokers)].NodeID; !slices.Contains(replicas, id) {
				replicas = append(replicas, id)
			}
		}
		plan.Partitions = append(plan.Partitions, place{*t.Topic, p.Partition, replicas})
	}
	text, err := json.Marshal(plan)
	if err != nil {
		return err.Error() // never: names and numbers
	}
	return "echo " + checkup.Word(string(text)) + " >more-replicas.json; " + v.command("reassign-partitions", "--reassignment-json-file", "more-replicas.json", "--execute")
}
