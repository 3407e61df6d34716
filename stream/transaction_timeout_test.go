package stream_test

import (
	"testing"

	"example.com/tiffin/internal/devstack/devstacktest"
)

// timed is a rig on the newest server, in whose database a transaction may take so long.
func timed(t *testing.T, limit string) *rig {
	t.Helper()
	r := newRig(t, 1, map[string][]string{"r": clients(4), "many": clients(200_000)})
	r.db = devstacktest.NewDatabase(t, servers.NewestPostgres(t), servers.Unique(t, "t"))
	r.cfg.FeedbackDSN = r.db.DSN
	r.untilNow()
	r.db.Exec(t, `ALTER DATABASE `+r.db.Name+` SET transaction_timeout = '`+limit+`'`)
	return r
}

// A campaign that takes longer than the server allows a transaction is told with the setting, and goes on when that
// was raised.
func TestTransactionTimeoutIsTold(t *testing.T) {
	t.Parallel()
	r := timed(t, "100ms")
	r.publish(0, campaign("many", "c").json(t))
	log := r.logging()
	_, stop := r.start()
	defer func() { _ = stop() }()
	r.eventually("word of it", func() bool { return log.lines("ALTER ROLE CURRENT_USER SET transaction_timeout = 0") > 0 })
	r.db.Exec(t, `ALTER DATABASE `+r.db.Name+` SET transaction_timeout = 0`)
	r.eventually("the campaign", func() bool { return r.groupOffset(0) == 1 })
	r.wantDelivered(200_000, 200_000)
}

// A verification reads for as long as it takes, whatever the server allows a transaction.
func TestVerifyTakesItsTime(t *testing.T) {
	t.Parallel()
	r := timed(t, "100ms")
	r.publish(0, campaign("r", "c").json(t))
	r.untilNow()
	r.setOffset(0, 0, "tiffin") // it waits, in its snapshot, for the group to come to the ledger's
	if v := r.wantVerdict(nil); v.Rows != 4 || v.Records != 4 {
		t.Errorf("%+v", v)
	}
}
