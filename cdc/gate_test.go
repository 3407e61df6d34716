package cdc

import (
	"sync"
	"testing"

	"example.com/tiffin/cache"
)

// isPassed does not wait: a gate is opened and shut before the call that does it returns.
func (w *waiter) isPassed() bool {
	select {
	case <-w.passed:
		return true
	default:
		return false
	}
}

// A gate is open up to its position and no further, for who waits and for who comes.
func TestGateIsOpenUpToItsPosition(t *testing.T) {
	t.Parallel()
	var g gate
	waiting := []*waiter{g.enter(9, 0), g.enter(10, 0), g.enter(11, 0)}
	if g.advance(8); waiting[0].isPassed() {
		t.Error("who waits for 9 passed at 8")
	}
	g.advance(10)
	come := []*waiter{g.enter(9, 0), g.enter(10, 0), g.enter(11, 0)}
	for i, want := range []bool{true, true, false} {
		if waiting[i].isPassed() != want || come[i].isPassed() != want {
			t.Errorf("the gate is at 10: who waited for %d passed: %t, who comes: %t", 9+i, waiting[i].isPassed(), come[i].isPassed())
		}
	}
	g.advance(11)
	if !waiting[2].isPassed() || !come[2].isPassed() {
		t.Error("who waited for 11 waits on")
	}
	if early := g.enter(12, 0); early.isPassed() {
		t.Error("who comes for 12 passed at 11")
	} else if g.leave(early); g.waiting.Load() != 0 {
		t.Error("who left still waits")
	}
}

// No fence misses the advance that it waits for, however the two meet.
func TestGateLosesNobody(t *testing.T) {
	t.Parallel()
	var g gate
	var wg sync.WaitGroup
	const last = 2000
	for i := range 8 {
		wg.Go(func() {
			for lsn := cache.LSN(i); lsn <= last; lsn += 3 {
				w := g.enter(lsn, 0)
				<-w.passed
				if w.shut || g.position() < lsn {
					t.Errorf("passed %d at %d", lsn, g.position())
				}
				g.leave(w)
			}
		})
	}
	for lsn := range cache.LSN(last + 1) {
		g.advance(lsn)
	}
	wg.Wait()
	if n := g.waiting.Load(); n != 0 {
		t.Errorf("%d waiting at the end", n)
	}
}

// A gate that is shut sends its waiters away, told apart from passing.
func TestShutGateTells(t *testing.T) {
	t.Parallel()
	var g gate
	g.advance(10)
	w := g.enter(20, g.history())
	was := g.history()
	g.shut()
	if !w.isPassed() || !w.shut || g.position() != 0 {
		t.Errorf("shut %v at %v", w.shut, g.position())
	}
	// A position asked for before is one of another history, wherever the gate is now.
	for _, at := range []cache.LSN{0, 30} {
		g.advance(at)
		w = g.enter(20, was)
		if !w.isPassed() || !w.shut {
			t.Errorf("a position of before waits or passed at %v", at)
		}
	}
}
