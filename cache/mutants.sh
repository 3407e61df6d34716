#!/usr/bin/env bash
# Removes the rules of the index one at a time, as internal/mutants/run.sh says.
#   bash cache/mutants.sh [name…]
set -u
cd "$(dirname "$0")" || exit 2
. ../internal/mutants/run.sh
models='PostingIsTheMultiset|AnswersAreExact|AuditNeverNames|LargeTransactionIsExact|LoadStays|LargeTransactionTakes|DictionaryAgainstMap'
stages=("-$models" "$models")

mutant generation-on-lookup lookup.go 'p != nil && p.gen == e.gen' 'p != nil'
mutant generation-on-apply apply.go 'if p = e.near.Value(); p == nil || p.gen != e.gen {' 'if p = e.near.Value(); p == nil {'
mutant generation-of-what-was-found-ahead apply.go 'if p == nil || p.gen != e.gen { //' 'if p == nil { //'
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
	return c.portion' LargeTransactionIsExactFromAFile
mutant spilled-log-comes-first txnlog.go 'if err := l.eachIn(buf, &lastID, do); err != nil {' 'if err := error(nil); err != nil {'
mutant truncate-forgets-the-file txnlog.go 'l.spilled, l.failed = l.spilled[:0], nil' 'l.failed = nil'
mutant failed-spill-stays-in-memory changes.go 'c.file.end = end
			return' 'c.file.end = end; c.run = c.run[:0]; return' LargeTransactionIsExactFromAFile
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
mutant sweep-bars-what-is-read-anew reclaim.go 'if e.filled {' 'if e.filled && e.ticket == nil {'
mutant sweep-waits-for-pins reclaim.go 'st.pins.oldest() <= dead.barred' 'false'
mutant sweep-chooses-by-pins reclaim.go 'st.clients.choose(st.pins.oldest())' 'st.clients.choose(st.pins.now())'
mutant sweep-spares-the-taken-up reclaim.go 'st&stateValue >= since ||' ''
mutant many-removals-are-counted texts.go 's, c>>1>>shardBits, 1-2*int64(c&1)' 's, c>>1>>shardBits, 1'
mutant pending-follow-the-log txn.go 'if err := t.log.each(do); err != nil {
		return err
	}' ''
mutant a-load-counts-an-id-once ids.go 'at < to-from' 'at < to-from && false'
mutant taking-up-is-noted dictionary.go '*st = *st&^stateValue | d.pins.now()&stateValue' ''
mutant duplicates-are-counted posting.go 'if n := p.extra[c]; n > 1 {' 'if n := p.extra[c] * 0; n > 1 {'
# A reading that ends after a TRUNCATE was applied: its rows are of before.
mutant ticket-knows-truncate apply.go 'g := gathered{xid: xid, truncate: truncate}' 'g := gathered{xid: xid}' TruncateDuringAReading
# Every rule of the entry and its generation.
mutant no-rows-no-answer lookup.go 'if e.rows == 0 {' 'if false {'
mutant ticket-is-shared lookup.go 'if t == nil {
			t = &ticket' 'if true {
			t = &ticket'
mutant ticket-is-closed lookup.go 'e.ticket = nil
	if err' 'if err' 'BrokenReadingAnswersNobody|SourceErrorReachesTheLookup' # others would ask it for ever
mutant broken-fill-answers-nobody lookup.go 'if t.view != nil && x.serving' 'if x.serving'
mutant disown-counts apply.go 'e.gen++
	e.filled = false' 'e.filled = false'
mutant rows-are-counted apply.go 'rows += balance(portion)' '_ = balance(portion)'
mutant truncate-empties apply.go 'if truncate {
		rows = 0
	}' ''
mutant truncate-reaches-all apply.go 'to = st.dir.len()' 'to = from'
mutant truncate-forgets-clients apply.go '		t.st.clients.forget()
' ''
mutant truncate-forgets-ids apply.go 'ids.reset()' ''
mutant truncate-voids-what-was-staged txn.go 't.clear()
	t.truncated' 't.truncated'
