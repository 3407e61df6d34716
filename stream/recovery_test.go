package stream_test

import (
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"

	"example.com/tiffin/stream"
)

// When the ledger is ahead of the group's offset the records are rebuilt from the rows, byte
// for byte, whatever the index says by now.
func TestRecordsAreRebuiltFromRows(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name     string
		offset   int64
		metadata string
		again    func(trigger int, client int) bool // which deliveries go out again
	}{
		{"all", 0, "", func(int, int) bool { return true }},
		{"some messages", 3, "", func(trigger, _ int) bool { return trigger >= 3 }},
		{"part of a large one", 2, "tiffin sent=120", func(trigger, client int) bool { return trigger > 2 || trigger == 2 && client >= 120 }},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			list := clients(200)
			r := newRig(t, 1, map[string][]string{"r": list})
			r.cfg.MaxTransactionRecords = 60
			// Messages 1 and 3 are the same, byte for byte.
			ids := []string{"a", "same", "b", "same", "c"}
			var want []delivery
			for i, id := range ids {
				m := campaign("r", id)
				r.publish(0, m.json(t))
				for _, client := range list {
					want = append(want, r.expect(m, 0, int64(i), client))
				}
			}
			r.untilNow()
			r.wantBoth(want)
			inOrder := perTrigger(r, len(ids))

			r.setOffset(0, c.offset, c.metadata)
			r.source.of = nil // whoever joins again finds nobody
			r.clock.Add(1000)
			metrics := prometheus.NewRegistry()
			r.untilNow(func(c *stream.Config) { c.Registerer = metrics })
			r.clock.Add(-1000)
			twice := want
			for trigger, deliveries := range inOrder {
				for i, d := range deliveries {
					if c.again(trigger, i) {
						twice = append(twice, d)
					}
				}
			}
			same(t, "records", r.deliveries(), twice)
			if n := gathered(t, metrics, "tiffin_recovered_deliveries_total"); n != float64(len(twice)-len(want)) {
				t.Errorf("%v recovered deliveries are counted: want %d", n, len(twice)-len(want))
			}
			if got := r.groupOffset(0); got != int64(len(ids)) {
				t.Errorf("group offset %d: want %d", got, len(ids))
			}
			if rows := r.table(); len(rows) != len(want) {
				t.Errorf("%d rows: want %d, as before", len(rows), len(want))
			}
		})
	}
}

// gathered is a counter's value; -1 when there is none.
func gathered(t *testing.T, from prometheus.Gatherer, name string) float64 {
	t.Helper()
	families, err := from.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == name {
			return f.GetMetric()[0].GetCounter().GetValue()
		}
	}
	return -1
}

// perTrigger is what each message delivered, in the order of the rows' ids.
func perTrigger(r *rig, triggers int) [][]delivery {
	r.t.Helper()
	conn := r.db.Connect(r.t)
	found := make([][]delivery, triggers)
	rows, err := conn.Query(r.t.Context(), `SELECT t.record_offset, f.adv_campaign_id, f.client_id FROM tiffin.trigger t
		JOIN subscribers_feedback f ON t.feedback_ids @> f.id ORDER BY t.record_offset, f.id`)
	if err != nil {
		r.t.Fatal(err)
	}
	var offset int64
	var id, client string
	if _, err := pgx.ForEachRow(rows, []any{&offset, &id, &client}, func() error {
		found[offset] = append(found[offset], r.expect(campaign("r", id), 0, offset, client))
		return nil
	}); err != nil {
		r.t.Fatal(err)
	}
	return found
}

// A recovery that finds nothing to send leaves no transaction open: the producers serve the batches that
// come after it.
func TestRecoveryWithoutRecordsDisturbsNothing(t *testing.T) {
	t.Parallel()
	r := newRig(t, 1, map[string][]string{"r": {"c"}})
	r.publish(0, campaign("nobody's", "0").json(t))
	r.untilNow()
	r.setOffset(0, 0, "tiffin")
	log := r.logging()
	_, stop := r.start()
	r.eventually("the recovery", func() bool { return r.committed(0).At == 1 })
	for i := range 6 { // every producer has its turn
		next := r.publish(0, campaign("r", fmt.Sprint(i)).json(t)) + 1
		r.eventually("a delivery", func() bool { return r.committed(0).At == next })
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	log.wants(t, "records=0")
	if n := log.lines("delivery interrupted"); n != 0 {
		t.Errorf("the delivery was interrupted %d times", n)
	}
}

// The manifest leads to exactly a trigger's rows, also while others draw on the same sequence.
func TestManifestKnowsItsRowsAmongOthers(t *testing.T) {
	t.Parallel()
	list := clients(300)
	r := newRig(t, 1, map[string][]string{"large": list, "small": list[:3]})
	r.untilNow() // creates the table
	conn := r.db.Connect(t)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				if _, err := conn.Exec(t.Context(), `SELECT nextval(pg_get_serial_sequence('subscribers_feedback', 'id'))`); err != nil {
					t.Error(err)
					return
				}
			}
		}
	})
	var want []delivery
	for i := range 300 {
		m := campaign([]string{"large", "small", "small", "small"}[i%4], "same")
		r.publish(0, m.json(t))
		n := 3
		if m.Restaurant == "large" {
			n = 300
		}
		for _, client := range list[:n] {
			want = append(want, r.expect(m, 0, int64(i), client))
		}
	}
	r.untilNow()
	close(stop)
	wg.Wait()
	r.wantBoth(want)
	var wrong, split int
	if err := r.db.Connect(t).QueryRow(t.Context(), `SELECT count(*) FILTER (WHERE n <> recipients OR clients <> recipients), count(*) FILTER (WHERE parts > 1)
		FROM (SELECT t.recipients, count(f.id) n, count(DISTINCT f.client_id) clients,
			(SELECT count(*) FROM unnest(t.feedback_ids)) parts
			FROM tiffin.trigger t LEFT JOIN subscribers_feedback f ON t.feedback_ids @> f.id AND f.restaurant_id = t.restaurant_id
			GROUP BY t.record_offset, t.recipients, t.feedback_ids) x`).Scan(&wrong, &split); err != nil {
		t.Fatal(err)
	}
	if wrong != 0 {
		t.Errorf("%d manifest rows do not lead to their rows", wrong)
	}
	if split == 0 {
		t.Error("no trigger's ids were interleaved with others': the test proved nothing")
	}
}

