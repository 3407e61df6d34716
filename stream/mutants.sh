#!/usr/bin/env bash
# Removes the rules of the delivery protocol one at a time, as internal/mutants/run.sh says.
#   bash stream/mutants.sh [name…]
set -u
cd "$(dirname "$0")" || exit 2
. ../internal/mutants/run.sh
stages=('CrashAtEveryStep' 'CrashInRecovery|CrashOnOlder' 'CrashInAChoice')

mutant kafka-waits-for-postgres publish.go 'if err := await(ctx, b.stored); err != nil {
		return err
	}
	return await(ctx, prev.done)' 'return await(ctx, prev.done)'
mutant plain-records-come-behind-their-rows publish.go 'if err := await(ctx, b.stored); err != nil {
		return err
	}
	if b.records() > 0 {' 'if b.records() > 0 {' CrashAtLeastOnce
mutant plain-offsets-come-behind-the-records lane.go 'if err := p.flush(ctx); err != nil {
		return err
	}
	if s.cfg.Mode == AtLeastOnce {
		return s.member.commit(ctx, at)' 'if s.cfg.Mode == AtLeastOnce {
		defer func() { _ = p.flush(ctx) }()
		return s.member.commit(ctx, at)
	}
	if err := p.flush(ctx); err != nil {
		return err' CrashAtLeastOnce
mutant offsets-in-the-transaction publish.go 's.member.commitIn(ctx, p, b.positions())' 's.member.commit(ctx, b.positions())'
mutant a-transaction-is-ended-once-its-partitions-are-listed producer.go 'if err := p.awaitLists(ctx); err != nil {' 'if err := ctx.Err(); err != nil {' TransactionIsEnded
mutant commits-in-order publish.go 'return await(ctx, prev.done)' 'return nil' TransactionsEndInOrder
mutant offsets-in-order publish.go 'if err := await(ctx, prev.moved); err != nil' 'if err := ctx.Err(); err != nil' TransactionsEndInOrder
mutant large-keeps-its-offset lane.go 'at := position{offset: t.offset, sent: int64(to), leader: t.leader}' 'at := position{offset: t.offset + 1}'
mutant recovery-sends takeover.go 'return r.run(s.work, l)' 'return s.member.commit(s.work, map[int32]position{r.partition: {offset: r.to}})'
mutant recovery-skips-what-is-out recovery.go 'sent = r.from.sent' 'sent = 0'
mutant recovery-sends-dead-letters recovery.go 'return r.resendDeadLetter(ctx, rec)' 'return nil'
mutant recovery-sends-deliveries recovery.go 'return r.resendDeliveries(ctx, rec)' 'return nil'
mutant recovery-counts-by-id idranges.go 'n += min(id, run.last+1) - run.first' 'n += run.last + 1 - run.first'
mutant a-fault-ends-the-session session.go 's.fail(err)
		}
	})' '_ = err
		}
	})'
mutant lane-comes-behind-its-partition lane.go 'if err := await(l.cut, before.done); err != nil' 'if err := l.cut.Err(); err != nil'
mutant lane-holds-its-partition deliver.go 'if s.lanes.hold(m) {' 'if false {'
mutant plans-belong-to-their-claim claims.go 'cl != t.claim || ' '' PlansOf
mutant bulky-is-what-is-left claims.go 'b.triggers, b.deliveries, b.bulky = all[:0], 0, false' 'b.triggers, b.deliveries = all[:0], 0' WhatIsDropped
mutant lanes-leave-their-memory-to-batches rotation.go 'p.arenas = r.ofLanes' 'p.arenas = r.ofBatches' LanesLeave
mutant lanes-in-order lanes.go 'l.held[a].place - l.held[b].place' 'l.held[b].place - l.held[a].place' LaneGoesTo
mutant lanes-in-order-behind-the-end lanes.go 'l.queue(h)
	l.tell()' 'l.tell()' LaneGoesTo
mutant lanes-are-of-one-claim lanes.go ' || l.held[partition] != nil' '' LaneOfAnEarlier
mutant lane-leaves-its-claim-first lane.go 's.claims.leave(cl, true)
		s.lanes.end(h)' 's.lanes.end(h)
		s.claims.leave(cl, true)' LaneLeaves
mutant leaving-waits-for-no-connection engine.go 'asks.cut).Stop()' 'func() {}).Stop()' StopDoesNot
mutant lane-of-a-fault-holds-on lane.go 'case err == nil:' 'case err == nil || s.work.Err() == nil:'
mutant lane-cut-is-not-level session.go 'if c.cut {' 'if false {'
mutant lane-cut-between-chunks lane.go 'if l.cut.Err() != nil {
			return errCut' 'if l.cut.Err() != nil {
			return nil'
mutant recovery-joins-nobody-again recovery.go 'found++
' 'found++
			c, _ := row.campaign()
			again, err := r.s.planner.index.Lookup(ctx, c.RestaurantID)
			if err != nil {
				return err
			}
			defer again.Release()
			for id := range again.Range(int(found-1), int(found)) {
				row.client = bytes.Clone(id)
			}
'
mutant fence-behind-the-poll session.go 'fetches, owned, err := s.pollOnce(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			return err
		case fetches.NumRecords() == 0:
			continue
		}
		mark, fence, err := s.raise(ctx)
' 'mark, fence, err := s.raise(ctx)
		if err != nil {
			return err
		}
		fetches, owned, err := s.pollOnce(ctx)
		if err == nil && ctx.Err() == nil && fetches.NumRecords() == 0 {
			continue
		}