mutant part-is-disowned apply.go 'e.disown() // it holds a part of the transaction' ''
mutant too-large-leaves-the-shelf apply.go 'if p != nil && !x.shelf.recharge(r, p) {' 'if p != nil && x.shelf.recharge(r, p) && false {'
mutant contradiction-stops-answers apply.go 'if err := x.applyAll(t, c.Xid); err != nil {
		return x.fail(c, err)' 'if err := x.applyAll(t, c.Xid); err != nil {
		return err'
mutant fault-of-a-reading-stops-answers lookup.go 'x.fault.CompareAndSwap(nil, &fault{st, err})' ''
mutant removal-needs-a-row apply.go 'if rows < 0 {' 'if false {'
# The id map.
mutant id-is-taken-once apply.go 'if !free {' 'if free = true; !free {'
mutant unchanged-restaurant-stays txnlog.go 'if r.restaurant != 0 {' 'if true {'
mutant unchanged-client-stays txnlog.go 'if r.client != 0 {' 'if true {'
mutant id-moves apply.go 'newID, next = r.newID, r.pair(old)' 'next = r.pair(old)'
# Load and handover.
mutant load-hides-the-old load.go 'x.serving.Store(nil)
	x.cur' 'x.cur'
mutant load-resets-the-position load.go 'x.applied = 0' ''
mutant load-counts-rows load.go 'e.rows = list.rows' 'e.rows = uint32(len(list.clients))'
mutant settle-drops-visible-only settle.go 'if !s.Sees(a.xid) {
				rest' 'if s.Sees(a.xid) {
				rest'
# Visibility.
mutant visible-below-xmin vocabulary.go 'if xid < s.Xmin {
		return true' 'if xid < s.Xmin {
		return false' SettleStopsBeforeTheFirstInvisible # in others every reading would be one again, until it is given up
mutant invisible-from-xmax vocabulary.go 'if xid >= s.Xmax {' 'if xid > s.Xmax {'
mutant invisible-in-progress vocabulary.go 'return !running' 'return true || running'
# Reclaiming. Two rules have no mutant, for nothing is wrong without them: a transaction's pin
# (one goroutine stages and sweeps, so no sweep falls between; it is there for two transactions
# at once) and, when numbers are chosen, that they have no rows (release asks again). Nor have
# the resets of the list of unsettled transactions, which without them settles later.
mutant release-asks-for-no-rows reclaim.go 'st&stateIdle == 0 || st' 'st'
mutant recipients-hold-a-pin lookup.go 'epoch: st.pins.enter()}' 'epoch: st.pins.now()}'
mutant barred-until-bar reclaim.go 'st.pins.advance()-1' 'chosen-1'
# The audit.
audits='Audit'
mutant audit-asks-the-snapshot audit.go '(a.at.Sees(xid) || n < a.next)' 'n < a.next' $audits
mutant audit-asks-it-of-early-ones audit.go 'if !s.Sees(e.xid) {' 'if true {' $audits
mutant audit-keeps-early-ones audit.go 'if !s.Sees(e.xid) {' 'if false {' $audits
mutant audit-needs-a-snapshot-that-covers audit.go 'if !allSeen(a.before, s) {' 'if false {' $audits
mutant audit-knows-what-was-before audit.go 'a.before = x.unsettled.list()' '' $audits
mutant audit-knows-what-is-ahead audit.go 'captured.seen == nil || !captured.seen.Sees(xid)' 'true' $audits
mutant audit-knows-what-is-not-ahead audit.go 'captured.seen == nil || !captured.seen.Sees(xid)' 'false' $audits
mutant audit-knows-truncate audit.go '*c = account{emptied: true}' '' $audits
mutant audit-forgets-truncated-rows audit.go 'if !c.emptied {' 'if true {' $audits
mutant audit-holds-a-pin audit.go 'pin: st.pins.enter()' 'pin: 0' $audits
mutant audit-is-of-one-load audit.go 'a != nil && a.st == st' 'a != nil' $audits
mutant audit-ends-with-its-load audit.go 'if a.index.serving.Load() != a.st {' 'if false {' $audits
mutant audit-counts-rows audit.go 'differ := d.Index != d.Table' 'differ := false' $audits
mutant audit-compares-clients audit.go 'differ = differ || !c.posting.equals(&ahead)' '' $audits
mutant half-of-what-was-set-aside apply.go '&& st.setAside(old) {' '&& false {'
mutant lost-connection-doubts-what-was-read reread.go 'if e.filled {' 'if false {' WhatACrash
mutant lost-connection-doubts-what-is-being-read reread.go 'e.ticket.again = true' '_ = 0' WhatACrash
mutant growth-makes-room shelf.go 'if grown && s.outgrown(cost-p.cost) {' 'if false {' GrowthStays
mutant growth-is-waited-for shelf.go '	s.settle()
		s.growth = by' '	s.growth = by' GrowthStays
mutant shrunk-page-is-a-list idpage.go 'if g.rows--; g.rows <= fewAgain {' 'if g.rows--; false {' FewRowsOfMany
mutant shrunk-list-gives-room-back idpage.go 'if 4*len(g.few) < cap(g.few) {' 'if false {' FewRowsOfMany
summary
