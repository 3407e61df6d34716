package cdc

import (
	"math/rand/v2"
	"testing"

	"example.com/tiffin/cache"
)

// Reported never exceeds applied, applied never received, and none goes back, whatever comes.
func TestPositionsKeepTheirOrder(t *testing.T) {
	t.Parallel()
	for seed := range uint64(200) {
		rnd := rand.New(rand.NewPCG(seed, 0))
		p := position{settled: cache.MaxLSN}
		p.start(100)
		was := p
		end := cache.LSN(100)
		for step := range 500 {
			end += cache.LSN(rnd.IntN(3))
			switch rnd.IntN(6) {
			case 0:
				p.inTxn = true
			case 1:
				p.heard(end)
			case 2:
				p.commit(end, rnd.IntN(2) == 0)
			case 3:
				p.keepalive(end)
			case 4:
				p.settle([]cache.LSN{cache.MaxLSN, 0, was.applied}[rnd.IntN(3)])
			case 5:
				p.report()
			}
			if p.reported > p.applied || p.applied > p.received {
				t.Fatalf("seed %d, step %d: %+v", seed, step, p)
			}
			if p.reported < was.reported || p.applied < was.applied || p.received < was.received {
				t.Fatalf("seed %d, step %d: %+v after %+v", seed, step, p, was)
			}
			was = p
		}
	}
}

// A keepalive within a transaction confirms nothing; between transactions all below it.
func TestKeepaliveCountsBetweenTransactions(t *testing.T) {
	t.Parallel()
	p := position{settled: cache.MaxLSN}
	p.start(10)
	p.inTxn = true
	p.keepalive(50)
	if p.applied != 10 || p.received != 50 {
		t.Errorf("within a transaction: %+v", p)
	}
	p.commit(60, true)
	p.keepalive(70)
	if p.applied != 70 {
		t.Errorf("between transactions: %+v", p)
	}
	// The transaction may not be visible yet: what it changed must be sent again.
	if got := p.report(); got != 10 {
		t.Errorf("reported %v before it is settled, want 10", got)
	}
	p.settle(cache.MaxLSN)
	if got := p.report(); got != 70 {
		t.Errorf("reported %v after it is settled, want 70", got)
	}
}

// A 32-bit transaction id gets the epoch that brings it nearest.
func TestXidsAreExtended(t *testing.T) {
	t.Parallel()
	const epoch = uint64(1) << 32
	for _, c := range []struct {
		ref  uint64
		xid  uint32
		want uint64
	}{
		{700, 702, 702},
		{3*epoch + 700, 690, 3*epoch + 690},
		{3*epoch + 5, 0xfffffff0, 2*epoch + 0xfffffff0},
		{3*epoch - 5, 7, 3*epoch + 7},
		{epoch + 1<<31 - 1, 0, epoch},
	} {
		if got := extend(c.ref, c.xid); got != c.want {
			t.Errorf("extend(%d, %d) = %d, want %d", c.ref, c.xid, got, c.want)
		}
	}
}

// A slot may be confirmed below what was applied: the server sends that again, and it is known.
func TestPositionsOfAReconnectDoNotGoBack(t *testing.T) {
	t.Parallel()
	p := position{received: 120, applied: 100, reported: 80, settled: cache.MaxLSN, inTxn: true}
	p.start(60)
	if want := (position{received: 120, applied: 100, reported: 80, settled: cache.MaxLSN}); p != want {
		t.Errorf("after a reconnect %+v, want %+v", p, want)
	}
}
