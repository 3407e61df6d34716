package stream_test

import (
	"fmt"
	"strings"
	"testing"

	"example.com/tiffin/stream"
)

// publishMany publishes so many campaigns to the clients of "r", at once: a batch of them goes by COPY.
func (r *rig) publishMany(n int) {
	r.t.Helper()
	var values [][]byte
	for i := range n {
		values = append(values, campaign("r", fmt.Sprint("many", i)).json(r.t))
	}
	r.publish(0, values...)
}

// Constraints that are deferred lock until the transaction's end: those of a batch are through before the next one
// inserts, or each would wait for what the other holds.
func TestDeferredConstraintsOfTwoBatchesDoNotMeet(t *testing.T) {
	t.Parallel()
	const restaurants, fan = 300, 10
	of := map[string][]string{}
	for i := range restaurants {
		of[fmt.Sprint("r", i)] = clients(fan)
	}
	r := newRig(t, 1, of)
	log := r.logging()
	r.untilNow()
	r.db.Exec(t, `CREATE TABLE counters (restaurant text PRIMARY KEY, n bigint)`, fmt.Sprintf(`INSERT INTO counters SELECT 'r' || i, 0 FROM generate_series(0, %d) i`, restaurants-1),
		`CREATE FUNCTION counts() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
			UPDATE counters SET n = n + 1 WHERE restaurant = NEW.restaurant_id; RETURN NULL; END $$`,
		`CREATE CONSTRAINT TRIGGER counts AFTER INSERT ON subscribers_feedback DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION counts()`)
	var values [][]byte
	for i := range 2 * restaurants {
		at := min(i, 2*restaurants-1-i) // there and back: the second batch begins with what the first one ends with
		values = append(values, campaign(fmt.Sprint("r", at), fmt.Sprint(i)).json(t))
	}
	r.publish(0, values...)
	r.untilNow(func(c *stream.Config) { c.MaxTransactionRecords = restaurants * fan })
	r.wantDelivered(2*restaurants*fan, 2*restaurants*fan)
	if n := log.lines("delivery interrupted"); n != 0 {
		t.Errorf("the delivery was interrupted %d times", n)
	}
}

// What a server said when it ended an idle connection is told, whatever is written to that next.
func TestWhatEndsAnIdleConnectionIsTold(t *testing.T) {
	t.Parallel()
	r := newRig(t, 1, map[string][]string{"r": clients(7)})
	log := r.logging()
	r.untilNow()
	_, stop := r.start()
	r.publish(0, campaign("r", "first").json(t))
	r.eventually("the first campaign", func() bool { return r.groupOffset(0) == 1 })
	r.db.Exec(t, `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'tiffin'`)
	var values [][]byte
	for i := range 400 { // more than a connection takes before it is found to be closed
		m := campaign("r", fmt.Sprint(i))
		m.Content = strings.Repeat("x", 3000)
		values = append(values, m.json(t))
	}
	r.publish(0, values...)
	r.eventually("all rows", func() bool { return r.rowCount() == 7*401 })
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	log.wants(t, "terminating connection due to administrator command (SQLSTATE 57P01)")
}

// A sequence may have any name, and a role may read literals as they were read before the standard.
func TestSequenceOfAnyName(t *testing.T) {
	t.Parallel()
	for _, standard := range []string{"on", "off"} {
		r := newRig(t, 1, map[string][]string{"r": clients(7)})
		r.untilNow()
		r.db.Exec(t, `CREATE SEQUENCE "Id's\"`, `ALTER TABLE subscribers_feedback ALTER id DROP IDENTITY, ALTER id SET DEFAULT nextval('"Id''s\"')`,
			`DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET standard_conforming_strings = `+standard+`', current_database()); END $$`)
		r.publishMany(100)
		r.untilNow()
		r.wantDelivered(700, 700)
	}
}
