package cache

import (
	"slices"
	"sync"
)

// MaxLSN is above every position: what Settle returns when nothing is unsettled.
const MaxLSN = ^LSN(0)

// unsettled are the applied transactions that no snapshot is known to see. Postgres streams
// a commit as soon as its record is flushed and shows it to snapshots afterwards
// (CommitTransaction in src/backend/access/transam/xact.c: RecordTransactionCommit comes
// before ProcArrayEndTransaction), with a synchronous standby even a round trip later.
type unsettled struct {
	mu   sync.Mutex
	txns []applied // in commit order; appended to and replaced, never changed in place
	last LSN       // end of the last transaction applied or skipped
}

type applied struct {
	xid    uint64
	before LSN // end of the transaction before
}

// Settle takes the transactions off the list that are visible in s, a snapshot of the
// primary, and returns the highest position up to which every applied transaction is known
// to be visible: what may be confirmed to the server, if applied. It is MaxLSN when the list
// is empty, and may be 0 after a load: never go back from what was confirmed before. Safe for
// concurrent use.
func (x *Index) Settle(s Snapshot) LSN { return x.unsettled.settle(s) }

func (u *unsettled) settle(s Snapshot) LSN {
	u.mu.Lock()
	defer u.mu.Unlock()
	if slices.ContainsFunc(u.txns, func(a applied) bool { return s.Sees(a.xid) }) {
		var rest []applied // a new array: fills read the old one
		for _, a := range u.txns {
			if !s.Sees(a.xid) {
				rest = append(rest, a)
			}
		}
		u.txns = rest
	}
	if len(u.txns) == 0 {
		return MaxLSN
	}
	return u.txns[0].before
}

// add must come before the transaction changes any restaurant.
func (u *unsettled) add(xid uint64, end LSN) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.txns = append(u.txns, applied{xid, u.last})
	u.last = end
}

// skip notes a transaction that the load's snapshot saw.
func (u *unsettled) skip(end LSN) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.last = end
}

// list returns the transactions that a reading begun now must see.
func (u *unsettled) list() []applied {
	u.mu.Lock()
	defer u.mu.Unlock()
	return slices.Clip(u.txns)
}

func (u *unsettled) len() int {
	u.mu.Lock()
	defer u.mu.Unlock()
	return len(u.txns)
}

func (u *unsettled) reset() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.txns, u.last = nil, 0
}

func allSeen(txns []applied, s Snapshot) bool {
	return !slices.ContainsFunc(txns, func(a applied) bool { return !s.Sees(a.xid) })
}
