package stream_test

import (
	"fmt"
	"testing"

	"example.com/tiffin/stream"
)

// Large campaigns whose rows are inserted side by side, and beside batches, do not mix their ids: each has a run
// for every piece of 10,000 rows at most, and none is read back for that.
func TestRowsOfLargeCampaignsAreRuns(t *testing.T) {
	t.Parallel()
	const many, few, small = 25_000, 15, 200
	list := clients(many)
	r := newRig(t, 4, map[string][]string{"large": list, "small": list[:few]})
	var want []delivery
	for p := range int32(3) {
		m := campaign("large", fmt.Sprint("large", p))
		r.publish(p, m.json(t))
		for _, client := range list {
			want = append(want, r.expect(m, p, 0, client))
		}
	}
	for i := range small {
		m := campaign("small", fmt.Sprint("small", i))
		r.publish(3, m.json(t))
		for _, client := range list[:few] {
			want = append(want, r.expect(m, 3, int64(i), client))
		}
	}
	r.untilNow(func(c *stream.Config) { c.MaxTransactionRecords = 5_000 })
	r.wantBoth(want)
	var most, all int
	if err := r.db.Connect(t).QueryRow(t.Context(), `SELECT max(n), count(*) FROM
		(SELECT (SELECT count(*) FROM unnest(feedback_ids)) AS n FROM tiffin.trigger) x`).Scan(&most, &all); err != nil {
		t.Fatal(err)
	}
	if pieces := 3; most > pieces || all != 3+small {
		t.Errorf("the rows of one of %d campaigns lie in %d runs of ids, want %d at most", all, most, pieces)
	}
}

// A transaction that waits for its turn holds what it has inserted: who has the turn may wait for that in Postgres,
// which knows nothing of turns. Neither waits for long, and nothing is interrupted.
func TestTurnsAreNoLocks(t *testing.T) {
	t.Parallel()
	const many, few, small = 30_000, 15, 600
	list := clients(many)
	r := newRig(t, 2, map[string][]string{"large": list, "small": list[:few]})
	log := r.logging()
	if err := r.cfg.Prepare(t.Context(), r.db.Connect(t)); err != nil {
		t.Fatal(err)
	}
	// What is inserted locks something until the transaction's end, and is kept as it is: no trigger.
	r.db.Exec(t, `CREATE FUNCTION locks(text) RETURNS boolean LANGUAGE sql VOLATILE AS $$ SELECT pg_advisory_xact_lock(42) IS NOT NULL $$`,
		`ALTER TABLE subscribers_feedback ADD CONSTRAINT one_at_a_time CHECK (locks(client_id))`)
	var want []delivery
	expect := func(m message, partition int32, offset int64, to []string) {
		for _, client := range to {
			want = append(want, r.expect(m, partition, offset, client))
		}
	}
	large := campaign("large", "large")
	r.publish(0, large.json(t))
	expect(large, 0, 0, list)
	for i := range small {
		m := campaign("small", fmt.Sprint(i))
		r.publish(1, m.json(t))
		expect(m, 1, int64(i), list[:few])
	}
	r.untilNow(func(c *stream.Config) { c.MaxTransactionRecords = 1_000 })
	r.wantBoth(want)
	if n := log.lines("delivery interrupted"); n != 0 {
		t.Errorf("the delivery was interrupted %d times", n)
	}
}

// Ids that have come to their end are the table's state, also in the middle of a large campaign: it is no dead letter.
func TestIDsOfALargeCampaignComeToTheirEnd(t *testing.T) {
	t.Parallel()
	list := clients(30_000)
	r := newRig(t, 1, map[string][]string{"large": list})
	log := r.logging()
	if err := r.cfg.Prepare(t.Context(), r.db.Connect(t)); err != nil {
		t.Fatal(err)
	}
	r.db.Exec(t, `ALTER TABLE subscribers_feedback ALTER id DROP IDENTITY, ALTER id TYPE integer`, `CREATE SEQUENCE wide START 2147483648`,
		`ALTER TABLE subscribers_feedback ALTER id SET DEFAULT nextval('wide')`)
	m := campaign("large", "large")
	r.publish(0, m.json(t))
	var want []delivery
	for _, client := range list {
		want = append(want, r.expect(m, 0, 0, client))
	}
	_, stop := r.start(func(c *stream.Config) { c.MaxTransactionRecords = 5_000 })
	r.eventually("the reason", func() bool { return log.lines("make the column a bigint") > 0 })
	r.db.Exec(t, `ALTER TABLE subscribers_feedback ALTER id TYPE bigint`)
	r.eventually("the delivery", func() bool { return r.committed(0).At == 1 })
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	r.wantBoth(want)
}
