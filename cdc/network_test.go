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
