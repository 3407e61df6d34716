#!/bin/sh
# Removes the rules of the index one at a time, as internal/mutants/run.sh says.
#   sh cache/mutants.sh [name…]
set -u
cd "$(dirname "$0")" || exit 2
tests=
. ../internal/mutants/run.sh

mutant generation-on-lookup lookup.go 'p != nil && p.gen == e.gen' 'p != nil'
mutant generation-on-apply apply.go 'p == nil || p.gen != e.gen' 'p == nil'
mutant load-makes-the-near-posting load.go 'e.near = weak.Make(p)' 'weak.Make(p)'
mutant fill-makes-the-near-posting lookup.go 'e.near = weak.Make(p)' 'weak.Make(p)'
mutant disown-under-ticket apply.go 'e.ticket.log = append(e.ticket.log, g)
		e.disown()' 'e.ticket.log = append(e.ticket.log, g)'
mutant disown-on-truncate apply.go 'if truncate {
		e.disown()' 'if truncate {'
mutant ticket-gathers apply.go 'g.changes = append(g.changes, portion...)' 'g.changes = append(g.changes, portion[:0]...)'
mutant spilled-runs-are-merged changes.go 'c.sift(0)
	}
	return c.portion' '}
	return c.portion'
mutant spilled-log-comes-first txnlog.go 'if err := eachIn(buf, &lastID, do); err != nil {' 'if err := error(nil); err != nil {'
mutant truncate-forgets-the-file txnlog.go 'l.spilled, l.failed = l.spilled[:0], nil' 'l.failed = nil'
mutant failed-spill-stays-in-memory changes.go 'c.file.end = end
			return' 'c.file.end = end; c.run = c.run[:0]; return'
mutant ticket-replay lookup.go 'p.replay(t.log, snap)' 'p.replay(nil, snap)'
mutant replay-asks-snapshot lookup.go 'if snap.Sees(g.xid) {' 'if false {'
mutant replay-knows-truncate lookup.go 'if g.truncate && !snap.Sees(g.xid) {' 'if false && g.truncate {'
mutant apply-asks-snapshot apply.go 'p.seen != nil && p.seen.Sees(xid)' 'false'
mutant unsettled-is-read-again lookup.go 'if allSeen(before, snap) {' 'if true || allSeen(before, snap) {'
mutant unsettled-before-change apply.go 'x.unsettled.add(c.Xid, c.End)' ''
mutant settle-names-the-one-before settle.go 'return u.txns[0].before' 'return u.last'
mutant fill-never-reads-the-shelf lookup.go 'return t.view, nil // never' 'if q := x.shelf.find(n); q != nil { return q.view(), nil }; return t.view, nil // never'
mutant fill-takes-a-generation lookup.go 'e.gen++
	p.gen' 'p.gen'
mutant load-is-skipped-by-xid apply.go 'if st.since.Sees(c.Xid) {' 'if false {'
mutant sent-again-is-skipped apply.go 'if c.End <= x.applied && c.End != 0 {' 'if false {'
mutant loads-have-generations index.go 'newDirectory(load << generationBits)' 'newDirectory(0)'
mutant withdrawn-is-not-answered lookup.go 'if x.serving.Load() != st {
		return nil, errWithdrawn
	}
	e.gen++' 'e.gen++'
mutant view-is-copied-on-write posting.go 'if p.out != nil {
		p.small' 'if false {
		p.small'
mutant big-view-is-cloned posting.go 'p.big.Clone()' 'p.big'
mutant big-view-is-renewed posting.go 'p.out = nil
			return' 'return'
mutant sweep-bars-postings reclaim.go 'x.bar(st, numbers)' ''
mutant sweep-bars-unseen-postings reclaim.go 'p == nil || p.gen != e.gen || p.containsAny(numbers)' 'p != nil && p.gen == e.gen && p.containsAny(numbers)'
mutant sweep-waits-for-pins reclaim.go 'st.pins.oldest() <= dead.barred' 'false'
mutant sweep-chooses-by-pins reclaim.go 'st.clients.choose(st.pins.oldest())' 'st.clients.choose(st.pins.now())'
mutant sweep-spares-the-taken-up reclaim.go 'st&stateValue >= since ||' ''
mutant taking-up-is-noted dictionary.go '*st = *st&^stateValue | d.pins.now()&stateValue' ''
mutant duplicates-are-counted posting.go 'if n := p.extra[c]; n > 1 {' 'if n := p.extra[c] * 0; n > 1 {'
exit "$((survivors > 0))"
