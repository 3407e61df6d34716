package stream

import (
	"context"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

const sample = `{"restaurant_id":"123e4567-e89b-12d3-a456-426614174000","adv_campaign_id":"123e4567-e89b-12d3-a456-426614174003","adv_campaign_content":"first campaign","adv_campaign_owner":"Ivanov Ivan Ivanovich","adv_campaign_owner_contact":"iiivanov@restaurant.ru","adv_campaign_datetime_start":1659203516,"adv_campaign_datetime_end":2659207116,"datetime_created":1659131516}`

func BenchmarkDecode(b *testing.B) {
	value := []byte(sample)
	b.ReportAllocs()
	b.SetBytes(int64(len(value)))
	var d campaignDecoder
	for b.Loop() {
		if _, fault := d.decode(value); fault != nil {
			b.Fatal(fault)
		}
	}
}

func BenchmarkEncode(b *testing.B) {
	c, _ := decodeCampaign([]byte(sample))
	env := newEnvelope(&c, 1700000000)
	client := []byte("a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11")
	buf := make([]byte, 0, 1024)
	b.ReportAllocs()
	for b.Loop() {
		buf = env.appendValue(buf[:0], client)
	}
	b.SetBytes(int64(len(buf)))
}

// BenchmarkPlan is a message of 100 recipients from value to decision.
func BenchmarkPlan(b *testing.B) {
	index := loaded(b, map[string]int{"123e4567-e89b-12d3-a456-426614174000": 100})
	p := planner{cfg: &Config{Now: time.Now}, index: index, topics: topics{output: topicInfo{maxMessage: defaultMaxMessage}}}
	r := &kgo.Record{Value: []byte(sample)}
	b.ReportAllocs()
	for b.Loop() {
		t, err := p.plan(context.Background(), message{Record: r})
		if err != nil || t.deliveries() != 100 {
			b.Fatal(t, err)
		}
		t.release()
	}
}
