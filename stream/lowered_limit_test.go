package stream_test

import (
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"

	"example.com/tiffin/stream"
)

// noisy is a campaign whose content of n bytes hardly compresses.
func noisy(restaurant, id string, n int) message {
	noise := make([]byte, n/2)
	for i := range noise {
		noise[i] = byte(rand.N(256))
	}
	m := campaign(restaurant, id)
	m.Content = hex.EncodeToString(noise)
	return m
}

// limit sets what the output topic takes, and waits until the brokers say so.
func (r *rig) limit(bytes string) {
	r.t.Helper()
	r.alter(r.cfg.Kafka.Output, "max.message.bytes", bytes)
	r.eventually("the new limit", func() bool {
		configs, err := kadm.NewClient(r.admin).DescribeTopicConfigs(r.t.Context(), r.cfg.Kafka.Output)
		if err != nil {
			return false
		}
		rc, err := configs.On(r.cfg.Kafka.Output, nil)
		if err != nil {
			return false
		}
		for _, c := range rc.Configs {
			if c.Key == "max.message.bytes" && c.Value != nil {
				return *c.Value == bytes
			}
		}
		return false
	})
}

// Nor does a limit that is lowered leave rows behind where records are visible at once, where a
// campaign takes several transactions, or, once the probe has seen it, of small records.
func TestLoweredLimitIsSeenBeforeRowsAreCommitted(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		size   int
		limit  string
		seen   bool // by the probe, before there is something to deliver
		change func(*stream.Config)
	}{
		{"at least once", 60_000, "50000", false, func(c *stream.Config) { c.Mode = stream.AtLeastOnce }},
		{"several transactions", 60_000, "50000", false, func(c *stream.Config) { c.MaxTransactionRecords = 10 }},
		{"several transactions, at least once", 60_000, "50000", false, func(c *stream.Config) { c.Mode, c.MaxTransactionRecords = stream.AtLeastOnce, 10 }},
		{"small records", 20_000, "10000", true, func(*stream.Config) {}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, 1, map[string][]string{"r": clients(20)})
			log := r.logging()
			e, stop := r.start(c.change)
			r.eventually("readiness", func() bool { return len(e.Reasons()) == 0 })
			r.limit(c.limit)
			if c.seen {
				r.eventually("the probe", func() bool { return log.lines("beginning anew with that") > 0 && len(e.Reasons()) == 0 })
			}
			large, small := noisy("r", "large", c.size), campaign("r", "small")
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
		})
	}
}

// A record that is refused although its row is committed waits until the limit is raised, and says so.
// Its partition waits with it; the others deliver, recover and have their large campaigns meanwhile.
func TestRecordTooLargeForALoweredLimitWaitsAlone(t *testing.T) {
	t.Parallel()
	const stuck = 3
	list := clients(30)
	r := newRig(t, stuck+1, map[string][]string{"r": list[:2], "large": list})
	r.cfg.MaxTransactionRecords = 10
	want := map[int32][]delivery{}
	add := func(partition int32, m message, to []string) {
		t.Helper()
		offset := r.publish(partition, m.json(t))
		for _, c := range to {
			want[partition] = append(want[partition], r.expect(m, partition, offset, c))
		}
	}
	for p := range int32(stuck + 1) {
		add(p, campaign("r", "before"), list[:2])
		if p < stuck {
			add(p, noisy("r", "large record", 20_000), list[:2])
		}
	}
	r.untilNow()
	r.limit("10000")
	for p := range int32(stuck + 1) { // as if the process had died between the sinks
		r.setOffset(p, 0, "tiffin")
	}
	e, stop := r.start()
	for p := range stuck {
		r.eventually("the reason", func() bool {
			return containsAll(strings.Join(e.Reasons(), "; "), []string{fmt.Sprintf("partition %d: ", p), "raise max.message.bytes"})
		})
	}
	if n := len(e.Reasons()); n != stuck {
		t.Errorf("%d reasons %q: want one a partition", n, e.Reasons())
	}
	sent := want[stuck] // and once more, because it is recovered
	for i := range 3 {
		add(stuck, campaign("large", fmt.Sprint("meanwhile ", i)), list)
	}
	add(0, campaign("r", "behind"), list[:2])
	r.eventually("the other partition's deliveries", func() bool { return r.committed(stuck).At == 4 })
	if at := r.committed(0); at.At != 1 {
		t.Errorf("the waiting partition's offset is %d: want it at the message that waits", at.At)
	}
	r.limit("1000000")
	r.eventually("the end of the waiting", func() bool { return r.committed(0).At == 3 && r.committed(1).At == 2 && r.committed(2).At == 2 })
	r.eventually("readiness", func() bool { return len(e.Reasons()) == 0 })
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	var records, rows []delivery
	for p := range int32(stuck + 1) {
		rows = append(rows, want[p]...)
		records = append(records, want[p]...)
		if p < stuck {
			sent = append(sent, want[p][:4]...)
		}
	}
	r.wantRows(rows)
	same(t, "records", r.deliveries(), append(records, sent...))
}
