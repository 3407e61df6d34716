package cdc

import (
	"testing"

	"example.com/tiffin/internal/devstack"
	"example.com/tiffin/internal/devstack/devstacktest"
)

// A walsender of an older release that sends a transaction which began before the table was published goes on to
// take the table for unpublished: a slot is made that begins behind such a transaction.
func TestPublishedBesideAnOpenTransaction(t *testing.T) {
	t.Parallel()
	for _, running := range []bool{true, false} {
		t.Run(map[bool]string{true: "while running", false: "while away"}[running], func(t *testing.T) {
			t.Parallel()
			db := devstacktest.NewDatabase(t, own(t, devstack.PostgresOptions{Version: devstack.Unmended}), "alone")
			contract(t, db, "DEFAULT")
			db.Exec(t, `CREATE PUBLICATION tiffin FOR TABLE subscribers_restaurants`)
			g := start(t, db)
			g.agree(t)
			if !running {
				g.quit()
			}
			g.exec(t, `ALTER PUBLICATION tiffin DROP TABLE subscribers_restaurants`)
			writer := db.Connect(t)
			for _, sql := range []string{`BEGIN`, `INSERT INTO subscribers_restaurants (restaurant_id, client_id) VALUES ('r1', 'early')`} {
				if _, err := writer.Exec(t.Context(), sql); err != nil {
					t.Fatal(err)
				}
			}
			g.exec(t, `ALTER PUBLICATION tiffin ADD TABLE subscribers_restaurants`)
			if running {
				g.r.askWarden()
				g.saysWhy(t, "the transactions that run")
			}
			if _, err := writer.Exec(t.Context(), `COMMIT`); err != nil {
				t.Fatal(err)
			}
			if !running {
				g = start(t, db)
			}
			g.agree(t)
			for range 3 {
				g.exec(t, `INSERT INTO subscribers_restaurants (restaurant_id, client_id) VALUES ('r1', gen_random_uuid())`)
				g.agree(t)
			}
		})
	}
}
