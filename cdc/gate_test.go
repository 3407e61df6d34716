package cdc

import (
	"sync"
	"testing"

	"example.com/tiffin/cache"
)

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
	<-w.passed
	if !w.shut || g.position() != 0 {
		t.Errorf("shut %v at %v", w.shut, g.position())
	}
	// A position asked for before is one of another history, wherever the gate is now.
	for _, at := range []cache.LSN{0, 30} {
		g.advance(at)
		w = g.enter(20, was)
		if <-w.passed; !w.shut {
			t.Errorf("a position of before passed at %v", at)
		}
	}
}
