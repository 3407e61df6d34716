package stream_test

import (
	"fmt"
	"strings"
	"testing"

	"example.com/tiffin/stream"
)

// Every outcome, every fan-out, several partitions: both sinks hold exactly the expected set.
func TestBothSinksHoldExactlyWhatIsExpected(t *testing.T) {
	t.Parallel()
	for _, mode := range []stream.Mode{stream.ExactlyOnce, stream.AtLeastOnce} {
		t.Run(string(mode), func(t *testing.T) {
			t.Parallel()
			subscribers := map[string][]string{"none": nil}
			for _, n := range []int{1, 3, 70, 400} {
				subscribers[fmt.Sprintf("r%d", n)] = clients(n)
			}
			r := newRig(t, 3, subscribers)
			r.cfg.Mode = mode
			r.cfg.MaxTransactionRecords = 150 // r400 takes three transactions
			var want []delivery
			for i := range 120 {
				partition := int32(i % 3)
				m := campaign([]string{"r1", "r3", "r70", "r400", "none"}[i%5], fmt.Sprintf("c%d", i))
				active := i%7 != 0
				if !active {
					m.End = now - 1
				}
				offset := r.publish(partition, m.json(t))
				if active {
					for _, c := range subscribers[m.Restaurant] {
						want = append(want, r.expect(m, partition, offset, c))
					}
				}
			}
			r.untilNow()
			r.wantBoth(want)
			r.untilNow() // and a second run has nothing left to do
			r.wantBoth(want)
		})
	}
}

// The window's ends are inside, and the clock is read per message.
func TestActiveWindowIncludesItsEnds(t *testing.T) {
	t.Parallel()
	r := newRig(t, 1, map[string][]string{"r": {"c"}})
	var want []delivery
	for _, w := range []struct {
		start, end int64
		active     bool
	}{{now, now, true}, {now, now + 9, true}, {now - 9, now, true}, {now + 1, now + 9, false}, {now - 9, now - 1, false}, {now + 1, now - 1, false}} {
		m := campaign("r", fmt.Sprintf("%d-%d", w.start, w.end))
		m.Start, m.End = w.start, w.end
		offset := r.publish(0, m.json(t))
		if w.active {
			want = append(want, r.expect(m, 0, offset, "c"))
		}
	}
	r.untilNow()
	r.wantBoth(want)
	if outcome, _, _ := r.manifest(0, 4); outcome != "inactive" {
		t.Errorf("outcome %q: want inactive", outcome)
	}
}

// A client with two rows gets one message.
func TestDuplicateSubscriptionGetsOneMessage(t *testing.T) {
	t.Parallel()
	r := newRig(t, 1, map[string][]string{"r": {"a", "b", "a"}})
	m := campaign("r", "c")
	r.publish(0, m.json(t))
	r.untilNow()
	r.wantBoth([]delivery{r.expect(m, 0, 0, "a"), r.expect(m, 0, 0, "b")})
}

// Text comes through both sinks unharmed, in the campaign and in ids.
func TestTextSurvives(t *testing.T) {
	t.Parallel()
	texts := []string{
		``, `plain`, `"quoted" and 'single'`, `back\slash \n \u0041`, `<script>&amp;</script>`, "line\nbreak\ttab\rreturn",
		"\u2028\u2029", "\x01\x08\x0c\x1f\x7f", `эмодзи 🍱 и кириллица`, "ZWJ 👩‍👩‍👧‍👦", `{"a":1}`, `\N`, `,;|`,
		strings.Repeat("200 KB of content. ", 10_500),
	}
	clients := append([]string{`not a uuid`, `A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11`, `a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11`}, texts[:len(texts)-1]...)
	subscribers := map[string][]string{}
	for _, text := range texts {
		subscribers[text] = clients
	}
	r := newRig(t, 1, subscribers)
	var want []delivery
	for i, text := range texts {
		m := message{Restaurant: text, ID: text, Content: text, Owner: text, Contact: text, Start: -1 << 63, End: 1<<63 - 1, Created: int64(-i)}
		if len(text) > 1000 {
			m.Restaurant, m.ID, m.Owner, m.Contact = "", "long", "", ""
		}
		offset := r.publish(0, m.json(t))
		for _, c := range clients {
			want = append(want, r.expect(m, 0, offset, c))
		}
	}
	r.untilNow()
	r.wantBoth(want)
}
