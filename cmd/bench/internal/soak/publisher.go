package soak

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// fields are the contract's eight, in its order.
type fields struct {
	Restaurant   string `json:"restaurant_id"`
	ID           string `json:"adv_campaign_id"`
	Content      string `json:"adv_campaign_content"`
	Owner        string `json:"adv_campaign_owner"`
	OwnerContact string `json:"adv_campaign_owner_contact"`
	Start        int64  `json:"adv_campaign_datetime_start"`
	End          int64  `json:"adv_campaign_datetime_end"`
	Created      int64  `json:"datetime_created"`
}

// json is compact, and escapes what JSON requires and nothing else.
func (f *fields) json() []byte {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	_ = e.Encode(f) // of strings and integers: cannot fail
	return bytes.TrimSpace(b.Bytes())
}

// publication is one campaign message. Its number is the record's key, by which the oracle knows it
// in the input topic.
type publication struct {
	fields
	malformed bool
	value     []byte
	published int64 // before it was handed to the client, Unix microseconds
	acked     bool  // the brokers have it
}

// publisher sends campaigns of every kind for ever.
type publisher struct {
	client     *kgo.Client
	random     *rand.Rand
	pause      time.Duration // between two, on average
	partitions int
	book       []string // restaurants that have subscribers now and then
	large      []string // restaurants with many
	log        func(format string, args ...any)

	mu   sync.Mutex
	sent []*publication
}

// run publishes until ctx ends, and then waits until the brokers have everything.
func (p *publisher) run(ctx context.Context) error {
	for wait(ctx, time.Duration(p.random.ExpFloat64()*float64(p.pause))) {
		burst := 1
		if p.random.IntN(40) == 0 {
			burst += p.random.IntN(40)
		}
		for range burst {
			p.publish(context.WithoutCancel(ctx))
		}
	}
	flush, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer cancel()
	if err := p.client.Flush(flush); err != nil {
		return fmt.Errorf("the brokers did not take the last campaigns within a minute: %w", err)
	}
	return nil
}

func (p *publisher) publish(ctx context.Context) {
	c := p.think(time.Now())
	c.published = time.Now().UnixMicro()
	p.mu.Lock()
	n := len(p.sent)
	p.sent = append(p.sent, c)
	p.mu.Unlock()
	record := &kgo.Record{Key: []byte(strconv.Itoa(n)), Value: c.value, Partition: int32(p.random.IntN(p.partitions))}
	p.client.Produce(ctx, record, func(_ *kgo.Record, err error) {
		p.mu.Lock()
		defer p.mu.Unlock()
		c.acked = err == nil
		if err != nil && !errors.Is(err, context.Canceled) {
			p.log("campaign %d was not acknowledged: %v", n, err)
		}
	})
}

func (p *publisher) count() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.sent)
}

// all is read once run has returned.
func (p *publisher) all() []*publication {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.sent
}

// think makes up a campaign.
func (p *publisher) think(now time.Time) *publication {
	c := &publication{fields: p.active(now)}
	switch kind := p.random.IntN(100); {
	case kind < 3:
		c.Restaurant = p.large[p.random.IntN(len(p.large))]
	case kind < 6: // over, or not yet begun
		shift := int64(1000)
		if kind == 3 {
			shift = -shift
		}
		c.Start, c.End = now.Unix()+shift-1, now.Unix()+shift+1
	case kind < 13: // about to begin or to end: the time of the join decides
		edge := now.Unix() + int64(p.random.IntN(4)) - 1
		if kind < 9 {
			c.Start = edge
		} else {
			c.End = edge
		}
	case kind < 17:
		c.Restaurant = "nobody-" + strconv.Itoa(kind)
	case kind < 22:
		c.malformed = true
	case kind < 25 && len(p.sent) > 0: // the same again, byte for byte
		if last := p.sent[len(p.sent)-1]; !last.malformed {
			c.fields = last.fields
		}
	}
	c.value = c.json()
	if c.malformed {
		c.value = p.spoil(c.value)
	}
	return c
}

func (p *publisher) active(now time.Time) fields {
	contents := [...]string{
		"two for one", `<b>"50 %" & more</b> \o/`, "Скидка 50% на 🍕\nи пиццу\t", strings.Repeat("free dessert with every lunch ", 1+p.random.IntN(60)), "",
	}
	return fields{
		Restaurant: p.book[p.random.IntN(len(p.book))], ID: "campaign-" + strconv.Itoa(len(p.sent)),
		Content: contents[p.random.IntN(len(contents))], Owner: "O'Brien & Söhne", OwnerContact: "owner@restaurant.example",
		Start: now.Unix() - 3600, End: now.Unix() + 86400, Created: now.Unix() - 7200,
	}
}

// spoil makes a value that can never be a campaign.
func (p *publisher) spoil(value []byte) []byte {
	switch p.random.IntN(6) {
	case 0:
		return value[:len(value)-p.random.IntN(len(value)-1)-1]
	case 1:
		return nil
	case 2:
		return []byte{}
	case 3:
		return bytes.Replace(value, []byte(`"datetime_created":`), []byte(`"datetime_created":"yesterday","x":`), 1)
	case 4:
		return append(value, '}')
	default:
		return append(bytes.Clone(value[:len(value)-1]), 0xff, '}')
	}
}
