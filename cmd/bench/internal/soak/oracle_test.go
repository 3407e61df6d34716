package soak

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// table is a history of restaurant r: a and b at 10 µs, c comes at 20, a goes at 30, both a and d
// come at 40. A commit is sent a microsecond before and lies at ten times its number in the log.
func table() *history {
	h := newHistory()
	for i, changes := range [][]change{{{"a", 1}, {"b", 1}}, {{"c", 1}}, {{"a", -1}}, {{"a", 1}, {"d", 1}, {"d", 1}}} {
		at := int64(i+1) * 10
		h.add(at-1, at, uint64(at)*10, map[string][]change{"r": changes})
	}
	return h
}

// The recipients must be one state between the last commit that counts for certain and the first
// that cannot count.
func TestRecipientsMustBeOneAdmissibleState(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name                      string
		published, handled, fence int64
		recipients                string
		exact                     bool
		states                    int
	}{
		{"the only state", 25, 28, 0, "a b c", true, 1},
		{"older than the publication", 25, 28, 0, "a b", false, 1},
		{"newer than the handling", 25, 28, 0, "b c", false, 1},
		{"first of several", 15, 35, 0, "a b", true, 3},
		{"middle of several", 15, 35, 0, "a b c", true, 3},
		{"last of several", 15, 35, 0, "b c", true, 3},
		{"half of a transaction", 35, 100, 0, "a b c", false, 2},
		{"the whole transaction, a pair twice", 35, 100, 0, "a b c d", true, 2},
		{"a mixture of states", 15, 35, 0, "b", false, 3},
		{"older than the fence", 15, 35, 300, "a b c", false, 1},
		{"as the fence", 15, 35, 300, "b c", true, 1},
		{"a commit that was sent when it was handled", 25, 29, 0, "b c", true, 2},
		{"a commit that was acknowledged later", 19, 28, 0, "a b", true, 2},
		{"before everything", 1, 5, 0, "", true, 1},
	} {
		h := table()
		q := &question{published: c.published, handled: c.handled, fence: uint64(c.fence), recipients: strings.Fields(c.recipients)}
		h.judge("r", []*question{q})
		if q.verdict.exact != c.exact || q.verdict.states != c.states {
			t.Errorf("%s: exact %t of %d states: want %t of %d", c.name, q.verdict.exact, q.verdict.states, c.exact, c.states)
		}
	}
}

// Questions come in any order and each is answered as if it were the only one.
func TestQuestionsDoNotDisturbEachOther(t *testing.T) {
	t.Parallel()
	h := table()
	late := &question{published: 45, handled: 50, recipients: []string{"a", "b", "c", "d"}}
	early := &question{published: 15, handled: 18, recipients: []string{"a", "b"}}
	wide := &question{published: 15, handled: 50, recipients: []string{"a", "b", "c", "d"}}
	h.judge("r", []*question{late, wide, early})
	for _, q := range []*question{late, early, wide} {
		if !q.verdict.exact {
			t.Errorf("%+v: %+v", q, q.verdict)
		}
	}
	missed := &question{published: 45, handled: 50, recipients: []string{"a", "b", "c", "x"}}
	h.judge("r", []*question{missed})
	if v := missed.verdict; v.exact || !slices.Equal(v.missing, []string{"d"}) || !slices.Equal(v.extra, []string{"x"}) {
		t.Errorf("%+v: want d missing and x too many", v)
	}
}

// sound is evidence without a fault: one campaign delivered to a and b, one malformed.
func sound() (*evidence, *history, *message, *message) {
	campaign := &publication{fields: fields{Restaurant: "r", Start: 0, End: 100}, published: 15e6}
	good := &message{publication: campaign, handled: true, outcome: "delivered", now: 15, began: 18e6, recipients: 2, rows: []string{"a", "b"}, records: []string{"b", "a"}}
	bad := &message{publication: &publication{malformed: true, published: 15e6}, handled: true, outcome: "malformed", now: 15, began: 18e6, letters: 1}
	h := newHistory()
	h.add(9e6, 10e6, 1, map[string][]change{"r": {{"a", 1}, {"b", 1}}})
	return &evidence{messages: map[place]*message{{0, 0}: good, {0, 1}: bad}, verdict: &verdict{}}, h, good, bad
}

