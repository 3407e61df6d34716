package daemon

import (
	"fmt"
	"testing"
)

// A name that holds dots, quotes and capitals is the table's that Postgres means by it, in
// both databases.
func TestQuotedNamesAreTakenAsPostgresDoes(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.db.Exec(t, `CREATE SCHEMA "odd.schema"`, `ALTER TABLE subscribers_restaurants RENAME TO "Sub.""scribers"`, `ALTER TABLE "Sub.""scribers" SET SCHEMA "odd.schema"`)
	const feedback = `"odd.schema"."Feed.back"`
	r := start(t, append(w.environ, `TIFFIN_SOURCE_TABLE="odd.schema"."Sub.""scribers"`, "TIFFIN_FEEDBACK_TABLE="+feedback), nil)
	r.waitReady(t)
	w.db.Exec(t, `INSERT INTO "odd.schema"."Sub.""scribers" (client_id, restaurant_id) VALUES ('dan', 'r1')`)
	w.publish(t, "r1")
	if got := w.clients(t, 3); fmt.Sprint(got) != "map[ann:1 bob:1 dan:1]" {
		t.Errorf("delivered to %v", got)
	}
	var rows int
	if err := w.db.Connect(t).QueryRow(t.Context(), "SELECT count(*) FROM "+feedback).Scan(&rows); err != nil || rows != 3 {
		t.Errorf("%d rows, %v", rows, err)
	}
}
