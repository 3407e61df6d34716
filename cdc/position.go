package cdc

import "example.com/tiffin/cache"

// position keeps the three positions apart. received: the server sent everything below.
// applied: the index holds everything below. reported: what the server was told, from where
// it may be asked to send again. reported <= applied <= received, always.
type position struct {
	received, applied, reported cache.LSN
	// settled is the position below which every applied transaction is visible to
	// snapshots; cache.MaxLSN when there is no other.
	settled cache.LSN
	inTxn   bool
}

// start begins at the slot's confirmed position: the server sends what was committed after.
// Everything applied before is kept, for the server may send some of it again.
func (p *position) start(confirmed cache.LSN) {
	p.inTxn = false
	p.applied = max(p.applied, confirmed)
	p.received = max(p.received, p.applied)
	p.reported = max(p.reported, confirmed)
}

// heard records that the server sent the log up to here.
func (p *position) heard(at cache.LSN) { p.received = max(p.received, at) }

// commit ends a transaction that changed the index (or, with changed false, did not).
func (p *position) commit(end cache.LSN, changed bool) {
	p.inTxn = false
	if changed && p.settled == cache.MaxLSN {
		p.settled = p.applied // all below is visible, this transaction perhaps not yet
	}
	p.received = max(p.received, end)
	p.applied = max(p.applied, end)
}

// keepalive records the server's log end. Between transactions nothing below it is left to
// apply, so an idle table does not pin the log. Within one it lies before that one's commit,
// but says nothing.
func (p *position) keepalive(walEnd cache.LSN) {
	p.heard(walEnd)
	if !p.inTxn {
		p.applied = max(p.applied, walEnd)
	}
}

// settle records how far a snapshot sees what was applied.
func (p *position) settle(floor cache.LSN) { p.settled = floor }

// report returns the position to report now, and remembers it. It never goes back.
func (p *position) report() cache.LSN {
	p.reported = max(p.reported, min(p.applied, p.settled))
	return p.reported
}