// Every kind of difference is seen, and nothing is seen where there is none.
func TestEveryDifferenceIsSeen(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		harm func(good, bad *message)
		kind string
	}{
		"nothing":                {func(_, _ *message) {}, ""},
		"not handled":            {func(good, _ *message) { good.handled = false }, "LOST"},
		"record missing":         {func(good, _ *message) { good.records = good.records[:1] }, "LOST"},
		"row missing":            {func(good, _ *message) { good.rows, good.recipients = good.rows[:1], 1 }, "LOST"},
		"record twice":           {func(good, _ *message) { good.records = append(good.records, "a") }, "TWICE"},
		"row twice":              {func(good, _ *message) { good.rows, good.recipients = append(good.rows, "a"), 3 }, "TWICE"},
		"another number":         {func(good, _ *message) { good.recipients = 3 }, "DIFFERENT"},
		"both sinks, one client": {func(good, _ *message) { good.rows, good.records, good.recipients = []string{"a"}, []string{"a"}, 1 }, "STALE"},
		"nobody, though there are": {func(good, _ *message) {
			good.rows, good.records, good.recipients, good.outcome = nil, nil, 0, "no_subscribers"
		}, "STALE"},
		"inactive, though active": {func(good, _ *message) {
			good.rows, good.records, good.recipients, good.outcome = nil, nil, 0, "inactive"
		}, "DIFFERENT"},
		"delivered, though over":  {func(good, _ *message) { good.End = 14 }, "DIFFERENT"},
		"joined before published": {func(good, _ *message) { good.now = 14 }, "STALE"},
		"joined after handled":    {func(good, _ *message) { good.now = 19 }, "STALE"},
		"no dead letter":          {func(_, bad *message) { bad.letters = 0 }, "LOST"},
		"two dead letters":        {func(_, bad *message) { bad.letters = 2 }, "TWICE"},
		"a letter of a good one":  {func(good, _ *message) { good.letters = 1 }, "TWICE"},
	} {
		e, h, good, bad := sound()
		c.harm(good, bad)
		e.judge(h)
		if seen := strings.Join(e.verdict.told, "\n"); e.verdict.ok() != (c.kind == "") || !strings.Contains(seen, c.kind) {
			t.Errorf("%s: told %q, want %s", name, seen, c.kind)
		}
	}
}

// A record's value is what the contract says, byte for byte.
func TestExpectedRecordIsTheContracts(t *testing.T) {
	t.Parallel()
	m := &message{publication: &publication{fields: fields{"r", "id", `<b>"x" & y</b>`, "Ли Вэй", `\o/`, 1, 2, 3}}, now: 4}
	const want = `{"restaurant_id":"r","adv_campaign_id":"id","adv_campaign_content":"<b>\"x\" & y</b>","adv_campaign_owner":"Ли Вэй",` +
		`"adv_campaign_owner_contact":"\\o/","adv_campaign_datetime_start":1,"adv_campaign_datetime_end":2,"datetime_created":3,"client_id":"<c>","trigger_datetime_created":4}`
	if got := string(m.record("<c>")); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

// The same seed gives the same faults.
func TestScheduleFollowsFromTheSeed(t *testing.T) {
	t.Parallel()
	schedule := func(seed uint64) string {
		r := newRun(Config{Seed: seed}, io.Discard)
		c := &chaos{random: r.random(5), pace: 1e9}
		var all []string
		for range 200 {
			f := c.next()
			all = append(all, fmt.Sprint(f.after, f.what, f.last))
		}
		return strings.Join(all, "\n")
	}
	first := schedule(1)
	if again := schedule(1); again != first || schedule(2) == first {
		t.Error("the schedule does not follow from the seed")
	}
}
