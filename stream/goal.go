package stream

import (
	"context"
	"fmt"
	"maps"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// goal is where `--until-now` ends: what the input topic held when Run began.
type goal struct {
	ends map[int32]int64
}

// set asks once in an engine's life; later sessions keep the first answer.
func (g *goal) set(ctx context.Context, cl *kgo.Client, topic string) error {
	if g.ends != nil {
		return nil
	}
	spans, err := inputSpans(ctx, cl, topic)
	if err != nil {
		return err
	}
	g.ends = map[int32]int64{}
	for partition, s := range spans {
		g.ends[partition] = s.end
	}
	return nil
}

// await returns when every partition is taken and every message below the goal is in both sinks:
// our own by what was delivered, those of other members by the group's offsets. Not by the ledger:
// a member that died between the two commits has left it ahead, and what lies in between is recovered
// by whoever gets the partition, which may be this process.
func (g *goal) await(ctx context.Context, s *session) error {
	others := time.NewTicker(time.Second)
	defer others.Stop()
	for {
		at, changed := s.claims.reached()
		if g.met(at) {
			return nil
		}
		select {
		case <-changed:
			continue
		case <-ctx.Done():
			return nil
		case <-others.C:
		}
		group, err := s.groupOffsets(ctx)
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return sinkFault(sinkKafka, err)
		}
		for _, own := range s.claims.partitions() {
			delete(group, own)
		}
		maps.Copy(group, at)
		if g.met(group) {
			return nil
		}
	}
}

// groupOffsets are the group's stable offsets, of those partitions that have one.
func (s *session) groupOffsets(ctx context.Context) (map[int32]int64, error) {
	group := s.cfg.Kafka.Group
	found, err := kadm.NewClient(s.cl).FetchOffsets(kadm.RequireStable(ctx), group)
	if err != nil {
		return nil, fmt.Errorf("offsets of group %s: %w", group, err)
	}
	at := map[int32]int64{}
	found.Each(func(o kadm.OffsetResponse) {
		if o.Topic == s.topics.input.name && o.Err == nil && o.At >= 0 {
			at[o.Partition] = o.At
		}
	})
	return at, nil
}

func (g *goal) met(at map[int32]int64) bool {
	for partition, end := range g.ends {
		if next, taken := at[partition]; !taken || next < end {
			return false
		}
	}
	return true
}
