package stream_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"example.com/tiffin/cache"
	"example.com/tiffin/stream"
)

// coldIndex has to read its large restaurant from the source, which takes until it is let on.
type coldIndex struct {
	*cache.Index
	asked, on chan struct{}
}

func (c *coldIndex) LookupReading(ctx context.Context, restaurant string, _ int) (*cache.Recipients, error) {
	if restaurant == "large" {
		return nil, cache.ErrManyRows
	}
	return c.Index.Lookup(ctx, restaurant)
}

func (c *coldIndex) Lookup(ctx context.Context, restaurant string) (*cache.Recipients, error) {
	if restaurant == "large" {
		close(c.asked)
		select {
		case <-c.on:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	return c.Index.Lookup(ctx, restaurant)
}

// Reading a large restaurant from the source holds up its own partition only, whatever the reading
// finds: as many subscribers as were expected, few, none, or a record that is too large.
func TestReadingALargeRestaurantHoldsUpItsPartitionOnly(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name    string
		found   int
		content int
	}{{"many", 100, 0}, {"few", 5, 0}, {"few with large records", 5, 60_000}, {"nobody", 0, 0}, {"too large", 100, 1<<20 - 400}} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			list := clients(c.found)
			r := newRig(t, 2, map[string][]string{"large": list, "small": {"c"}})
			r.cfg.MaxTransactionRecords = 30
			index := &coldIndex{r.index, make(chan struct{}), make(chan struct{})}
			e, err := stream.New(r.cfg, index, noFence{})
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error, 1)
			go func() { done <- e.Run(ctx) }()
			stop := func() error {
				cancel()
				err := <-done
				done <- err
				return err
			}
			defer func() { _ = stop() }()
			var want []delivery
			add := func(partition int32, m message, to []string) int64 {
				offset := r.publish(partition, m.json(t))
				for _, c := range to {
					want = append(want, r.expect(m, partition, offset, c))
				}
				return offset
			}
			large := campaign("large", "l")
			if c.content > 0 {
				large = noisy("large", "l", c.content)
			}
			refused, to := c.content > 1<<19, list
			if refused {
				large.Content, to = strings.Repeat("x", c.content), nil
			}
			add(0, large, to)
			add(0, campaign("small", "behind it"), []string{"c"})
			<-index.asked
			for i := range 3 {
				next := add(1, campaign("small", fmt.Sprint(i)), []string{"c"}) + 1
				r.eventually("a small campaign of the other partition", func() bool { return r.committed(1).At == next })
			}
			if at := r.committed(0).At; at > 0 {
				t.Errorf("the reading partition's offset is %d", at)
			}
			close(index.on)
			r.eventually("the large campaign and what was behind it", func() bool { return r.committed(0).At == 2 })
			if err := stop(); err != nil {
				t.Fatal(err)
			}
			r.wantBoth(want)
			outcome := "delivered"
			switch {
			case refused:
				outcome = "malformed"
				r.wantDeadLetter(0, "too_large", nil, large.json(t), nil)
			case c.found == 0:
				outcome = "no_subscribers"
			}
			if got, n, _ := r.manifest(0, 0); got != outcome || outcome == "delivered" && int(n) != c.found {
				t.Errorf("manifest: %s, %d: want %s", got, n, outcome)
			}
		})
	}
}
