package cdc

import (
	"testing"

	"example.com/tiffin/internal/devstack"
	"example.com/tiffin/internal/devstack/devstacktest"
)

// A prepared transaction outlives its session, the daemon and the server: its changes are in the
// index from COMMIT PREPARED on, whichever was restarted meanwhile, and after ROLLBACK PREPARED
// they never are.
func TestPreparedTransactionsOutliveRestarts(t *testing.T) {
	t.Parallel()
	server := own(t, devstack.PostgresOptions{})
	db := devstacktest.NewDatabase(t, server, "alone")
	contract(t, db, "DEFAULT")
	db.Exec(t, `INSERT INTO subscribers_restaurants (restaurant_id, client_id) SELECT 'r'||i%10, 'c'||i FROM generate_series(1,100) i`)
	g := start(t, db)
	g.agree(t)
	for _, restart := range []string{"nothing", "daemon", "server", "server killed"} {
		for _, end := range []string{"COMMIT", "ROLLBACK"} {
			name := restart + ", " + end
			db.Exec(t, `BEGIN; INSERT INTO subscribers_restaurants (restaurant_id, client_id) VALUES ('r1', '`+name+`'), ('r40', '`+name+`');
				DELETE FROM subscribers_restaurants WHERE id = (SELECT min(id) FROM subscribers_restaurants WHERE restaurant_id = 'r2');
				UPDATE subscribers_restaurants SET client_id = client_id || '!' WHERE restaurant_id = 'r3';
				PREPARE TRANSACTION '`+name+`'`)
			g.agree(t)
			switch restart {
			case "daemon":
				g.quit()
				g = start(t, db)
			case "server":
				if err := server.Stop(t.Context(), devstack.StopFast); err != nil {
					t.Fatal(err)
				}
			case "server killed":
				server.Kill()
			}
			if server.PID() == 0 {
				if err := server.Start(t.Context()); err != nil {
					t.Fatal(err)
				}
				g.sql.Reset()
			}
			g.agree(t)
			db.Exec(t, end+` PREPARED '`+name+`'`)
			g.agree(t)
			db.Exec(t, `INSERT INTO subscribers_restaurants (restaurant_id, client_id) VALUES ('r1', 'after')`)
			g.agree(t)
		}
	}
	if got := g.clients(t, "r40"); len(got) != 4 {
		t.Errorf("clients of r40: %v, want the four that were committed", got)
	}
	g.unrebuilt(t)
}
