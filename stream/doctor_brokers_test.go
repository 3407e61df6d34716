package stream_test

import (
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"

	"example.com/tiffin/internal/checkup"
	"example.com/tiffin/internal/devstack"
	"example.com/tiffin/internal/devstack/devstacktest"
	"example.com/tiffin/stream"
)

// lines are what the doctor says of each check.
func (r *rig) lines(k stream.KafkaConfig) map[string]checkup.Line {
	r.t.Helper()
	lines := map[string]checkup.Line{}
	sheet := checkup.NewSheet(func(l checkup.Line) {
		lines[l.Check] = l
		r.t.Logf("%+v", l)
	})
	if err := stream.Examine(r.t.Context(), k, stream.ExactlyOnce, sheet); err != nil {
		r.t.Fatal(err)
	}
	return lines
}

// examined returns the checks that fail, and those that are worth a warning.
func (r *rig) examined(k stream.KafkaConfig) (fails, warns []string) {
	r.t.Helper()
	for _, l := range r.lines(k) {
		switch l.Verdict {
		case checkup.Fail:
			fails = append(fails, l.Check)
		case checkup.Warn:
			warns = append(warns, l.Check)
		default:
		}
	}
	return fails, warns
}

// doctorBesideAKilledBroker: one of three seeds is away, which hurts nobody; a partition that only it
// held, and a topic that wants all three, are what a start would wait for.
func doctorBesideAKilledBroker(t *testing.T, k *devstack.Kafka) { //nolint:thelper // a case of its own
	doctorSpreadsATopic(t, k)
	r := newRigOn(t, k, 2, nil)
	alone, strict := servers.Unique(t, "alone"), servers.Unique(t, "strict")
	if _, err := kadm.NewClient(r.admin).CreateTopic(t.Context(), 6, 1, nil, alone); err != nil { // two partitions a broker
		t.Fatal(err)
	}
	three := "3"
	devstacktest.CreateTopic(t, k.PlainBrokers(), strict, 1, map[string]*string{"min.insync.replicas": &three})
	well, leaderless, thin := r.cfg.Kafka, r.cfg.Kafka, r.cfg.Kafka
	leaderless.Input, thin.Output = alone, strict
	for _, c := range []stream.KafkaConfig{well, leaderless, thin} {
		r.eventually("a doctor that is content", func() bool { fails, _ := r.examined(c); return len(fails) == 0 })
	}
	_, healthy := r.examined(well)
	k.KillBroker(2)
	for _, c := range []struct {
		config stream.KafkaConfig
		fails  []string
	}{{well, nil}, {leaderless, []string{"kafka.topic_input"}}, {thin, []string{"kafka.topic_output"}}} {
		// Until its session has ended the others still name the killed one.
		r.eventually("the doctor's verdict", func() bool {
			fails, warns := r.examined(c.config)
			return slices.Equal(fails, c.fails) && slices.Contains(warns, "kafka.tcp") && (c.fails != nil || len(warns) == len(healthy)+1)
		})
	}
	if err := k.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// doctorSpreadsATopic: what only one broker holds is on three once its command has run.
func doctorSpreadsATopic(t *testing.T, k *devstack.Kafka) { //nolint:thelper // a case of its own
	r := newRigOn(t, k, 1, nil)
	narrow := servers.Unique(t, "narrow")
	if _, err := kadm.NewClient(r.admin).CreateTopic(t.Context(), 4, 1, nil, narrow); err != nil {
		t.Fatal(err)
	}
	config := r.cfg.Kafka
	config.Input = narrow
	var lines map[string]checkup.Line
	r.eventually("a topic on one broker", func() bool {
		lines = r.lines(config)
		return lines["kafka.topic_input"].Verdict == checkup.Warn
	})
	dir := t.TempDir()
	if err := k.WriteScripts(dir); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "sh", "-c", lines["kafka.topic_input"].Fix)
	cmd.Dir, cmd.Env = dir, []string{"PATH=" + dir + ":" + os.Getenv("PATH")}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", lines["kafka.topic_input"].Fix, err, out)
	}
	r.eventually("a topic on three brokers", func() bool {
		l := r.lines(config)["kafka.topic_input"]
		return l.Verdict == checkup.OK && strings.Contains(l.Text, "4 partitions, 3 replicas")
	})
}
