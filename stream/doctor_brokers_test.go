package stream_test

import (
	"slices"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"

	"example.com/tiffin/internal/checkup"
	"example.com/tiffin/internal/devstack"
	"example.com/tiffin/internal/devstack/devstacktest"
	"example.com/tiffin/stream"
)

// examined returns the checks that fail, and those that are worth a warning.
func (r *rig) examined(k stream.KafkaConfig) (fails, warns []string) {
	r.t.Helper()
	sheet := checkup.NewSheet(func(l checkup.Line) {
		switch l.Verdict {
		case checkup.Fail:
			fails = append(fails, l.Check)
		case checkup.Warn:
			warns = append(warns, l.Check)
		default:
		}
		r.t.Logf("%+v", l)
	})
	if err := stream.Examine(r.t.Context(), k, stream.ExactlyOnce, sheet); err != nil {
		r.t.Fatal(err)
	}
	return fails, warns
}

// doctorBesideAKilledBroker: one of three seeds is away, which hurts nobody; a partition that only it
// held, and a topic that wants all three, are what a start would wait for.
func doctorBesideAKilledBroker(t *testing.T, k *devstack.Kafka) { //nolint:thelper // a case of its own
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
