package stream_test

import (
	"slices"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"

	"example.com/tiffin/stream"
)

// A process that is asked to stop, and is then told that the group does not know it any more, has
// nothing left to finish: its partitions are somebody else's. It ends as it was asked to, says so, and
// whoever takes the partitions finishes what it had in hand.
func TestStopAfterALostMembershipIsNoFault(t *testing.T) {
	t.Parallel()
	r := newRig(t, 2, map[string][]string{"r": clients(3)})
	o := newOutage(t, r)
	other := o.hold("LOCK TABLE subscribers_feedback IN ACCESS EXCLUSIVE MODE")
	o.publish(4)
	o.blocked()
	ended := make(chan error, 1)
	go func() { ended <- o.stop() }()
	o.eventually("the request to stop", func() bool {
		return slices.Contains(o.engine.Reasons(), "stream: finishing what is in hand")
	})
	left, err := kadm.NewClient(r.admin).LeaveGroup(t.Context(), kadm.LeaveGroup(r.cfg.Kafka.Group).InstanceIDs(r.cfg.Kafka.InstanceID))
	if err != nil || !left.Ok() {
		t.Fatalf("take the member out of its group: %v, %v", err, left.Error())
	}
	if err := <-ended; err != nil {
		t.Errorf("run: %v: want none, it was asked to stop", err)
	}
	if !o.log.has("stopped without finishing what was in hand", r.cfg.Kafka.Group) {
		t.Error("the log does not say that what was in hand is left to others")
	}
	o.end(other, "ROLLBACK")
	r.cfg.Registerer = nil // the first engine's
	r.untilNow(func(c *stream.Config) { c.Kafka.Process, c.Kafka.InstanceID = "two", "two" })
	o.bothEqual()
}
