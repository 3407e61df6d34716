#!/bin/sh
# Removes the rules of the delivery protocol one at a time, as internal/mutants/run.sh says.
#   sh stream/mutants.sh [name…]
set -u
cd "$(dirname "$0")" || exit 2
tests='Crash(AtEveryStep|InRecovery)'
. ../internal/mutants/run.sh

mutant kafka-waits-for-postgres publish.go 'if err := await(ctx, b.stored); err != nil {
		return err
	}
	if prev == nil {' 'if prev == nil {'
mutant offsets-in-the-transaction publish.go 's.member.commitIn(ctx, p, b.positions())' 's.member.commit(ctx, b.positions())'
mutant commits-in-order publish.go 'return await(ctx, prev.done)' 'return nil'
mutant large-keeps-its-offset publish.go 'at := position{offset: t.offset, sent: int64(to)}' 'at := position{offset: t.offset + 1}'
mutant recovery-sends takeover.go 'return e.next, r.run(ctx)' 'return e.next, s.member.commit(ctx, map[int32]position{r.partition: {offset: r.to}})'
mutant recovery-skips-what-is-out recovery.go 'sent = r.from.sent' 'sent = 0'
mutant recovery-sends-dead-letters recovery.go 'return r.resendDeadLetter(ctx, rec)' 'return nil'
mutant recovery-sends-deliveries recovery.go 'return r.resendDeliveries(ctx, rec)' 'return nil'
mutant recovery-counts-by-id idranges.go 'n += min(id, run.last+1) - run.first' 'n += run.last + 1 - run.first'
mutant a-fault-ends-the-session session.go 's.fail(err)
		}
	})' '_ = err
		}
	})'
exit "$((survivors > 0))"
