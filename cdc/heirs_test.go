package cdc

import (
	"testing"
	"time"
)

// A SELECT from the table shows the rows of the tables that inherit from it, as the old partitioning did, and the
// log has them as those tables' own: there is no subscription that nobody speaks of.
func TestTableWithHeirsIsRefused(t *testing.T) {
	t.Parallel()
	const heir = `CREATE TABLE "of 2019" (CHECK (id < 1000)) INHERITS (subscribers_restaurants)`
	want := []string{`table public.of 2019 inherits from it`, `ALTER TABLE "public"."of 2019" NO INHERIT "public"."subscribers_restaurants"`}
	t.Run("from the start", func(t *testing.T) {
		t.Parallel()
		db := servers.Database(t)
		contract(t, db, "DEFAULT")
		db.Exec(t, heir, `INSERT INTO "of 2019" (client_id, restaurant_id) VALUES ('c1', 'r1')`)
		refuses(t, start(t, db), want...)
	})
	t.Run("while running", func(t *testing.T) {
		t.Parallel()
		db := servers.Database(t)
		contract(t, db, "DEFAULT")
		db.Exec(t, `ALTER DATABASE `+db.Name+` SET wal_sender_timeout = 0`) // else the warden looks every 20 s
		g := start(t, db, func(c *Config) { c.StatusInterval = time.Hour })
		g.agree(t)
		db.Exec(t, heir, `INSERT INTO "of 2019" (client_id, restaurant_id) VALUES ('c1', 'r1')`)
		mark := make(chan error, 1)
		go func() { _, err := g.r.Wait(t.Context()); mark <- err }()
		for _, text := range want {
			g.saysWhy(t, text)
		}
		db.Exec(t, `ALTER TABLE "of 2019" NO INHERIT subscribers_restaurants`)
		if err := <-mark; err != nil {
			t.Error(err)
		}
		g.agree(t)
	})
}
