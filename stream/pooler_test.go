package stream_test

import (
	"encoding/binary"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"

	"example.com/tiffin/internal/devstack/devstacktest"
	"example.com/tiffin/stream"
)

// A pooler that is told to leave a setting away that a connection asks for (pgbouncer's ignore_startup_parameters)
// does not have rows hidden by row-level security taken for deleted: neither a recovery nor a verification goes on.
func TestPoolerThatLeavesASettingAwayHidesNoRows(t *testing.T) {
	t.Parallel()
	r := newRig(t, 1, map[string][]string{"r": clients(5)})
	r.publish(0, campaign("r", "c1").json(t))
	r.untilNow()
	r.setOffset(0, 0, "tiffin") // as after a crash between the two commits
	r.asOrdinaryRole()
	r.db.Exec(t, `ALTER TABLE subscribers_feedback ENABLE ROW LEVEL SECURITY`, `CREATE POLICY inserted ON subscribers_feedback FOR INSERT WITH CHECK (true)`)
	address := r.db.Server.Address()
	r.cfg.FeedbackDSN = strings.Replace(r.cfg.FeedbackDSN, address, pool(t, address, "row_security"), 1)
	if err := r.tryUntilNow(); err == nil || !strings.Contains(err.Error(), "row-level security") {
		t.Errorf("recovery: error %v", err)
	}
	if _, _, err := r.verify(); err == nil || !strings.Contains(err.Error(), "row-level security") {
		t.Errorf("verification: error %v", err)
	}
	if fix := stream.FeedbackRemedy(r.tryUntilNow()); !strings.Contains(fix, "BYPASSRLS") {
		t.Errorf("the fix %q", fix)
	}
	if at := r.groupOffset(0); at != 0 {
		t.Errorf("group offset %d: the records are taken for sent", at)
	}
}

// A pooler that gives each transaction another session is refused: nothing that a session was told would hold.
func TestPoolerThatKeepsNoSessionIsRefused(t *testing.T) {
	t.Parallel()
	r := newRig(t, 1, map[string][]string{"r": clients(5)})
	r.publish(0, campaign("r", "c1").json(t))
	direct := r.cfg.FeedbackDSN
	r.cfg.FeedbackDSN = strings.Replace(direct, r.db.Server.Address(), devstacktest.PoolTransactions(t, direct), 1)
	err := r.tryUntilNow()
	if err == nil || !strings.Contains(err.Error(), "pool_mode = session") || !stream.IsPermanent(err) {
		t.Errorf("error %v", err)
	}
	r.cfg.FeedbackDSN = direct
	if n := r.rowCount(); n != 0 {
		t.Errorf("%d rows were written", n)
	}
}

// Where a pooler keeps sessions, but leaves away what they ask for, they have it all the same.
func TestPoolerThatKeepsSessionsMayLeaveSettingsAway(t *testing.T) {
	t.Parallel()
	r := newRig(t, 1, map[string][]string{"r": clients(5)})
	r.publish(0, campaign("r", "c1").json(t))
	if err := r.cfg.Prepare(t.Context(), r.db.Connect(t)); err != nil {
		t.Fatal(err)
	}
	r.db.Exec(t, `ALTER TABLE subscribers_feedback ADD patience text DEFAULT current_setting('lock_timeout')`)
	address := r.db.Server.Address()
	r.cfg.FeedbackDSN = strings.Replace(r.cfg.FeedbackDSN, address, pool(t, address, "lock_timeout"), 1)
	r.untilNow()
	if n := r.number(`SELECT count(*) FROM subscribers_feedback WHERE patience = '20s'`); n != 5 {
		t.Errorf("%d of 5 rows were written by a session that waits no longer than it shall", n)
	}
}

// pool leads to a server, but for a setting that connections ask for; it returns where it listens.
func pool(t *testing.T, to, without string) string {
	t.Helper()
	from, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var group sync.WaitGroup
	t.Cleanup(func() {
		_ = from.Close()
		group.Wait()
	})
	group.Go(func() {
		for {
			client, err := from.Accept()
			if err != nil {
				return
			}
			group.Go(func() { lead(client, to, without) })
		}
	})
	return from.Addr().String()
}

// lead passes a connection on until either side ends it.
func lead(client net.Conn, to, without string) {
	defer func() { _ = client.Close() }()
	server, err := net.Dial("tcp", to)
	if err != nil {
		return
	}
	defer func() { _ = server.Close() }()
	var head [8]byte // length, and the protocol's version or a request
	if _, err := io.ReadFull(client, head[:]); err != nil {
		return
	}
	asked := make([]byte, binary.BigEndian.Uint32(head[:])-8)
	if _, err := io.ReadFull(client, asked); err != nil {
		return
	}
	parts := strings.Split(string(asked), "\x00")
	if i := slices.Index(parts, without); i >= 0 {
		parts = slices.Delete(parts, i, i+2)
	}
	kept := strings.Join(parts, "\x00")
	binary.BigEndian.PutUint32(head[:], uint32(8+len(kept)))
	if _, err := server.Write(append(head[:], kept...)); err != nil {
		return
	}
	var back sync.WaitGroup
	back.Go(func() {
		_, _ = io.Copy(client, server)
		_ = client.Close()
	})
	_, _ = io.Copy(server, client)
	_ = server.Close()
	back.Wait()
}
