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
