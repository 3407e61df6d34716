package devstack

import (
	"archive/zip"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// kafkaScripts are those of bin/ in Kafka's distribution that the documents and the doctor name, and the class that
// each of them runs since Kafka 3.8. The jars come without them.
func kafkaScripts() map[string]string {
	return map[string]string{
		"kafka-acls.sh":                "org.apache.kafka.tools.AclCommand",
		"kafka-configs.sh":             "kafka.admin.ConfigCommand",
		"kafka-consumer-groups.sh":     "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand",
		"kafka-reassign-partitions.sh": "org.apache.kafka.tools.reassign.ReassignPartitionsCommand",
		"kafka-topics.sh":              "org.apache.kafka.tools.TopicCommand",
	}
}

// WriteScripts puts Kafka's command line tools into a directory, under their names in its
// distribution. They take the same arguments, and log nothing but warnings.
func (k *Kafka) WriteScripts(dir string) error {
	flags := k.install.small()
	tools, err := k.install.tools()
	if err != nil {
		return err
	}
	for name, class := range kafkaScripts() {
		if !tools[class] {
			class = "kafka.admin." + class[strings.LastIndexByte(class, '.')+1:] // where it was before
		}
		script := "#!/bin/sh\nexec " + shellWords(append([]string{k.install.java}, append(flags, class)...)) + ` "$@"` + "\n"
		if err := os.WriteFile(filepath.Join(dir, name), []byte(script), 0o755); err != nil {
			return fmt.Errorf("write kafka's script %s: %w", name, err)
		}
	}
	return nil
}

// tools are the classes of the jar that Kafka's tools moved to, one after the other, in 3.5 to 3.8.
func (i installation) tools() (map[string]bool, error) {
	jar, err := zip.OpenReader(filepath.Join(i.dir, "lib", "kafka-tools-"+i.version+".jar"))
	if err != nil {
		return nil, fmt.Errorf("look for kafka's tools: %w", err)
	}
	defer func() { _ = jar.Close() }()
	classes := map[string]bool{}
	for _, f := range jar.File {
		classes[strings.ReplaceAll(strings.TrimSuffix(f.Name, ".class"), "/", ".")] = true
	}
	return classes, nil
}

// shellWords quotes each word for a POSIX shell.
func shellWords(words []string) string {
	quoted := make([]string, len(words))
	for i, word := range words {
		quoted[i] = "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
	}
	return strings.Join(quoted, " ")
}
