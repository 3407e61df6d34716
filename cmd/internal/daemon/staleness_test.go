package daemon

import (
	"fmt"
	"net/http"
	"regexp"
	"strconv"
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

// Without source.max_staleness a campaign that comes while the source is away, or the table cannot be followed,
// waits: it goes to those who are subscribed when that is over.
func TestNothingIsJoinedWhileTheSourceIsAway(t *testing.T) {
	t.Parallel()
	for what, c := range map[string]struct {
		away, change, back func(*testing.T, *world, *devstack.Route)
	}{
		"source": {
			away:   func(_ *testing.T, _ *world, route *devstack.Route) { route.Lead("127.0.0.1:1") },
			change: sqlOf("INSERT INTO subscribers_restaurants (client_id, restaurant_id) VALUES ('dan', 'r1'); DELETE FROM subscribers_restaurants WHERE client_id = 'bob'"),
			back:   func(_ *testing.T, w *world, route *devstack.Route) { route.Lead(w.db.Server.Address()) },
		},
		"column": {
			away:   sqlOf("ALTER TABLE subscribers_restaurants RENAME client_id TO client"),
			change: sqlOf("INSERT INTO subscribers_restaurants (client, restaurant_id) VALUES ('dan', 'r1'); DELETE FROM subscribers_restaurants WHERE client = 'bob'"),
			back:   sqlOf("ALTER TABLE subscribers_restaurants RENAME client TO client_id"),
		},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			route := devstacktest.OpenRoute(t, w.db.Server.Address())
			r := start(t, append(w.environ, "TIFFIN_SOURCE_DSN="+devstacktest.RouteDSN(t, route, w.db.DSN)), nil)
			r.waitReady(t)
			w.publish(t, "r1")
			if got := w.clients(t, 2); fmt.Sprint(got) != "map[ann:1 bob:1]" { // whom the index remembers
				t.Errorf("delivered to %v", got)
			}
			c.away(t, w, route)
			eventually(t, func() bool { status, _ := r.probe(t); return status == http.StatusServiceUnavailable }, "unready")
			c.change(t, w, route)
			before := r.fetched(t)
			w.publish(t, "r1")
			eventually(t, func() bool { return r.fetched(t) > before }, "the second campaign is fetched")
			c.back(t, w, route)
			if got := w.clients(t, 4); fmt.Sprint(got) != "map[ann:2 bob:1 dan:1]" {
				t.Errorf("delivered to %v", got)
			}
		})
	}
}

func sqlOf(text string) func(*testing.T, *world, *devstack.Route) {
	return func(t *testing.T, w *world, _ *devstack.Route) { w.db.Exec(t, text) }
}

// fetched is how many bytes came from the campaigns' topic.
func (r *running) fetched(t *testing.T) (n int) {
	t.Helper()
	for _, found := range regexp.MustCompile(`tiffin_kafka_fetch_bytes_total\{client="consumer"[^}]*topic="campaigns"[^}]*\} (\d+)`).FindAllStringSubmatch(r.metrics(t), -1) {
		one, _ := strconv.Atoi(found[1])
		n += one
	}
	return n
}