// A ledger behind the group's offset is for an operator to judge.
func TestLedgerBehindTheGroupStops(t *testing.T) {
	t.Parallel()
	r := newRig(t, 1, map[string][]string{"r": {"c"}})
	for i := range 6 {
		r.publish(0, campaign("r", fmt.Sprint(i)).json(t))
	}
	r.untilNow()
	r.db.Exec(t, `UPDATE tiffin.progress SET next_offset = 2, start_offset = 2; DELETE FROM tiffin.trigger WHERE record_offset >= 2;
		DELETE FROM subscribers_feedback WHERE adv_campaign_id >= '2'`)
	err := r.tryUntilNow()
	var ledger *stream.LedgerError
	if !errors.As(err, &ledger) || !stream.IsPermanent(err) {
		t.Fatalf("error %v: want a LedgerError", err)
	}
	if n := len(r.table()); n != 2 {
		t.Fatalf("%d rows: want what was there", n)
	}
	r.untilNow(func(c *stream.Config) { c.LedgerBehind = stream.LedgerSkip })
	if n, m := len(r.table()), len(r.deliveries()); n != 2 || m != 6 {
		t.Fatalf("after skip: %d rows, %d records: want 2 and 6", n, m)
	}
	r.db.Exec(t, `UPDATE tiffin.progress SET next_offset = 2, start_offset = 2`)
	r.untilNow(func(c *stream.Config) { c.LedgerBehind = stream.LedgerReplay })
	if n, m := len(r.table()), len(r.deliveries()); n != 6 || m != 10 {
		t.Fatalf("after replay: %d rows, %d records: want 6 and 10", n, m)
	}
}

// A group that was stopped in order goes on although Kafka has forgotten its offsets; after a
// crash nobody can know, and it says so.
func TestForgottenGroupOffset(t *testing.T) {
	t.Parallel()
	r := newRig(t, 1, map[string][]string{"r": {"c"}})
	r.publish(0, campaign("r", "0").json(t))
	r.untilNow()
	forget := func() {
		t.Helper()
		if err := deleteGroup(t.Context(), r.admin, r.cfg.Kafka.Group); err != nil {
			t.Fatal(err)
		}
	}
	forget()
	r.publish(0, campaign("r", "1").json(t))
	r.untilNow()
	if n := len(r.deliveries()); n != 2 {
		t.Fatalf("%d records: want 2", n)
	}
	forget()
	r.db.Exec(t, `UPDATE tiffin.progress SET start_offset = 0`) // what a crash leaves
	r.wantLedgerError("no committed offset any more", "stands at 2", "--reset-offsets --to-offset N): 2 if they did")
}

// A process whose epoch is over writes nothing, and claims anew if the group still gives it
// the partition.
func TestFencedProcessWritesNothing(t *testing.T) {
	t.Parallel()
	r := newRig(t, 1, map[string][]string{"r": {"c"}})
	r.untilNow() // creates the table
	_, stop := r.start()
	r.publish(0, campaign("r", "0").json(t))
	r.eventually("the first delivery", func() bool { return len(r.table()) == 1 })
	r.db.Exec(t, `UPDATE tiffin.progress SET epoch = epoch + 1`)
	r.publish(0, campaign("r", "1").json(t))
	r.eventually("the second delivery", func() bool { return len(r.table()) == 2 })
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	if n := len(r.deliveries()); n != 2 {
		t.Fatalf("%d records: want 2", n)
	}
	if epoch := r.epoch(0); epoch < 4 {
		t.Errorf("epoch %d: the process did not notice that it was fenced", epoch)
	}
}

// A process that hangs while it writes its rows does not keep another from taking over, and
// writes nothing after that.
func TestHangingProcessHoldsNobodyUp(t *testing.T) {
	t.Parallel()
	r := newRig(t, 1, map[string][]string{"r": {"c"}})
	r.untilNow() // creates the table
	_, stop := r.start()
	r.eventually("the claim", func() bool { return r.epoch(0) > 1 })
	tx, err := r.db.Connect(t).Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), `LOCK TABLE subscribers_feedback IN SHARE MODE`); err != nil {
		t.Fatal(err)
	}
	m := campaign("r", "0")
	offset := r.publish(0, m.json(t))
	r.eventually("an insertion that hangs", func() bool {
		return r.number(`SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'subscribers_feedback'::regclass`) > 0
	})
	r.db.Exec(t, `SET lock_timeout = '2s'`, `UPDATE tiffin.progress SET epoch = epoch + 1`)
	if err := tx.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.eventually("the delivery", func() bool { return r.groupOffset(0) == offset+1 })
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	r.wantBoth([]delivery{r.expect(m, 0, offset, "c")})
	if epoch := r.epoch(0); epoch < 4 {
		t.Errorf("epoch %d: the process did not notice that it was fenced", epoch)
	}
}
