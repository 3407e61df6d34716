package cdc

import (
	"fmt"
	"os/exec"
	"testing"

	"example.com/tiffin/internal/devstack"
)

// A server whose files are put back to an earlier state is the same server on the same timeline, and writes other
// transactions where those were that it lost. Fewer of them, or as many, or more: the table is loaded again.
func TestServerPutBackLoadsAgain(t *testing.T) {
	t.Parallel()
	for _, writes := range []int{0, 40, 2000} {
		t.Run(fmt.Sprint(writes), func(t *testing.T) {
			t.Parallel()
			db := quiet(t, nil)
			contract(t, db, "FULL")
			db.Exec(t, `INSERT INTO subscribers_restaurants (restaurant_id, client_id) SELECT 'r'||i%10, 'c'||i FROM generate_series(1,30) i`)
			g := start(t, db)
			g.agree(t)
			dir := g.one(t, `SHOW data_directory`)
			stopped(t, g, "cp", "-a", dir, dir+".was")
			g.agree(t)
			g.exec(t, `DO $$ BEGIN FOR i IN 1..20 LOOP INSERT INTO subscribers_restaurants (restaurant_id, client_id) VALUES ('r1', 'lost '||i); COMMIT; END LOOP; END $$`)
			g.agree(t)
			g.unrebuilt(t)
			stopped(t, g, "sh", "-c", "rm -rf '"+dir+"' && mv '"+dir+".was' '"+dir+"'")
			g.exec(t, fmt.Sprintf(`DO $$ BEGIN FOR i IN 1..%d LOOP INSERT INTO subscribers_restaurants (restaurant_id, client_id) VALUES ('r1', 'new '||i); COMMIT; END LOOP; END $$`, writes))
			g.agree(t)
			g.exec(t, `INSERT INTO subscribers_restaurants (restaurant_id, client_id) VALUES ('r2', 'late')`)
			g.agree(t)
		})
	}
}

// stopped runs a command while the source's server is stopped.
func stopped(t *testing.T, g *rig, name string, args ...string) {
	t.Helper()
	if err := g.db.Server.Stop(t.Context(), devstack.StopFast); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(t.Context(), name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
	if err := g.db.Server.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	g.sql.Reset() // its connections broke
}
