package stream_test

import (
	"errors"
	"testing"

	"example.com/tiffin/stream"
)

// The ledger moves only from where the process thinks it stands, whatever its epoch: a feedback
// database that was restored under a running process is noticed by its next batch, which writes nothing.
func TestLedgerMovesOnlyFromWhereItIsExpected(t *testing.T) {
	t.Parallel()
	r := newRig(t, 1, map[string][]string{"r": {"c"}})
	_, stop := r.start()
	r.publishSome(0, 3)
	r.eventually("three messages handled", func() bool { return r.rowCount() == 3 && r.groupOffset(0) == 3 })
	r.db.Exec(t, `UPDATE tiffin.progress SET next_offset = 1; DELETE FROM tiffin.trigger WHERE record_offset >= 1; DELETE FROM subscribers_feedback WHERE adv_campaign_id >= '1'`)
	r.publishSome(0, 1)
	r.eventually("the end of the run, or a batch that should not be there", func() bool { return r.ended() || r.rowCount() > 1 })
	err := stop()
	if _, ok := errors.AsType[*stream.LedgerError](err); !ok {
		t.Errorf("run: %v, want a LedgerError", err)
	}
	if n := r.rowCount(); n != 1 {
		t.Errorf("%d rows: want the one of the backup", n)
	}
}
