package stream

import (
	"context"
	"testing"
	"testing/synctest"
)

// Two lanes and a recovery never hold all producers, nor the memory that a batch's records need: a batch
// finds both at once, and each of the three has its turn.
func TestLanesLeaveAProducerToTheBatches(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := emptyRotation(nil)
		for range producersPerProcess {
			r.free <- &producer{}
		}
		got := make(chan *producer, maxLanes+1)
		for range maxLanes + 1 {
			go func() {
				p, err := r.borrow(t.Context())
				if err != nil {
					t.Error(err)
				}
				got <- p
			}()
		}
		synctest.Wait()
		if n := len(got); n != producersPerProcess-1 {
			t.Errorf("%d of %d are lent to lanes, want one fewer than there are", n, producersPerProcess)
		}
		if len(r.free) == 0 {
			t.Fatal("none is left to the batches")
		}
		p, err := r.take(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		lane := <-got
		got <- lane
		if lane.arenas == p.arenas {
			t.Error("a batch's records share their memory with those of lanes")
		}
		r.give(p)
		for range maxLanes + 1 {
			r.giveBack(<-got)
		}
		if len(r.free) != producersPerProcess || len(r.lent) != 0 {
			t.Errorf("%d are free and %d lent at the end", len(r.free), len(r.lent))
		}
		ended, end := context.WithCancel(t.Context())
		end()
		for range producersPerProcess - 1 {
			r.lent <- struct{}{}
		}
		if _, err := r.borrow(ended); err == nil {
			t.Error("borrow does not end with its context")
		}
	})
}
