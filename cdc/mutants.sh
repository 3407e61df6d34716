#!/usr/bin/env bash
# Removes the rules of following the log one at a time, as internal/mutants/run.sh says. The
# tests need no server but for the last ones.
#   bash cdc/mutants.sh [name…]
set -u
cd "$(dirname "$0")" || exit 2
. ../internal/mutants/run.sh
stages=('Position|GivenUp|Keepalive|Xid|Gate|Changes|Changed|Known|OutOfOrder|Tuples|Captures|FuzzDecode|FuzzCopy|Gathers')

mutant reported-not-above-applied position.go 'min(p.applied, p.settled)' 'p.settled'
mutant reported-not-above-settled position.go 'min(p.applied, p.settled)' 'p.applied'
mutant reported-never-goes-back position.go 'max(p.reported, min(p.applied, p.settled))' 'min(p.applied, p.settled)'
mutant keepalive-between-transactions position.go 'if !p.inTxn {' 'if true {'
mutant keepalive-advances position.go 'p.applied = max(p.applied, walEnd)' ''
mutant backlog-is-told-by-one-clock session.go 'sent.Sub(done.commit.Time)' 'time.Since(done.commit.Time)'
mutant keepalive-ends-a-backlog session.go 's.behind, s.wire.busy = false, false' ''
mutant change-is-unsettled position.go 'if changed && p.settled == cache.MaxLSN {' 'if false {'
mutant applied-never-goes-back position.go 'p.applied = max(p.applied, confirmed)' 'p.applied = confirmed'
mutant xid-is-extended xid.go 'ref + uint64(int64(int32(xid-uint32(ref))))' 'uint64(xid)'
mutant seen-by-xid assemble.go 'again || a.snapshot.Sees(a.xid)' 'again'
mutant sent-again-is-skipped assemble.go 'again || a.snapshot.Sees(a.xid)' 'a.snapshot.Sees(a.xid)'
mutant change-within-a-transaction assemble.go 'if !a.open {
		return fmt.Errorf("change' 'if false {
		return fmt.Errorf("change'
mutant truncate-within-a-transaction assemble.go 'if !a.open {
		return errors.New("truncate' 'if false {
		return errors.New("truncate'
mutant truncate-of-ours-only assemble.go 'if !slices.Contains(oids, a.oid) {' 'if !slices.Contains(oids, a.oid) && false {'
mutant begin-within-none assemble.go 'if a.open {
		return errors.New("transaction begins' 'if false {
		return errors.New("transaction begins'
mutant skipped-is-not-staged assemble.go 'if a.skip || len(body) < 4 {' 'if len(body) < 4 {'
mutant skipped-truncate-is-not-staged assemble.go 'if err != nil || a.skip {
		return err' 'if err != nil {
		return err'
mutant unfit-relation-stops assemble.go 'if f.err != nil {
		return f.err' 'if false {
		return f.err'
mutant identity-is-compared assemble.go 'case f.layout.keyed != a.loaded.keyed || f' 'case false && f'
mutant another-table-of-the-name assemble.go 'case rel.oid != a.oid:' 'case false:'
mutant renamed-table assemble.go 'case rel.name != a.table:' 'case false:'
mutant unchanged-toast-is-old assemble.go 'a.row.new[i] = a.row.old[i]' '_ = i'
mutant tuple-has-the-columns-announced assemble.go '(len(a.row.new) > 0 && len(a.row.new) != l.columns)' '(false)'
mutant old-tuple-has-the-columns-announced assemble.go '(a.row.oldKind != 0 && len(a.row.old) != l.columns)' 'false'
mutant values-end-with-the-message message.go 'if n < 0 || n > len(c.rest) {' 'if n < 0 {'
mutant counts-end-with-the-message message.go 'if c.short {
			break
		}
		oids' 'oids'
mutant gate-waits gate.go 'if w.lsn <= to {' 'if true {' GateIsOpen
mutant gate-opens gate.go 'if w.lsn <= to {' 'if w.lsn < to {' GateIsOpen
mutant gate-looks-before-it-waits gate.go 'w.shut || g.position() >= lsn' 'w.shut' GateIsOpen
mutant shut-gate-forgets gate.go 'g.at.Store(0)' ''
mutant shut-gate-tells gate.go 'w.shut = true' ''
mutant shut-gate-knows-its-history gate.go 'w.shut = history != g.history()' 'w.shut = false'
mutant growth-is-the-largest-of-late retention.go 'slices.Max(r.growths[:])' 'slices.Max(r.growths[(r.looks-1)%len(r.growths):][:1])'
# Those of the source.
need_servers
stages=('TestFenceSeesWhatTheLogDoesNotTell|TestPlanMendsThePublication|TestCommittedBeforeWaitIsServed|TestFenceOff')
mutant fence-asks-for-the-footing footing.go 'if !s.footing.holds(footing) {' 'if false {' FenceSees
mutant fence-waits fence.go 'w := r.gate.enter(lsn, history)' 'w := r.gate.enter(0, history)' CommittedBefore
mutant fences-share-later-questions-only fence.go '		a.next = nil
		a.busy' '		a.busy' 'FencesAtTheSameTime|CommittedBefore'
mutant publication-is-older-than-the-slot ensure.go 'err := p.dropSlot(ctx, cfg, conn, "publication")' 'err := error(nil)' OlderSlotIsNotReadOnFrom
mutant useless-slot-is-dropped ensure.go 'return p.dropSlot(ctx, cfg, conn, "publication")' 'return nil' PublicationMadeAgain
mutant altered-back-is-altered footing.go 'case differs(groundPublication):' 'case false:' FenceSees
mutant partition-that-came-back footing.go 'THEN c.xmin END, i.xmin' 'THEN c.relfilenode END' FenceSeesPartitions
mutant partition-of-another-identity footing.go 'THEN c.xmin END' 'THEN c.relfilenode END' FenceSeesAPartitions
mutant partition-with-another-key footing.go 'AND (x.indisprimary OR x.indisreplident)' 'AND false' FenceSeesAPartitions
mutant altered-columns footing.go 'case differs(groundColumns):' 'case false:' FenceSees
mutant another-column-of-the-name footing.go "attnum || ':' || xmin" 'attnum::text' FenceSees
mutant lost-connection-doubts-readings reader.go 'r.idx.Reread()' '_ = r' ReadingThatACrash
mutant load-is-flushed load.go 'synchronous_commit = local' 'synchronous_commit = off' WhatWasLoaded
mutant heirs-are-refused table.go 'case heir.name != "":' 'case false:' TableWithHeirs
mutant heirs-that-come footing.go 'WHERE inhparent = " + oid + ")" //' 'WHERE false)" //' TableWithHeirs
mutant load-is-guarded reader.go 'guarded(ctx, &r.cfg, endLoading,' 'guarded(ctx, &r.cfg, func(context.Context, *Config, *pgx.Conn, slotFacts) error { return nil },' SlotIsBoundedWhile
mutant old-walsender-meets-no-open-transaction ensure.go 'p.loads && p.server.loseChanges()' 'false' PublishedBeside
mutant partitions-are-tended-without-end reader.go ' || reason == reasonPartitions' '' PartitionsAreTended
mutant audit-makes-no-publication audit.go 'cfg.ownSlot, cfg.Failover = true, false' 'cfg.Setup, cfg.Failover = SetupAuto, false' AuditMakesNo
mutant audits-slot-goes-with-it ensure.go 'if cfg.ownSlot {' 'if false {' AuditsSlotGoes
mutant unlogged-for-a-while footing.go 'SELECT CASE reltoastrelid WHEN 0 THEN relfilenode ELSE reltoastrelid END FROM' 'SELECT 0 FROM' FenceSees
mutant looks-wait-for-no-lock footing.go 'FROM " + partitionsOf(oid) +' 'FROM (SELECT relid AS oid FROM pg_partition_tree(" + oid + "))" +' LocksHoldNothingUp
mutant load-waits-for-who-wrote-unpublished footing.go 'err == nil && running > 0' 'false' LoadWaitsForWhoWrote
mutant slot-without-its-publication session.go 'slot: true}' 'slot: false}' PublicationMadeAgain
mutant readings-come-from-the-primary source.go 'conf.AfterConnect = s.footing.greet' '' ReadingsComeFromThePrimary
mutant plan-makes-an-older-slot-again setup_script.go 'slotSection(cfg, len(publication.Steps) > 0)' 'slotSection(cfg, false)' PlanMendsThePublication
mutant plan-publishes-under-a-fit-identity-only step.go 'return []part{partIdentity, partOldSlot}' 'return nil' ApplyAltersNothingUnasked
mutant apply-asks-first setup_apply.go 'case step.Alters != "" && !a.agreed:' 'case false:' ApplyAltersNothingUnasked
mutant apply-looks-at-what-it-granted setup_apply.go 'if step.part == partGrant {' 'if false {' ApplyAsTheTablesOwner
mutant partition-under-its-root-is-refused publication.go 'if p.under == "" {' 'if true {' PartitionPublishedUnderItsRoot
mutant a-list-covers-the-identity publication.go "if table.relation.identity == 'f' {" 'if false {' ListThatTheIdentityOutgrew
mutant warden-has-a-budget warden.go 'if s.retained.passes(slot.retained, s.cfg.MaxRetainedWAL) {' 'if false {' RetainedWALIsBounded
mutant busy-walsender-is-left-alone warden.go "AND wait_event LIKE 'WalSender%'" '' BusyWalsender
mutant warden-looks-ahead retention.go 'now+slices.Max(r.growths[:]) > limit' 'now+0*slices.Max(r.growths[:]) > limit' SlotIsGivenUpBeforeTheLargestStep
mutant slot-that-others-moved-is-a-gap session.go 'if slot.confirmed > s.pos.reported {' 'if false {' MovedSlotIsAGap
mutant another-system reader.go 'case was.SystemID != system.SystemID:' 'case false:' AnotherSystemLoadsAgain
mutant another-timeline reader.go 'case was.Timeline != system.Timeline:' 'case false:' FailoverLoadsAgain
mutant rebuilds-are-counted rebuilds.go 'if len(r.at) >= rebuildsPerHour {' 'if false {' TooManyRebuildsStop
mutant padding-is-none-of-a-text assemble.go 'return trimmed(r.text, l.padded[0])' 'return r.text' TypesAndTexts
mutant padded-type-has-no-length table.go 'format_type(b.oid, -1)' 'format_type(b.oid, NULL)' TypesAndTexts
mutant domain-is-what-it-is-over assemble.go 'f.layout.padded = a.loaded.padded' '' TypesAndTexts
mutant readings-compare-bytes source.go '` COLLATE pg_catalog."C"' '`' ReadingsTellTexts
mutant readings-take-their-snapshot-behind-the-lock dial.go 'conf.RuntimeParams["default_transaction_isolation"] = "read committed"' '' ReadingBehindARewrite
mutant readings-fit-their-table source.go 'string(values[1]) != reading.table' 'false' ReadingOfAnotherTable
mutant put-back-to-fewer-transactions session.go 'at < s.pos.applied' 'false' ServerPutBackLoadsAgain
mutant put-back-to-other-transactions assemble.go 'if again && !a.commits.sentBefore(b.final, b.at) {' 'if false {' ServerPutBackLoadsAgain
mutant unlogged-without-long-values footing.go 'CASE reltoastrelid WHEN 0 THEN relfilenode ELSE reltoastrelid END' 'reltoastrelid' FenceSeesATableThatWasUnpublished
mutant unlogged-beside-another-publication footing.go 'prrelid = pg_class.oid AND pubname = " + literal(f.publication) + "))"' 'prrelid = pg_class.oid))"' FenceSeesATableThatWasUnpublished
mutant moved-from-its-schema footing.go '" + f.moved(version) + "' 'NULL' FenceSeesATableThatWasUnpublished
mutant foreign-partitions-are-refused table.go 'if foreign {' 'if false {' ForeignPartition
mutant stale-mark-needs-an-index fence.go '|| !r.state.isLoaded() {' '|| false {' StaleMarkNeeds
mutant no-stale-mark-in-sync fence.go '|| r.state.inSync() ||' '||' NoStaleMarkBeside
mutant load-joins-one-snapshot load.go ', "SET TRANSACTION SNAPSHOT " + literal(snapshot)' '' LoadByRanges
mutant stale-mark-has-an-age fence.go 'time.Unix(0, r.freshAt.Load())) > r.cfg.MaxStaleness {' 'time.Unix(0, r.freshAt.Load())) > 1000*r.cfg.MaxStaleness {' StaleMarkIsBounded
mutant held-slot-is-waited-for-to-a-bound reader.go 'now.Sub(r.heldSince) > r.cfg.HoldLimit && !r.synced' 'false' HeldSlotNamesTheHolder
mutant slot-in-the-making-has-a-budget retention.go 'if account.passes(slot.retained, cfg.MaxRetainedWAL) {' 'if account.passes(slot.retained, cfg.MaxRetainedWAL) && false {' SlotInTheMakingIsBounded
mutant audit-sees-a-truncate load.go 'c.relfilenode <> pg_relation_filenode(c.oid)' 'false' AuditSeesATruncate
mutant audit-looks-at-partitions load.go 'partitionsOf("to_regclass("+literal(name.sql())+")")' '"(SELECT to_regclass("+literal(name.sql())+") AS oid)"' AuditSeesATruncate
mutant audit-compares-rows audit_rows.go 'if a.audit.Has(id, restaurant, client) {' 'if true {' NamesTheRow
mutant load-sees-what-the-slot-begins-behind ensure.go 'if err = awaitVisible(ctx, cfg, conn); err != nil {' 'if err = error(nil); err != nil {' LoadSeesWhat
mutant script-waits-for-what-its-slot-begins-behind setup_script.go 'if step.Settles != "" {' 'if false {' PlansScriptWaits
mutant load-leaves-the-cache-alone load.go 'pages > t.cachePages/ringPart' 'false' LoadLeavesTheServersCache
mutant load-takes-another-snapshot-of-a-rewritten-table load.go 'err != nil || whole {' 'err != nil || whole || true {' LoadBesideARewrite
mutant partitions-are-ground footing.go 'case differs(groundPartitions):' 'case false:' FenceSeesPartitions
mutant start-gives-up-a-costly-slot ensure.go 'case cfg.MaxRetainedWAL > 0 && p.slot.retained > cfg.MaxRetainedWAL:' 'case false:' StartGivesUpASlot
mutant invalidated-slot-is-made-again ensure.go 'case p.slot.lost && cfg.makesSlots():' 'case false:' InvalidatedSlotLoadsAgain
mutant large-transactions-breathe reader.go 's.txn.Breathe = func() { s.breathe(ctx) }' 's.txn.Breathe = func() {}' SlowConsumerKeeps
mutant unlogged-partition table.go 'if t.leaves = append(t.leaves, l); !logged {' 'if t.leaves = append(t.leaves, l); false {' RefusalsNameTheFix
summary
