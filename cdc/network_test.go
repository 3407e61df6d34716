package cdc

import (
	"testing"
	"time"

	"example.com/tiffin/internal/devstack/devstacktest"
)

// A network that breaks or stalls is said within 15 s, and what follows is exact.
func TestNetworkCutAndStalled(t *testing.T) {
	t.Parallel()
	db := servers.Database(t)
	contract(t, db, "DEFAULT")
	p := devstacktest.OpenRoute(t, db.Server.Address())
	g := start(t, db, func(c *Config) { c.DSN, c.StatusInterval = devstacktest.RouteDSN(t, p, c.DSN), 10*time.Second })
	insert := `INSERT INTO subscribers_restaurants (restaurant_id, client_id) SELECT 'r'||i, 'c'||i FROM generate_series(1,10) i`
	for range 3 {
		g.agree(t)
		p.Cut()
		g.exec(t, insert)
	}
	g.agree(t)
	g.inSync(t)
	p.Stall()
	stalled := time.Now()
	g.exec(t, insert)
	g.saysWhy(t, "source:")
	if took := time.Since(stalled); took > 15*time.Second {
		t.Errorf("said after %s", took)
	}
	p.Resume()
	g.agree(t)
	g.inSync(t)
}

// The stream alone stalls, behind something that takes bytes and passes none on, at a server that waits for
// ever: no time-out of the kernel's or the server's ends it, and the walsender holds the slot. The warden,
// whose own connection works, ends it.
func TestStalledStreamIsEnded(t *testing.T) {
	t.Parallel()
	db := quiet(t, map[string]string{"wal_sender_timeout": "0"})
	contract(t, db, "DEFAULT")
	p := devstacktest.OpenRoute(t, db.Server.Address())
	g := start(t, db, func(c *Config) { c.DSN, c.StatusInterval = devstacktest.RouteDSN(t, p, c.DSN), 10*time.Second })
	g.agree(t)
	var port, pid int
	if err := g.sql.QueryRow(t.Context(), `SELECT client_port, pid FROM pg_stat_replication`).Scan(&port, &pid); err != nil {
		t.Fatal(err)
	}
	if !p.StallPort(port) {
		t.Fatalf("no connection from port %d", port)
	}
	g.exec(t, `INSERT INTO subscribers_restaurants (restaurant_id, client_id) SELECT 'r'||i, 'c'||i FROM generate_series(1,10) i`)
	g.saysWhy(t, "source:")
	g.agree(t)
	g.inSync(t)
	g.unrebuilt(t)
	if got := g.one(t, `SELECT count(*)::text FROM pg_stat_activity WHERE pid = $1`, pid); got != "0" {
		t.Errorf("the stalled walsender %d is still there", pid)
	}
}

// What is silent because it is at work would be silent again.
func TestBusyWalsenderIsLeftAlone(t *testing.T) {
	t.Parallel()
	db := servers.Database(t)
	contract(t, db, "DEFAULT")
	g := start(t, db)
	g.agree(t)
	at, work := db.Connect(t), make(chan error, 1)
	go func() {
		_, err := at.Exec(t.Context(), `SELECT pg_sleep(2)`) // waits, but not as a walsender that listens
		work <- err
	}()
	eventually(t, "it is at work", func() bool {
		return g.one(t, `SELECT count(*)::text FROM pg_stat_activity WHERE pid = $1 AND wait_event = 'PgSleep'`, at.PgConn().PID()) == "1"
	})
	s := &session{Reader: g.r, pid: at.PgConn().PID()}
	s.mute.Store(true)
	if err := s.endMute(t.Context(), db.Connect(t)); err != nil {
		t.Errorf("given up: %v", err)
	}
	if err := <-work; err != nil {
		t.Errorf("ended: %v", err)
	}
}
