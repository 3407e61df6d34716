package cdc

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"

	"example.com/tiffin/internal/devstack"
	"example.com/tiffin/internal/devstack/devstacktest"
)

// A slot that standbys synchronise is there after a failover, and serves: the reader, which
// may make none, loads the table again as the new primary has it, and follows. It must load:
// readings of the old primary may have been ahead of the standby, and its positions beyond
// the fork mean nothing on the new timeline.
func TestFailoverSlotServesTheNewPrimary(t *testing.T) {
	t.Parallel()
	primary := own(t, devstack.PostgresOptions{Version: newer(t)})
	db := devstacktest.NewDatabase(t, primary, "alone")
	contract(t, db, "DEFAULT")
	cfg := config(t, db)
	cfg.Failover = true
	if tally, report := applied(t, cfg, primary.Username(), agreeing); !tally.Complete() {
		t.Fatal(report)
	}
	standby, err := primary.StartStandby(t.Context(), db.Name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := standby.Close(); err != nil {
			t.Error(err)
		}
	})
	both := fmt.Sprintf("postgres://%s@%s,%s/%s?sslmode=disable&target_session_attrs=primary", primary.Username(), primary.Address(), standby.Address(), db.Name)
	g := start(t, db, func(c *Config) { c.DSN, c.Failover, c.Setup = both, true, SetupNever })
	g.exec(t, `INSERT INTO subscribers_restaurants (restaurant_id, client_id) SELECT 'r1', 'c'||i FROM generate_series(1,10) i`)
	g.agree(t)
	eventually(t, "the slot is on the standby", func() bool {
		g.exec(t, `SELECT pg_log_standby_snapshot()`) // lets the slot's restart position move on
		synced, err := standby.SyncSlots(t.Context(), db.Name, db.Slot)
		if err != nil {
			t.Log(err)
		}
		return synced
	})
	primary.Kill()
	if err := standby.Promote(t.Context()); err != nil {
		t.Fatal(err)
	}
	g.sql.Close()
	if g.sql, err = pgxpool.New(t.Context(), standby.DSN(db.Name)); err != nil {
		t.Fatal(err)
	}
	g.exec(t, `DELETE FROM subscribers_restaurants WHERE client_id < 'c5'`)
	g.exec(t, `INSERT INTO subscribers_restaurants (restaurant_id, client_id) VALUES ('r2', 'new')`)
	g.agree(t)
	g.inSync(t)
	if n := g.rebuilt(t, "timeline"); n != 1 {
		t.Errorf("%v rebuilds for the timeline, want 1", n)
	}
	if synced := g.one(t, `SELECT (synced AND failover AND active)::text FROM pg_replication_slots WHERE slot_name = $1`, db.Slot); synced != "true" {
		t.Errorf("the slot in use was not synchronised from the old primary: %q", synced)
	}
	g.quit()
}

// A slot made without is changed, and nothing of it is lost; slotsetup, which has SQL alone,
// makes it again and says why.
func TestExistingSlotBecomesAFailoverSlot(t *testing.T) {
	t.Parallel()
	db := databaseOn(t, servers.NewestPostgres(t))
	contract(t, db, "DEFAULT")
	plain := start(t, db)
	plain.agree(t)
	plain.quit()
	plain.exec(t, `INSERT INTO subscribers_restaurants (restaurant_id, client_id) VALUES ('r1', 'meanwhile')`)
	cfg := config(t, db)
	cfg.Failover = true
	if plan := planned(t, cfg, db.Server.Username()); !strings.Contains(plan, "drop_replication_slot") || !strings.Contains(plan, "failover => true") {
		t.Errorf("plan:\n%s", plan)
	}
	refuses(t, start(t, db, func(c *Config) { c.Failover, c.Setup = true, SetupNever }), "standbys do not synchronise it", "slotsetup apply --yes")
	g := start(t, db, func(c *Config) { c.Failover = true })
	g.agree(t)
	g.unrebuilt(t)
	status, err := Status(t.Context(), cfg, db.Server.Username())
	if err != nil || !status.Slot.Failover {
		t.Errorf("status %+v, %v", status, err)
	}
	if plan := planned(t, cfg, db.Server.Username()); plan != "" {
		t.Errorf("still planned: %s", plan)
	}
	g.quit()
}

// newer is a version that has failover slots: the one that is tested, or the newest.
func newer(t *testing.T) string {
	t.Helper()
	if v := os.Getenv("POSTGRES_VERSION"); v >= "17" {
		return v
	}
	servers.NewestPostgres(t) // skips where it cannot be had
	return devstack.NewestPostgres
}

// An older server cannot, and says so before anything is made.
func TestFailoverSlotNeedsANewerServer(t *testing.T) {
	t.Parallel()
	db := servers.Database(t)
	contract(t, db, "DEFAULT")
	if atLeast17 := db.Connect(t).PgConn().ParameterStatus("server_version") >= "17"; atLeast17 {
		t.Skip("this server has failover slots")
	}
	g := start(t, db, func(c *Config) { c.Failover = true })
	refuses(t, g, "PostgreSQL 17 or newer", "source.failover: false")
	if n := g.one(t, `SELECT (SELECT count(*) FROM pg_publication) + (SELECT count(*) FROM pg_replication_slots WHERE slot_name = $1)`, db.Slot); n != "0" {
		t.Errorf("%s objects were made", n)
	}
}
