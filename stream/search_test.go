package stream_test

import (
	"fmt"
	"testing"

	"example.com/tiffin/stream"
)

// What was handled is found: the newest, by the campaign's id, and by a client that got it.
func TestMessagesAreFound(t *testing.T) {
	t.Parallel()
	r := newRig(t, 1, map[string][]string{"r": {"a", "b"}, "s": {"b"}})
	const hostile = `<b>'; DROP TABLE "x" --`
	r.publish(0, campaign("r", "x").json(t), campaign("s", hostile).json(t), campaign("r", "x").json(t), []byte("garbage"))
	r.untilNow()
	conn := r.db.Connect(t)
	newest, err := stream.Recent(t.Context(), conn, r.cfg.Kafka.Group, r.cfg.Kafka.Input, 3)
	if err != nil || len(newest) != 3 {
		t.Fatalf("%d of the newest 3: %v", len(newest), err)
	}
	for i, e := range newest {
		if want := r.trigger(int64(3 - i)); e.Trigger != want {
			t.Errorf("newest %d is %s, want %s", i, e.Trigger, want)
		}
	}
	for id, want := range map[string][2][]int64{
		"x": {{2, 0}, nil}, hostile: {{1}, nil}, "a": {nil, {2, 0}}, "b": {nil, {2, 1, 0}}, "nobody": {nil, nil},
	} {
		found, err := stream.Search(t.Context(), conn, r.cfg.Kafka.Group, r.cfg.Kafka.Input, r.cfg.FeedbackTable, id)
		if err != nil {
			t.Fatal(err)
		}
		for i, list := range [][]stream.Explanation{found.Campaign, found.Client} {
			var got, expected []string
			for _, e := range list {
				got = append(got, e.Trigger)
			}
			for _, offset := range want[i] {
				expected = append(expected, r.trigger(offset))
			}
			if fmt.Sprint(got) != fmt.Sprint(expected) {
				t.Errorf("%q, way %d: %q, want %q", id, i, got, expected)
			}
		}
	}
}
