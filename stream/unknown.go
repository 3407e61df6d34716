package stream

import (
	"context"
	"fmt"

	"github.com/twmb/franz-go/pkg/kgo"
)

// unknownMessages are those in a recovery's range that the manifest does not know: this group never
// handled them (an operator moved its offset to before where it began), or their rows of tiffin.trigger
// were removed. Nothing can be sent for them, and nothing is skipped silently: they are named.
// That an offset is not in the manifest does not make it a message: markers of transactions have
// offsets, too. So the input topic is asked.
type unknownMessages struct {
	s         *session
	partition int32
	remark    remark
	// gone is the first offset, and goneTo the end, of what the topic no longer holds.
	gone, goneTo int64
}

func newUnknownMessages(s *session, partition int32) unknownMessages {
	return unknownMessages{s: s, partition: partition, remark: remark{
		log:  s.log.Error,
		text: "the manifest does not know a message below the ledger: nothing of it is sent; publish it again if it must be delivered",
	}}
}

// between looks for messages in [from, to) that are not in a page of the manifest from there on. An
// empty page is the last; any other says nothing of what lies behind it.
func (u *unknownMessages) between(ctx context.Context, from, to int64, page []record) error {
	known := make(map[int64]bool, len(page))
	first, last := int64(-1), int64(-1) // of the gaps
	gap := func(from, to int64) {
		if from < to {
			last = to - 1
			if first < 0 {
				first = from
			}
		}
	}
	for _, rec := range page {
		gap(from, rec.offset)
		known[rec.offset] = true
		from = rec.offset + 1
	}
	if len(page) == 0 {
		gap(from, to)
	}
	if first < 0 {
		return nil
	}
	start, err := u.s.inputStart(ctx, u.partition)
	if err != nil {
		return err
	}
	if first < start {
		if u.goneTo == 0 {
			u.gone = first
		}
		u.goneTo = min(start, last+1)
		first = start
	}
	if first > last {
		return nil
	}
	return u.look(ctx, first, last, known)
}

func (u *unknownMessages) look(ctx context.Context, first, last int64, known map[int64]bool) error {
	next := first // behind the last record that is there
	err := u.s.reread(ctx, u.partition, first, last+1, func(r *kgo.Record) {
		next = r.Offset + 1
		if !known[r.Offset] && !r.Attrs.IsControl() {
			u.s.metrics.lost.WithLabelValues(lostManifest).Inc()
			u.remark.add(triggerID(u.s.topics.input.name, u.partition, r.Offset), 0)
		}
	})
	if err != nil {
		return fmt.Errorf("look for messages that the manifest does not know: %w", err)
	}
	u.notThere(next, last+1) // compaction may have taken the last ones
	return nil
}

func (u *unknownMessages) notThere(from, to int64) {
	if from < to {
		u.s.log.Warn("offsets that the manifest does not know are no longer in the input topic: nobody can tell whether they were messages",
			"partition", u.partition, "from_offset", from, "to_offset", to)
	}
}

func (u *unknownMessages) end() {
	u.remark.end()
	u.notThere(u.gone, u.goneTo)
}
