package stream

import (
	"context"
	"maps"
	"time"

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

// await returns when every partition is taken and every message below the goal is handled:
// our own by what was delivered, those of other members by the ledger.
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
		ledger, err := s.store.positions(ctx)
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return sinkFault(sinkPostgres, err)
		}
		for _, own := range s.claims.partitions() {
			delete(ledger, own)
		}
		maps.Copy(ledger, at)
		if g.met(ledger) {
			return nil
		}
	}
}

func (g *goal) met(at map[int32]int64) bool {
	for partition, end := range g.ends {
		if next, taken := at[partition]; !taken || next < end {
			return false
		}
	}
	return true
}
