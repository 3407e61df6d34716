package stream_test

import (
	"fmt"
	"io"
	"net"
	"sync/atomic"
	"testing"

	"example.com/tiffin/internal/devstack"
	"example.com/tiffin/internal/devstack/devstacktest"
)

// Of several servers that the DSN names, the primary refuses some connections for a moment, and the other is a standby
// that lags behind: a recovery that read there would take rows for deleted that are not there yet.
func TestRecoveryReadsThePrimary(t *testing.T) {
	t.Parallel()
	primary := startPostgres(t, nil)
	r := newRig(t, 1, map[string][]string{"r": clients(50)})
	r.db = devstacktest.NewDatabase(t, primary, "feedback")
	r.cfg.FeedbackDSN = r.db.DSN
	r.untilNow()
	standby := standbyOf(t, primary)
	(&devstacktest.Database{Server: standby, Name: "feedback", DSN: standby.DSN("feedback")}).Exec(t, "SELECT pg_wal_replay_pause()")
	values := make([][]byte, 500)
	for i := range values {
		values[i] = campaign("r", "x").json(t)
	}
	r.publish(0, values...)
	r.untilNow()
	r.wantDelivered(25_000, 25_000)
	r.setOffset(0, 0, "tiffin") // as after a crash between the two commits
	r.cfg.FeedbackDSN = fmt.Sprintf("postgres://postgres@%s,%s/feedback?sslmode=disable&pool_max_conn_lifetime=50ms", refusingSome(t, primary), standby.Address())
	if err := r.tryUntilNow(); err == nil {
		r.wantDelivered(25_000, 50_000)
	}
}

// refusingSome leads to a server, but for the connections from the fifth to the seventh.
func refusingSome(t *testing.T, to *devstack.Postgres) (address string) {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	var number atomic.Int32
	go func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			n := number.Add(1)
			out, err := new(net.Dialer).DialContext(t.Context(), "tcp", to.Address())
			if err != nil || n > 4 && n < 8 {
				_ = in.Close()
				continue
			}
			pass := func(to, from net.Conn) {
				_, _ = io.Copy(to, from)
				_ = to.Close()
			}
			go pass(out, in)
			go pass(in, out)
		}
	}()
	return l.Addr().String()
}

// standbyOf follows the server of a feedback database until the test ends.
func standbyOf(t *testing.T, primary *devstack.Postgres) *devstack.Postgres {
	t.Helper()
	standby, err := primary.StartStandby(t.Context(), "feedback")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := standby.Close(); err != nil {
			t.Error(err)
		}
	})
	return standby
}
