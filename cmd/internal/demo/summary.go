package demo

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
)

// How often the summary is refreshed, and a line added where there is no terminal.
const (
	refreshEvery = time.Second
	lineEvery    = 5 * time.Second
)

// sample is the figures of one moment and what follows from those before.
type sample struct {
	counts
	at        time.Duration // since the demo began
	perSecond float64       // deliveries, over the last refreshes
	first     time.Duration // when the first delivery was seen; 0: not yet
	kept      tally
	freshness freshness
}

// refresh shows the summary until ctx ends.
func (s *show) refresh(ctx context.Context) error {
	period := refreshEvery
	if !s.options.Terminal {
		period = lineEvery
	}
	s.print(s.invitation() + "\n")
	paint := painter{out: s.options.Out}
	var now sample
	ticker := time.NewTicker(period)
	defer ticker.Stop()
	for {
		next, err := s.sample(ctx, now)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		now = next
		if s.options.Terminal {
			paint.show(now.block())
		} else {
			s.print(now.line() + "\n")
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

func (s *show) print(text string) { _, _ = fmt.Fprint(s.options.Out, text) } // as in painter.show

func (s *show) sample(ctx context.Context, before sample) (sample, error) {
	c, err := s.count(ctx)
	if err != nil {
		return sample{}, err
	}
	now := sample{counts: c, at: time.Since(s.begun), first: before.first, kept: s.promises.tally(), freshness: readFreshness(s.registry)}
	if now.first == 0 && c.records > 0 {
		now.first = now.at
	}
	if before.at > 0 {
		rate := float64(c.records-before.records) / (now.at - before.at).Seconds()
		const weight = 0.3 // of the newest second: calm, and yet not slow
		now.perSecond = before.perSecond + weight*(rate-before.perSecond)
		if before.perSecond == 0 {
			now.perSecond = rate
		}
	}
	return now, nil
}

func (n sample) sinks() string {
	switch difference := n.rows - n.records; {
	case difference == 0:
		return "agree"
	case difference > 0:
		return fmt.Sprintf("%d on their way to the topic", difference)
	default:
		return "the table is behind the topic" // the count was taken between the two; the end will tell
	}
}

func (n sample) block() string {
	var b strings.Builder
	fmt.Fprintf(&b, "tiffin demo, %s\n\n", n.at.Round(time.Second))
	fmt.Fprintf(&b, "  subscriptions   %s of %d restaurants, changing\n", humanize.Comma(n.subscriptions), restaurants)
	fmt.Fprintf(&b, "  campaigns       %s published, %s handled\n", humanize.Comma(n.published), humanize.Comma(n.handled))
	fmt.Fprintf(&b, "  deliveries      %.0f/s\n", n.perSecond)
	fmt.Fprintf(&b, "  latency p50/p99 commit to index %s, fence %s\n", n.freshness.visible, n.freshness.fence)
	fmt.Fprintf(&b, "                  campaign to both sinks %s\n", n.freshness.delivery)
	fmt.Fprintf(&b, "  freshness       subscribed just before a campaign: %d, served %d\n", n.kept.subscribed, n.kept.served)
	fmt.Fprintf(&b, "                  removed just before a campaign: %d, served %d\n", n.kept.removed, n.kept.stale)
	fmt.Fprintf(&b, "  sinks           topic %s, table %s: %s\n", humanize.Comma(n.records), humanize.Comma(n.rows), n.sinks())
	return b.String()
}

func (n sample) line() string {
	return fmt.Sprintf("%4.0fs  subscriptions %d  campaigns %d/%d  deliveries %.0f/s  %s  topic %d  table %d  %s",
		n.at.Seconds(), n.subscriptions, n.handled, n.published, n.perSecond, n.freshness, n.records, n.rows, n.sinks())
}

// farewell is the last word, after the daemon has stopped.
func farewell(c counts, rows, records int64, equal bool, kept tally) string {
	verdict := "equal, row for row"
	if !equal {
		verdict = "DIFFERENT"
	}
	return fmt.Sprintf("\n%d campaigns published, %d handled; %d records in the topic, %d rows in the table: %s\n"+
		"subscribed just before a campaign: %d clients, %d missed; removed just before: %d clients, %d served\n",
		c.published, c.handled, records, rows, verdict, kept.subscribed, kept.missed, kept.removed, kept.stale)
}
