package stream_test

import (
	"bytes"
	"encoding/hex"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kgo"
)

// What is no campaign goes to the dead-letter topic, whole, and the next message is served.
func TestBadInputBecomesADeadLetter(t *testing.T) {
	t.Parallel()
	good := string(campaign("r", "x").json(t))
	with := func(old, new string) []byte {
		if !strings.Contains(good, old) {
			t.Fatalf("%q is not in the campaign", old)
		}
		return []byte(strings.Replace(good, old, new, 1))
	}
	garbage := make([]byte, 1<<20-600)
	for i := range garbage {
		garbage[i] = byte(rand.N(256))
	}
	for _, c := range []struct {
		name, reason string
		value        []byte
	}{
		{"tombstone", "tombstone", nil},
		{"empty value", "empty", []byte{}},
		{"not JSON", "not_json", []byte("hello")},
		{"truncated JSON", "not_json", []byte(good[:len(good)-9])},
		{"open brace", "not_json", []byte("{")},
		{"array", "not_an_object", []byte("[" + good + "]")},
		{"string", "not_an_object", []byte(`"x"`)},
		{"something behind", "not_json", []byte(good + "x")},
		{"two objects", "not_json", []byte(good + good)},
		{"missing field", "missing_field", with(`"adv_campaign_owner":"owner",`, ``)},
		{"name in another case", "missing_field", with(`"adv_campaign_owner"`, `"Adv_campaign_owner"`)},
		{"null field", "null_field", with(`"owner"`, `null`)},
		{"last of a repeated name counts", "null_field", with(`{`, `{"datetime_created":1,`)[:0:0]},
		{"wrong type", "wrong_type", with(`"owner"`, `7`)},
		{"time as text", "wrong_type", with(`:1699999900`, `:"1699999900"`)},
		{"fraction", "wrong_type", with(`:1699999900`, `:1.5`)},
		{"integral fraction", "wrong_type", with(`:1699999900`, `:1.0`)},
		{"exponent", "wrong_type", with(`:1699999900`, `:1e9`)},
		{"1e400", "wrong_type", with(`:1699999900`, `:1e400`)},
		{"2^63", "out_of_range", with(`:1699999900`, `:9223372036854775808`)},
		{"-2^63-1", "out_of_range", with(`:1699999900`, `:-9223372036854775809`)},
		{"invalid UTF-8", "invalid_utf8", with(`"owner"`, "\"ow\xffner\"")},
		{"invalid UTF-8 in an unknown field", "invalid_utf8", with(`{`, "{\"unknown\":\"\xc3\",")},
		{"byte order mark", "byte_order_mark", []byte("\ufeff" + good)},
		{"escaped NUL", "nul_character", with(`"owner"`, `"ow\u0000ner"`)},
		{"raw NUL", "not_json", with(`"owner"`, "\"ow\x00ner\"")},
		{"lone surrogate", "lone_surrogate", with(`"owner"`, `"\ud800"`)},
		{"lone low surrogate", "lone_surrogate", with(`"owner"`, `"\udc00x"`)},
		{"1 MB of garbage", "invalid_utf8", garbage},
		{"too large with the client id added", "too_large", with(`"content of x"`, `"`+strings.Repeat("x", 1<<20-400)+`"`)},
	} {
		if c.name == "last of a repeated name counts" {
			c.value = with(`"datetime_created":1699999950`, `"datetime_created":1699999950,"datetime_created":null`)
		}
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, 1, map[string][]string{"r": clients(3)})
			headers := []kgo.RecordHeader{{Key: "a", Value: []byte("1")}, {Key: "null", Value: nil}, {Key: "empty", Value: []byte{}}, {Key: "a", Value: []byte("2")}}
			offset := r.publishRecords(&kgo.Record{Key: []byte("key"), Value: c.value, Headers: headers})
			next := campaign("r", "next")
			after := r.publish(0, next.json(t))
			r.untilNow()
			var want []delivery
			for _, client := range clients(3) {
				want = append(want, r.expect(next, 0, after, client))
			}
			r.wantBoth(want)
			r.wantDeadLetter(offset, c.reason, []byte("key"), c.value, headers)
			if outcome, recipients, reason := r.manifest(0, offset); outcome != "malformed" || recipients != 0 || reason != c.reason {
				t.Errorf("manifest: %s, %d, %s", outcome, recipients, reason)
			}
		})
	}
}