' FenceIsRaisedBehind
mutant others-goal-is-in-both-sinks goal.go 'group, err := s.groupOffsets(ctx)' 'group, err := s.store.positions(ctx)' CrashInRecovery
mutant anew-is-a-new-entry inputlog.go 'return in.start, s.beginAnew(ctx, partition, e.epoch, 0, in.start)' 'return in.start, nil' CrashInAChoice
# What is a rule of the statements needs a real Postgres, and its tests a real Kafka.
need_servers
mutant rebuilt-records-keep-their-context recovery.go 'b.rec.offset, b.rec.trace)' 'b.rec.offset, traceContext{})' RebuiltRecordsKeepTheirContext
mutant epoch-is-checked writer.go 'AND p.epoch = n.epoch AND' 'AND' FencedProcessWritesNothing
mutant claim-raises-the-epoch ledger.go 'SET epoch = epoch + 1, owner = $4' 'SET owner = $4' FencedProcessWritesNothing
mutant next-offset-is-as-expected writer.go 'AND p.next_offset = n.expected' '' LedgerMovesOnlyFromWhereItIsExpected
mutant manifest-with-its-rows manifest.go 'if params != nil {
		p.command("manifest", int64(len(b.triggers)), params...)
	}
	p.command("commit", -1)' 'p.command("commit", -1)
	p.command("manifest", int64(len(b.triggers)), params...)' CrashAtEveryStatement
mutant ledger-with-its-rows pieces.go 'w.endPiece(p, all)
' 'w.endPiece(p, all)
		p.command("commit", -1)
		p.command("begin", -1)
' CrashAtEveryStatement
mutant next-batch-moves-the-ledger-behind writer.go 'if err := await(ctx, g.ledger); err != nil {' 'if err := ctx.Err(); err != nil {' NextBatchIsInserted
mutant next-batch-does-not-wait-for-the-commit writers.go 'ledger, turn := prev.stored, prev.numbered' 'ledger, turn := prev.stored, prev.stored' NextBatchIsInserted
mutant deferred-constraints-before-the-next-batch pieces.go 'if !w.kept.deferred {' 'if true {' DeferredConstraintsOfTwo
mutant idle-connections-are-asked writer.go 'if time.Since(w.used) < idleFrom {' 'if true {' WhatEndsAnIdle
mutant ids-end-in-a-copy-too pieces.go 'w.findEnd(ctx, err, all)' '_ = w.findEnd' IDsBeyondTheirColumnAreTold
mutant polls-share-a-batch deliver.go 'if g.empty() {
		g.saw(s.claims)
	}
	return nil' 'return s.sendGathered(g)' PollsShare
mutant batches-are-bounded-in-bytes gather.go ' || g.bytes >= gatherBytes' '' BoundedInBytes
mutant what-is-planned-does-not-wait-for-long gather.go 'time.Since(g.since) >= gatherFor' 'false' DoNotWaitForLong
mutant rows-take-turns numbering.go 'if !n.busy {' 'if true {' RowsOfLarge
mutant turns-go-to-the-smaller numbering.go 'n.compare(t, us) < 0 ||' 'n.compare(t, us) < -1000 ||' Turns
mutant turns-go-to-who-waits numbering.go ' || t.left > 0 && n.fair()' '' Turns
mutant turns-are-no-locks numbering.go 'case <-patience.C:' 'case <-patience.C:
		return true, nil' TurnThat
mutant refused-rows-leave-the-connection pgwire.go 'refused && !p.synced' 'refused && false' RowRefused
mutant evict-before-the-offsets session.go 'if err := s.evict(s.work, added[k.Input]); err != nil' 'if err := error(nil); err != nil' 'DeadOwnersTransaction'
mutant evict-ends-sessions evict.go 's.store.endSessions(ctx, owner)' 's.store.endSessions(ctx, "nobody")' 'DeadOwnersRowLock'
mutant topic-id-is-compared takeover.go 'if anotherTopic(e.topicID, topicID) {' 'if false {' 'RecreatedInputTopicStops$'
mutant commits-are-flushed feedback.go "IN ('off', 'local')" "IN ('nothing')" CommitsAreFlushed
mutant read-under-an-earlier-claim claims.go 'if cl == nil || cl.given || cl != m.claim {' 'if cl == nil || cl.given {' PartitionThatComesBack
mutant spaces-are-not-cut-off kept.go 'if k.limits == [6]int{} {' 'if true {' SpacesThat
mutant changed-rows-are-seen kept.go 'if !w.kept.changes {' 'if true {' TableThatChanges
mutant explain-tells-rows-apart explain.go 'AND restaurant_id::text COLLATE "C" = t.restaurant_id AND adv_campaign_id::text COLLATE "C" = t.adv_campaign_id AND trigger_datetime_created = t.trigger_datetime_created' '' ExplainKnows
mutant alterations-end-the-session probe.go 'if err := s.store.stands(ctx); err != nil {' 'if err := error(nil); err != nil {' AlterationUnder
mutant hidden-rows-are-an-error feedback.go "UNION ALL SELECT set_config('row_security', 'off', false)" '' PoolerThat
mutant explain-compares-bytes explain.go 'AND client_id::text COLLATE "C" = $5' 'AND client_id = $5' ExplainTells
mutant ids-at-their-end-are-waited-for refusal.go 'return p.before > many' 'return false' StateOfTheTable
mutant deferred-refusals-are-known-early writer.go 'if w.kept.deferred && b.deliveries' 'if false && b.deliveries' OneRecord
mutant rows-tell-whose-they-are verifyrows.go 'if len(m.open) == 1 {' 'if true {' VerifyTellsWhose
mutant headers-too-large deadletter.go 'size > limit && !compressesBelow(r, limit) { // what came' 'false { // what came' OneRecord
mutant stop-after-a-takeover-is-no-fault engine.go 'if takenOver(err) {' 'if false {' StopAfterALostMembership
summary
