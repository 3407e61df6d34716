package stream

import (
	"encoding/json"
	"math"
	"strings"
	"testing"
	"unicode/utf8"
)

// FuzzDecodeCampaign: no input panics; what is accepted is valid text that encodes to JSON
// which says the same again; what is refused has a reason and a sentence fit for a header
// and a text column.
func FuzzDecodeCampaign(f *testing.F) {
	for _, seed := range []string{
		`{"restaurant_id":"123e4567","adv_campaign_id":"c","adv_campaign_content":"first campaign","adv_campaign_owner":"Ivanov","adv_campaign_owner_contact":"i@r","adv_campaign_datetime_start":1659203516,"adv_campaign_datetime_end":2659207116,"datetime_created":-9223372036854775808}`,
		`{"restaurant_id":"\ud83c\udf55","adv_campaign_id":"\u0000","x":{"y":[1e400,"\ud800"]}} `,
		`{"restaurant_id":null,"restaurant_id":"x","datetime_created":1.5}`, `[]`, `{`, "\ufeff{}", `{"a":1}{}`, ``,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, value []byte) {
		c, fault := decodeCampaign(value)
		if fault != nil {
			if fault.Reason == "" || fault.Text == "" || !utf8.ValidString(fault.Text) || strings.ContainsRune(fault.Text, 0) || len(fault.Text) > 1000 {
				t.Errorf("fault %+v", fault)
			}
			return
		}
		env := newEnvelope(&c, 7)
		out := env.appendValue(nil, []byte("client"))
		var again map[string]any
		if err := json.Unmarshal(out, &again); err != nil {
			t.Fatalf("%q is not JSON: %v", out, err)
		}
		if len(again) != 10 || again["restaurant_id"] != c.RestaurantID || again["adv_campaign_content"] != c.Content || again["client_id"] != "client" {
			t.Errorf("%q lost something of %+v", out, c)
		}
		if len(out) > env.maxValue(len("client")) {
			t.Errorf("%d bytes: more than the bound %d", len(out), env.maxValue(len("client")))
		}
	})
}

// What could be read of a malformed message is kept for the manifest.
func TestMalformedCampaignKeepsWhatWasRead(t *testing.T) {
	t.Parallel()
	c, fault := decodeCampaign([]byte(`{"restaurant_id":"r","adv_campaign_id":"c"}`))
	if fault == nil || c.RestaurantID != "r" || c.ID != "c" {
		t.Errorf("%+v, %v", c, fault)
	}
	c, fault = decodeCampaign([]byte(`{"restaurant_id":"\u0000","adv_campaign_id":5}`))
	if fault == nil || c.RestaurantID != "" || c.ID != "" {
		t.Errorf("%+v, %v: a NUL cannot be kept", c, fault)
	}
}

// No campaign text makes an allocation per recipient.
func TestEncodingDoesNotAllocatePerRecipient(t *testing.T) { // not parallel: it counts allocations
	c := Campaign{RestaurantID: "r", Content: strings.Repeat("x", 300)}
	env := newEnvelope(&c, 1)
	buf := make([]byte, 0, 4096)
	client := []byte("a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11")
	if n := testing.AllocsPerRun(100, func() { buf = env.appendValue(buf[:0], client) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func decodeCampaign(value []byte) (Campaign, *MalformedError) {
	return new(campaignDecoder).decode(value)
}

// What the planner takes for granted without encoding is never less than what is encoded.
func TestBoundHoldsForAnyText(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"", "plain", strings.Repeat("\x01", 100), strings.Repeat("\u2028", 100), strings.Repeat(`"`, 100), strings.Repeat("ж", 100)} {
		c := Campaign{text, text, text, text, text, math.MinInt64, math.MinInt64, math.MinInt64}
		env := newEnvelope(&c, math.MinInt64)
		topic := strings.Repeat("t", 249)
		headers := len("trigger") + len(triggerID(topic, math.MaxInt32, math.MaxInt64)) + 10
		if size, bound := recordSize(len(text), len(env.appendValue(nil, []byte(text))), headers), c.bound(len(topic), len(text)); size > bound {
			t.Errorf("%.20q: %d bytes, bound %d", text, size, bound)
		}
	}
}
