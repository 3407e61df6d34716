package stream_test

import (
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"

	"example.com/tiffin/internal/devstack/devstacktest"
)

// The dead-letter topic is deleted under a process at work: malformed messages wait for it, with the
// reason and the fix, and go into the new one; no campaign is lost or doubled.
func TestDeletedDeadLetterTopicIsAwaited(t *testing.T) {
	t.Parallel()
	r := newRig(t, 2, map[string][]string{"r": clients(3)})
	o := newOutage(t, r)
	if _, err := kadm.NewClient(r.admin).DeleteTopic(t.Context(), r.cfg.Kafka.DeadLetter); err != nil {
		t.Fatal(err)
	}
	o.unready("topic "+r.cfg.Kafka.DeadLetter, "create it")
	r.publish(0, []byte("garbage"))
	o.number++ // handled, with nothing in either sink
	o.publish(2)
	o.told("UNKNOWN_TOPIC")
	devstacktest.CreateTopic(t, r.cfg.Kafka.Brokers, r.cfg.Kafka.DeadLetter, 1, nil)
	o.settled()
	if err := o.stop(); err != nil {
		t.Fatal(err)
	}
	r.wantBoth(o.want)
	if n := len(r.records(r.cfg.Kafka.DeadLetter)); n != 1 {
		t.Errorf("%d dead letters in the new topic, want 1", n)
	}
}

// A compacted topic takes no record without a key: that is told with what to do, and the dead letter goes out when
// it was done.
func TestCompactedDeadLetterTopicIsTold(t *testing.T) {
	t.Parallel()
	r := newRig(t, 1, map[string][]string{"r": {"a"}})
	r.untilNow()
	r.alter(r.cfg.Kafka.DeadLetter, "cleanup.policy", "compact")
	r.publish(0, []byte("garbage"), campaign("r", "after").json(t))
	log := r.logging()
	_, stop := r.start()
	defer func() { _ = stop() }()
	r.eventually("word of it", func() bool { return log.lines("cleanup.policy=delete") > 0 })
	r.alter(r.cfg.Kafka.DeadLetter, "cleanup.policy", "delete")
	r.eventually("both messages", func() bool { return r.groupOffset(0) == 2 })
	r.wantDelivered(1, 1)
	if n := len(r.records(r.cfg.Kafka.DeadLetter)); n != 1 {
		t.Errorf("%d dead letters, want 1", n)
	}
}
