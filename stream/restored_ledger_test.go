package stream_test

import (
	"testing"

	"example.com/tiffin/stream"
)

// The feedback database was restored to before a large campaign of which a part is out: the ledger
// and the group's offset are the same number, and yet the ledger lies behind. It stops; trusting Kafka
// goes on behind the campaign, trusting the ledger delivers it anew, whole.
func TestRestoredLedgerBehindAPartOfACampaignStops(t *testing.T) {
	t.Parallel()
	const recipients = 100
	r := newRig(t, 1, map[string][]string{"large": clients(recipients), "small": {"c"}})
	r.cfg.MaxTransactionRecords = 30
	r.publish(0, campaign("large", "l").json(t))
	r.untilNow()
	r.wantDelivered(recipients, recipients)
	restored := func() {
		r.db.Exec(t, `UPDATE tiffin.progress SET next_offset = 0, start_offset = 0`, `TRUNCATE tiffin.trigger, subscribers_feedback`)
		r.setOffset(0, 0, "tiffin sent=60")
	}
	restored()
	r.wantLedgerError("stands at 0", "at 0", "restored from a backup", "--ledger-behind=skip", "--ledger-behind=replay")
	r.wantDelivered(0, recipients)

	r.untilNow(func(c *stream.Config) { c.LedgerBehind = stream.LedgerSkip })
	r.wantDelivered(0, recipients)
	if at := r.groupOffset(0); at != 1 {
		t.Errorf("group offset %d after skip: want 1, behind the campaign", at)
	}
	restored()
	r.untilNow(func(c *stream.Config) { c.LedgerBehind = stream.LedgerReplay })
	r.wantDelivered(recipients, 2*recipients)
	r.publish(0, campaign("small", "after").json(t))
	r.untilNow()
	r.wantDelivered(recipients+1, 2*recipients+1)
}

// Where both are level nothing is sent again, and nothing is said of a recovery.
func TestLevelLedgerIsLeftAlone(t *testing.T) {
	t.Parallel()
	r := newRig(t, 1, map[string][]string{"r": {"c"}})
	r.publishSome(0, 3)
	r.untilNow()
	log := r.logging()
	r.untilNow()
	r.wantDelivered(3, 3)
	log.wants(t, `msg="partition taken" partition=0 offset=3`)
	if log.lines("level=WARN") > 0 || log.lines("rebuilt") > 0 {
		t.Error("a start that finds all level complains")
	}
}
