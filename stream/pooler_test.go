package stream_test

import (
	"encoding/binary"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
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
	if at := r.groupOffset(0); at != 0 {
		t.Errorf("group offset %d: the records are taken for sent", at)
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
