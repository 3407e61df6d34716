package daemon

import (
	"testing"

	"example.com/tiffin/internal/devstack"
	"example.com/tiffin/internal/devstack/devstacktest"
)

// With source.max_staleness campaigns go out while the source is away, and the manifest marks
// which; those before are not marked.
func TestStaleDeliveriesAreMarkedInTheManifest(t *testing.T) {
	t.Parallel()
	server, err := devstack.StartPostgres(t.Context(), devstack.PostgresOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Close(); err != nil {
			t.Error(err)
		}
	})
	source := devstacktest.NewDatabase(t, server, "away")
	source.Exec(t, "CREATE TABLE subscribers_restaurants (id serial PRIMARY KEY, client_id varchar NOT NULL, restaurant_id varchar NOT NULL)",
		"INSERT INTO subscribers_restaurants (client_id, restaurant_id) VALUES ('ann', 'r1'), ('bob', 'r1')")
	w := newWorld(t)
	r := start(t, append(w.environ, "TIFFIN_SOURCE_DSN="+source.DSN, "TIFFIN_SOURCE_MAX_STALENESS=1h"), nil)
	r.waitReady(t)
	for range 2 { // from the second on the answer is in memory
		w.publish(t, "r1")
	}
	w.clients(t, 4)
	if err := server.Stop(t.Context(), devstack.StopFast); err != nil {
		t.Fatal(err)
	}
	w.publish(t, "r1")
	w.clients(t, 6)
	var marked string
	const marks = "SELECT string_agg(stale::text || ' ' || recipients, ', ' ORDER BY handled_at, stale) FROM tiffin.trigger"
	if err := w.db.Connect(t).QueryRow(t.Context(), marks).Scan(&marked); err != nil {
		t.Fatal(err)
	}
	if marked != "false 2, false 2, true 2" {
		t.Errorf("the manifest says %q", marked)
	}
}