func (r *rig) wantDeadLetter(offset int64, reason string, key, value []byte, headers []kgo.RecordHeader) {
	r.t.Helper()
	letters := r.records(r.cfg.Kafka.DeadLetter)
	if len(letters) != 1 {
		r.t.Fatalf("%d dead letters: want 1", len(letters))
	}
	d := letters[0]
	if !sameBytes(d.Key, key) || !sameBytes(d.Value, value) {
		r.t.Errorf("dead letter %.100q=%.100q: not what came", d.Key, d.Value)
	}
	if len(d.Headers) != len(headers)+3 {
		r.t.Fatalf("headers %v", d.Headers)
	}
	for i, h := range headers {
		if d.Headers[i].Key != h.Key || !sameBytes(d.Headers[i].Value, h.Value) {
			r.t.Errorf("header %d is %q=%q (null: %t): want %q=%q", i, d.Headers[i].Key, d.Headers[i].Value, d.Headers[i].Value == nil, h.Key, h.Value)
		}
	}
	own := map[string]string{}
	for _, h := range d.Headers[len(headers):] {
		own[h.Key] = string(h.Value)
	}
	if own["reason"] != reason || own["trigger"] != r.trigger(offset) || own["error"] == "" {
		r.t.Errorf("headers %v: want reason %s, trigger %s and a sentence", own, reason, r.trigger(offset))
	}
}

func (r *rig) trigger(offset int64) string { return r.expect(message{}, 0, offset, "").trigger }

// sameBytes tells null from empty.
func sameBytes(a, b []byte) bool { return (a == nil) == (b == nil) && bytes.Equal(a, b) }

// What is odd but legal is no dead letter.
func TestOddButLegalInputIsDelivered(t *testing.T) {
	t.Parallel()
	r := newRig(t, 1, map[string][]string{"r": {"c"}})
	m := campaign("r", "x")
	good := string(m.json(t))
	values := []string{
		" \t\r\n" + good + " \n",
		strings.Replace(good, `{`, `{"unknown":{"deep":[1,2,{"x":null}],"n":1e400},"null":null,`, 1),
		strings.Replace(good, `{`, `{"unknown":"\ud800",`, 1),
		strings.Replace(good, `{`, `{"unknown":"\u0000",`, 1),
		strings.Replace(good, `{`, `{"restaurant_id":5,"restaurant_id":null,`, 1),
		strings.Replace(good, `"restaurant_id"`, `"restaurant\u005fid"`, 1),
		strings.Replace(good, `"owner"`, `"\u006f\u0077ner"`, 1),
	}
	var want []delivery
	for i, v := range values {
		r.publish(0, []byte(v))
		want = append(want, r.expect(m, 0, int64(i), "c"))
	}
	r.untilNow()
	r.wantBoth(want)
}

// A dead letter that was not sent before a crash is read again from the input topic.
func TestDeadLetterIsRebuilt(t *testing.T) {
	t.Parallel()
	r := newRig(t, 1, map[string][]string{"r": {"c"}})
	r.publish(0, []byte("garbage"))
	r.publish(0, campaign("r", "x").json(t))
	r.untilNow()
	r.setOffset(0, 0, "")
	r.untilNow()
	letters := r.records(r.cfg.Kafka.DeadLetter)
	if len(letters) != 2 {
		t.Fatalf("%d dead letters: want the first and the rebuilt one", len(letters))
	}
	for _, key := range []int{0, 1, 2} {
		if !bytes.Equal(letters[0].Headers[key].Value, letters[1].Headers[key].Value) {
			t.Errorf("header %s differs: %q and %q", letters[0].Headers[key].Key, letters[0].Headers[key].Value, letters[1].Headers[key].Value)
		}
	}
	if !bytes.Equal(letters[0].Value, letters[1].Value) {
		t.Error("the values differ")
	}
}

