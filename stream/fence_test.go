package stream

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/twmb/franz-go/pkg/kgo"

	"example.com/tiffin/cache"
)

// committedSoFar is a fence of a source whose position the test moves.
type committedSoFar struct{ lsn atomic.Uint64 }

func (c *committedSoFar) Wait(context.Context) (cache.Mark, error) {
	return cache.Mark{LSN: cache.LSN(c.lsn.Load())}, nil
}

// The fence is raised behind each poll, not before it: what was committed before a campaign
// was published is below the mark with which the campaign is planned.
func TestFenceIsRaisedBehindEveryPoll(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newCrashWorld(t, crashKind{})
		defer w.close()
		w.subscribe(t, 0)
		const campaigns = 10
		marks := make(chan cache.LSN, campaigns)
		w.store.stored = func(t *trigger) {
			if t.campaign.ID == "fenced" {
				marks <- t.mark.LSN
			}
		}
		source := &committedSoFar{}
		cfg := w.config()
		cfg.UntilNow = false
		e, err := New(cfg, w.index, source)
		if err != nil {
			t.Fatal(err)
		}
		e.openStore = w.store.open
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- e.Run(ctx) }()
		cl := w.client(t)
		for i := range campaigns {
			source.lsn.Add(1) // a subscription is committed,
			value := fmt.Appendf(nil, campaignJSON, "small", "fenced", int64(99999999999))
			if err := cl.ProduceSync(t.Context(), &kgo.Record{Topic: "in", Value: value}).FirstErr(); err != nil { // then a campaign published
				t.Fatal(err)
			}
			if at := <-marks; at != cache.LSN(i+1) {
				t.Errorf("campaign %d is planned at %d: want what was committed before it, %d", i, at, i+1)
			}
		}
		cl.Close()
		cancel()
		if err := <-ended; err != nil && !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
}
