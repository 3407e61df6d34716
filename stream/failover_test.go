package stream_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"example.com/tiffin/internal/devstack/devstacktest"
	"example.com/tiffin/stream"
)

// With a synchronous standby, and both servers in the DSN, a failover of the feedback
// database in a backlog is an outage like any other: nothing is lost or doubled.
func TestFailoverToASynchronousStandbyLosesNothing(t *testing.T) {
	t.Parallel()
	primary := startPostgres(t, nil)
	r := newRig(t, 2, map[string][]string{"r": clients(40)})
	r.db = devstacktest.NewDatabase(t, primary, "feedback")
	standby := standbyOf(t, primary)
	r.db.Exec(t, "ALTER SYSTEM SET synchronous_standby_names = 'walreceiver'", "SELECT pg_reload_conf()")
	r.cfg.FeedbackDSN = fmt.Sprintf("postgres://postgres@%s,%s/feedback?sslmode=disable&target_session_attrs=read-write", primary.Address(), standby.Address())
	o := newOutage(t, r)
	o.publish(50)
	o.eventually("some deliveries", func() bool { return o.rowCount() > 200 })
	primary.Kill()
	o.publish(4)
	o.told("connection refused")
	if err := standby.Promote(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.db = &devstacktest.Database{Server: standby, Name: "feedback", DSN: standby.DSN("feedback")}
	o.publish(4)
	o.over("postgres")
}

// An asynchronous standby may lack what was delivered last: the ledger then lies behind the
// group's offset, and an operator chooses. Replayed, the table is complete again and only
// what was lost goes out twice.
func TestFailoverToAnAsynchronousStandbyIsNoticed(t *testing.T) {
	t.Parallel()
	server := startPostgres(t, nil)
	r := newRig(t, 2, map[string][]string{"r": clients(40)})
	r.db = devstacktest.NewDatabase(t, server, "feedback")
	r.cfg.FeedbackDSN = r.db.DSN
	o := newOutage(t, r)
	if err := server.SaveStandby(t.Context()); err != nil {
		t.Fatal(err)
	}
	kept := len(o.want)
	o.publish(6)
	o.settled()
	lost := append([]delivery(nil), o.want[kept:]...)
	if err := server.Failover(t.Context()); err != nil {
		t.Fatal(err)
	}
	o.publish(2) // notices the dead connection
	o.eventually("the end of Run", o.ended)
	var ledger *stream.LedgerError
	if err := o.stop(); !errors.As(err, &ledger) || !strings.Contains(err.Error(), "standby") {
		t.Fatalf("after the failover: %v, want a LedgerError that speaks of a standby", err)
	}
	if n := o.rowCount(); n != kept {
		t.Fatalf("%d rows after the failover, want the standby's %d", n, kept)
	}
	r.untilNow(func(c *stream.Config) { c.LedgerBehind = stream.LedgerReplay; c.Registerer = nil })
	r.wantRows(o.want)
	same(t, "records", r.deliveries(), append(o.want, lost...))
}