// A dead letter that was not sent before a crash, and whose message retention has removed since, is
// lost: that is said and counted, and the partition goes on, also when nothing came after it.
func TestDeadLetterThatIsGoneHoldsNobodyUp(t *testing.T) {
	t.Parallel()
	r := newRig(t, 2, map[string][]string{"r": {"c"}})
	log := r.logging()
	r.publish(0, []byte("garbage"))
	r.untilNow()
	r.setOffset(0, 0, "tiffin")
	r.deleteRecords(r.cfg.Kafka.Input, 0, 1)
	m := campaign("r", "x")
	offset := r.publish(1, m.json(t))
	registry := prometheus.NewRegistry()
	r.cfg.Registerer = registry
	begun := time.Now()
	r.untilNow()
	if took := time.Since(begun); took > 12*time.Second { // a read that finds nothing is given up after 15 s
		t.Errorf("the partition went on after %v", took)
	}
	log.wants(t, r.trigger(0))
	log.wants(t, "its dead letter can't be sent")
	if n := lost(t, registry, "dead_letter"); n != 1 {
		t.Errorf("%v lost dead letters are counted, want 1", n)
	}
	if at := r.groupOffset(0); at != 1 {
		t.Errorf("group offset %d: want 1", at)
	}
	r.wantBoth([]delivery{r.expect(m, 1, offset, "c")})
}

// lost is what tiffin_lost_messages_total counts for a reason.
func lost(t *testing.T, registry *prometheus.Registry, reason string) float64 {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() == "tiffin_lost_messages_total" && m.GetLabel()[0].GetValue() == reason {
				return m.GetCounter().GetValue()
			}
		}
	}
	t.Fatalf("no tiffin_lost_messages_total{reason=%q}", reason)
	return 0
}

// A limit that is lowered while campaigns flow refuses what no longer fits as a whole: a dead
// letter, no row, no record; what fits is served.
func TestLoweredLimitLeavesNoRowsBehind(t *testing.T) {
	t.Parallel()
	r := newRig(t, 1, map[string][]string{"r": clients(20)})
	r.untilNow()
	e, stop := r.start()
	r.eventually("readiness", func() bool { return len(e.Reasons()) == 0 })
	r.alter(r.cfg.Kafka.Output, "max.message.bytes", "60000")
	large, small := campaign("r", "large"), campaign("r", "small")
	noise := make([]byte, 60_000) // hardly compresses
	for i := range noise {
		noise[i] = byte(rand.N(256))
	}
	large.Content = hex.EncodeToString(noise)
	offset := r.publish(0, large.json(t))
	after := r.publish(0, small.json(t))
	r.eventually("both messages handled", func() bool { return r.groupOffset(0) == after+1 })
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	var want []delivery
	for _, c := range clients(20) {
		want = append(want, r.expect(small, 0, after, c))
	}
	r.wantBoth(want)
	r.wantDeadLetter(offset, "too_large", nil, large.json(t), nil)
}

// A compressed record that is larger than the dead-letter topic takes comes through if it
// compresses again, and without its value if it cannot.
func TestLargeDeadLetters(t *testing.T) {
	t.Parallel()
	r := newRig(t, 1, map[string][]string{"r": {"c"}})
	big, err := kgo.NewClient(kgo.SeedBrokers(r.cfg.Kafka.Brokers...), kgo.ProducerBatchMaxBytes(8<<20), kgo.DefaultProduceTopic(r.cfg.Kafka.Input))
	if err != nil {
		t.Fatal(err)
	}
	defer big.Close()
	zeros := []byte(strings.Repeat("0", 5<<20))
	if err := big.ProduceSync(t.Context(), &kgo.Record{Value: zeros}).FirstErr(); err != nil {
		t.Fatal(err)
	}
	m := campaign("r", "x")
	r.publish(0, m.json(t))
	r.untilNow()
	r.wantDeadLetter(0, "not_an_object", nil, zeros, nil)
	r.wantBoth([]delivery{r.expect(m, 0, 1, "c")})
}
