package stream

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"
)

// numbering lets one transaction of this process after the other insert rows. They take their ids from one
// sequence: of what several sessions insert at once the ids are mixed, and each would have to be read back,
// which costs the server half as much as to insert it. A turn is a piece of up to rowsPerInsert rows of a
// large campaign, or all of a batch; the transactions are open side by side. Safe for concurrent use.
//
// Batches and large campaigns alternate. Of these who has the fewest rows left goes first: campaigns of the
// same size that took turns would all be inserted last, and none sent meanwhile. So that none waits
// for ever, one of fairTurns is that of who waits longest.
//
// A turn is no lock: after turnPatience whoever waits inserts without one, and reads its ids back. Who has the turn
// may be waiting, in Postgres, for a lock that only the end of the other's transaction frees.
type numbering struct {
	mu      sync.Mutex
	busy    bool
	large   bool    // the last turn was a large campaign's
	turns   int     // of large campaigns
	waiting []*turn // in the order in which they came
}

// turn is what is waited for.
type turn struct {
	left int           // rows of a large campaign; 0: a batch
	come chan struct{} // closed then
}

const (
	fairTurns    = 8
	turnPatience = time.Second // a piece takes 20 ms, and 2 s where Postgres is nearly too slow for its time-out
)

// take waits for a turn: of a large campaign that has so many rows left, or, with 0, of a batch. Without one
// there is none to give back.
func (n *numbering) take(ctx context.Context, left int) (ours bool, err error) {
	t := &turn{left: left, come: make(chan struct{})}
	n.mu.Lock()
	n.waiting = append(n.waiting, t)
	if !n.busy {
		n.next()
	}
	n.mu.Unlock()
	patience := time.NewTimer(turnPatience)
	defer patience.Stop()
	select {
	case <-t.come:
		return true, nil
	case <-patience.C:
	case <-ctx.Done():
		err = fmt.Errorf("wait for the rows of another transaction of this process: %w", context.Cause(ctx))
	}
	n.mu.Lock()
	i := slices.Index(n.waiting, t)
	if i >= 0 {
		n.waiting = slices.Delete(n.waiting, i, i+1)
	}
	n.mu.Unlock()
	if i < 0 { // it came at the same time
		n.give()
	}
	return false, err
}

// give ends a turn.
func (n *numbering) give() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.next()
}

// goOn reports whether a large campaign's next turn follows the one that it has: nobody who waits goes before.
func (n *numbering) goOn(left int) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	us := &turn{left: left}
	if slices.ContainsFunc(n.waiting, func(t *turn) bool { return n.compare(t, us) < 0 || t.left > 0 && n.fair() }) {
		return false
	}
	n.turns++
	return true
}

// next begins a turn, if anybody waits. It is called with mu held.
func (n *numbering) next() {
	n.busy = len(n.waiting) > 0
	if !n.busy {
		return
	}
	first := slices.MinFunc(n.waiting, n.compare)
	n.large = first.left > 0
	if n.large {
		n.turns++
	}
	n.waiting = slices.DeleteFunc(n.waiting, func(t *turn) bool { return t == first })
	close(first.come)
}

// compare is below 0 when a goes before b; who came first is first of equals.
func (n *numbering) compare(a, b *turn) int {
	switch aLarge, bLarge := a.left > 0, b.left > 0; {
	case aLarge != bLarge && aLarge == n.large:
		return 1
	case aLarge != bLarge:
		return -1
	case n.fair():
		return 0
	default:
		return a.left - b.left
	}
}

// fair says that the next turn of a large campaign is that of who waits longest.
func (n *numbering) fair() bool { return n.turns%fairTurns == fairTurns-1 }
