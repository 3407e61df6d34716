package stream

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
)

// groupOffsets asks what the group has committed; transactions that are still open do not count.
func (v *verifier) groupOffsets(ctx context.Context) (map[int32]position, error) {
	resp, err := kadm.NewClient(v.cl).FetchOffsetsForTopics(ctx, v.Kafka.Group, v.Kafka.Input)
	if err != nil {
		return nil, fmt.Errorf("offsets of group %s: %w", v.Kafka.Group, err)
	}
	at := map[int32]position{}
	for partition, o := range resp[v.Kafka.Input] {
		if o.Err != nil {
			return nil, fmt.Errorf("offsets of group %s: %w", v.Kafka.Group, o.Err)
		}
		if o.At < 0 {
			continue
		}
		sent, err := parseSent(&o.Metadata)
		if err != nil {
			return nil, err
		}
		at[partition] = position{offset: o.At, sent: sent}
	}
	return at, nil
}

// choose fixes the offsets that are compared: what the ledger knew of each partition when the
// snapshot was taken, and, should Kafka have been ahead of it, what the group had committed.
func (v *verifier) choose(ctx context.Context, offsets map[int32]position) error {
	known, err := v.db.ledger(ctx, &v.Kafka)
	if err != nil {
		return err
	}
	if len(known) == 0 {
		return fmt.Errorf("group %s, topic %s: %w", v.Kafka.Group, v.Kafka.Input, ErrNothingToVerify)
	}
	v.spans = map[int32]*judged{}
	for _, partition := range slices.Sorted(maps.Keys(known)) {
		span := known[partition]
		span.to = max(span.to, offsets[partition].offset)
		offsetAt := func(t time.Time) int64 {
			if err != nil {
				return 0
			}
			var at *int64
			if at, err = v.db.offsetAt(ctx, &v.Kafka, partition, t); at == nil {
				return span.to
			}
			return *at
		}
		span, named := within(partition, span, v.From, v.To, offsetAt)
		if err != nil {
			return err
		}
		if named {
			v.spans[partition] = &span
		}
	}
	for _, b := range slices.Concat(v.From, v.To) {
		if _, ok := known[b.Partition]; !ok && !b.isTime() {
			return fmt.Errorf("partition %d: the ledger of group %s does not know it in topic %s", b.Partition, v.Kafka.Group, v.Kafka.Input)
		}
	}
	if v.since, v.until, v.found.Messages, err = v.db.handled(ctx, &v.Kafka, v.spans); err != nil {
		return err
	}
	if len(v.To) == 0 {
		v.until = nil
	}
	return nil
}

// flightPause is how often the group is asked how far it is.
const flightPause = 100 * time.Millisecond

// awaitFlight waits until the group has committed what the ledger knows: a running daemon
// gets there by itself. Where the group stands still for too long, its offset is kept.
func (v *verifier) awaitFlight(ctx context.Context) error {
	tick := time.NewTicker(flightPause)
	defer tick.Stop()
	var last map[int32]position
	moved := time.Now()
	for {
		at, err := v.groupOffsets(ctx)
		if err != nil {
			return err
		}
		behind := map[int32]position{}
		for partition, span := range v.spans {
			span.held = -1
			if k, ok := at[partition]; ok && k.offset < span.to {
				span.held, behind[partition] = k.offset, k
			}
		}
		if !maps.Equal(behind, last) { // others may go on for ever
			last, moved = behind, time.Now()
		}
		if len(behind) == 0 || time.Since(moved) > v.Patience {
			break
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	for _, partition := range slices.Sorted(maps.Keys(v.spans)) {
		span := v.spans[partition]
		j := JudgedSpan{Partition: partition, From: span.from, To: span.to}
		if span.held >= 0 {
			j.GroupOffset = &span.held
		}
		v.found.Partitions = append(v.found.Partitions, j)
	}
	return nil
}
