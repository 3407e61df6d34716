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

// As long as a message's records are not all out, that is what it is: how many are says the group's
// offset, which moves in the very transaction of a chunk. So do lists tell it.
func TestMessageIsUnderWayUntilItsLastRecordIsOut(t *testing.T) {
	t.Parallel()
	r := newRig(t, 1, map[string][]string{"r": {"a", "b", "c"}, "one": {"a"}})
	over := campaign("r", "over")
	over.End = now - 1
	r.publish(0, campaign("r", "x").json(t), []byte("garbage"), over.json(t), campaign("one", "y").json(t))
	r.untilNow()
	conn := r.db.Connect(t)
	comparer, err := stream.NewComparer(r.cfg.Kafka)
	if err != nil {
		t.Fatal(err)
	}
	defer comparer.Close()
	for _, c := range []struct {
		offset   int64
		metadata string
		sent     [4]int64
		underWay [4]bool
	}{
		{4, "tiffin", [4]int64{3, 1, 0, 1}, [4]bool{}},
		{0, "tiffin", [4]int64{0, 0, 0, 0}, [4]bool{true, true, false, true}},
		{0, "tiffin sent=2", [4]int64{2, 0, 0, 0}, [4]bool{true, true, false, true}},
		{1, "tiffin", [4]int64{3, 0, 0, 0}, [4]bool{false, true, false, true}},
		{2, "tiffin", [4]int64{3, 1, 0, 0}, [4]bool{false, false, false, true}},
	} {
		r.setOffset(0, c.offset, c.metadata)
		list, err := stream.Recent(t.Context(), conn, r.cfg.Kafka.Group, r.cfg.Kafka.Input, 4)
		if err != nil || len(list) != 4 {
			t.Fatal(err, list)
		}
		group, err := comparer.Offsets(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for i := range list {
			e := &list[len(list)-1-i]
			if group.Tell(e); e.Sent == nil || *e.Sent != c.sent[i] || e.UnderWay != c.underWay[i] {
				t.Errorf("group at %d %q, message %s: %+v", c.offset, c.metadata, e.Trigger, *e)
			}
		}
	}
	elsewhere := stream.Explanation{Trigger: "other/0/0", Outcome: stream.Delivered, Recipients: 1}
	group, err := comparer.Offsets(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if group.Tell(&elsewhere); elsewhere.Sent != nil || elsewhere.UnderWay {
		t.Errorf("of another topic: %+v", elsewhere)
	}
}

// Ids are equal by their bytes, also where the columns' collation takes others for equal: nobody is told to have got
// what went to another.
func TestExplainTellsIDsApart(t *testing.T) {
	t.Parallel()
	r := newRig(t, 1, map[string][]string{"r": {"abc"}})
	r.untilNow()
	r.db.Exec(t, `CREATE COLLATION either_case (provider = icu, locale = 'und-u-ks-level2', deterministic = false)`,
		`ALTER TABLE subscribers_feedback ALTER restaurant_id TYPE varchar COLLATE either_case, ALTER adv_campaign_id TYPE text COLLATE either_case,
		ALTER client_id TYPE text COLLATE either_case`)
	at := r.publish(0, campaign("r", "c").json(t))
	r.untilNow()
	conn := r.db.Connect(t)
	for id, got := range map[string]bool{"abc": true, "ABC": false} {
		e, err := stream.Explain(t.Context(), conn, r.cfg.Kafka.Group, r.trigger(at), r.cfg.FeedbackTable, &id)
		if err != nil || e.Client.Got != got {
			t.Errorf("client %s: %+v, %v", id, e.Client, err)
		}
		found, err := stream.Search(t.Context(), conn, r.cfg.Kafka.Group, r.cfg.Kafka.Input, r.cfg.FeedbackTable, id)
		if err != nil || len(found.Client) == 1 != got {
			t.Errorf("a search for client %s finds %v: %v", id, found.Client, err)
		}
	}
}
