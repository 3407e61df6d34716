package stream_test

import (
	"errors"
	"strings"
	"testing"

	"example.com/tiffin/stream"
)

// For every message it can be asked who got it, who did not, and why.
func TestEveryMessageIsExplained(t *testing.T) {
	t.Parallel()
	r := newRig(t, 1, map[string][]string{"r": {"a", "b"}})
	over := campaign("r", "over")
	over.End = now - 1
	r.publish(0, campaign("r", "x").json(t), over.json(t), campaign("nobody's", "y").json(t), []byte("garbage"))
	r.untilNow()
	conn := r.db.Connect(t)
	explain := func(offset int64, client *string) (stream.Explanation, error) {
		return stream.Explain(t.Context(), conn, r.cfg.Kafka.Group, r.trigger(offset), r.cfg.FeedbackTable, client)
	}
	for _, c := range []struct {
		offset  int64
		client  string
		outcome stream.Outcome
		got     bool
		cause   stream.Cause
		why     string
	}{
		{0, "a", stream.Delivered, true, stream.CauseSubscribed, "subscribed as of position 16/B374D848"},
		{0, "c", stream.Delivered, false, stream.CauseNotSubscribed, "not subscribed"},
		{1, "a", stream.Inactive, false, stream.CauseInactive, "not active"},
		{2, "a", stream.NoSubscribers, false, stream.CauseNoSubscribers, "no subscribers"},
		{3, "a", stream.Malformed, false, stream.CauseMalformed, "malformed"},
	} {
		e, err := explain(c.offset, &c.client)
		if err != nil {
			t.Fatal(err)
		}
		if e.Outcome != c.outcome || e.Client == nil || e.Client.Got != c.got || e.Client.Cause != c.cause || !strings.Contains(e.Client.Why, c.why) {
			t.Errorf("message %d, client %s: %+v %+v", c.offset, c.client, e, e.Client)
		}
	}
	if _, err := explain(4, nil); !errors.Is(err, stream.ErrUnknownTrigger) {
		t.Errorf("unknown message: %v", err)
	}
	for _, bad := range []string{"", "x", "a/b", "a/-1/0", "a/0/x", "/0/0", "a/0/1/2"} {
		if _, _, _, err := stream.ParseTrigger(bad); err == nil {
			t.Errorf("%q: no error", bad)
		}
	}
}
