package acceptance

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// fields are the first eight fields of a record, written out.
func fields(restaurant, id, content string, start, end int64) string {
	return fmt.Sprintf(`{"restaurant_id":"%s","adv_campaign_id":"%s","adv_campaign_content":"%s","adv_campaign_owner":"Ivanov <i&i>",`+
		`"adv_campaign_owner_contact":"iivanov@restaurant.example","adv_campaign_datetime_start":%d,"adv_campaign_datetime_end":%d,"datetime_created":1659131516`,
		restaurant, id, content, start, end)
}

func message(restaurant, id, content string, start, end int64, recipients []string) *campaign {
	f := fields(restaurant, id, content, start, end)
	return &campaign{value: []byte(f + "}"), fields: f, recipients: recipients}
}

// subscribe fills the source table, unevenly, and returns who subscribes to what.
func (w *world) subscribe(subscriptions, restaurants int, random *rand.Rand) map[string][]string {
	w.t.Helper()
	of := map[string]map[string]bool{}
	var rows [][]any
	for len(rows) < subscriptions {
		r := fmt.Sprintf("r-%03d", int(float64(restaurants)*random.Float64()*random.Float64()))
		c := fmt.Sprintf("%08x-1111-4222-8333-%012x", random.Uint32(), random.Uint32())
		if random.IntN(20) == 0 {
			c = fmt.Sprintf("клиент %d", random.IntN(1000))
		}
		if of[r] == nil {
			of[r] = map[string]bool{}
		}
		of[r][c] = true
		rows = append(rows, []any{c, r})
	}
	if _, err := w.source.Connect(w.t).CopyFrom(w.t.Context(), []string{"subscribers_restaurants"}, []string{"client_id", "restaurant_id"}, copyRows(rows)); err != nil {
		w.t.Fatal(err)
	}
	lists := map[string][]string{}
	for r, clients := range of {
		for c := range clients {
			lists[r] = append(lists[r], c)
		}
	}
	return lists
}

// 20,000 subscriptions, 500 restaurants, 1,000 mixed messages: both sinks equal an
// independent expectation, row for row and byte for byte.
func TestBothSinksEqualTheExpectation(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 4)
	random := rand.New(rand.NewPCG(1, 2))
	of := w.subscribe(20_000, 500, random)
	messages := mixed(of, 1000, random)
	w.publish(messages...)
	w.untilNow()
	w.wantBoth(messages)
	if n := len(w.read(w.topic.dead)); n != malformedOf(messages) {
		t.Errorf("%d dead letters: want %d", n, malformedOf(messages))
	}
}

func mixed(of map[string][]string, n int, random *rand.Rand) []*campaign {
	now := time.Now().Unix()
	messages := make([]*campaign, n)
	for i := range messages {
		restaurant := fmt.Sprintf("r-%03d", random.IntN(520)) // some have no subscribers
		id := fmt.Sprintf("c-%d", i)
		switch random.IntN(10) {
		case 0:
			messages[i] = message(restaurant, id, "over", 1, now-1000, nil)
		case 1:
			messages[i] = message(restaurant, id, "not yet", now+100_000, now+200_000, nil)
		case 2:
			messages[i] = &campaign{value: []byte(`{"restaurant_id":` + id)}
		default:
			messages[i] = message(restaurant, id, `<b>Скидка 50% & пицца\n🍕</b>`, now-1000, now+100_000, of[restaurant])
		}
		messages[i].partition = int32(random.IntN(4))
	}
	return messages
}

func malformedOf(messages []*campaign) (n int) {
	for _, m := range messages {
		if m.fields == "" {
			n++
		}
	}
	return n
}

// What is committed before a campaign is published always counts: 1,000 times a client comes
// or goes, and the next message knows.
func TestCommitBeforePublishAlwaysCounts(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	p := w.start("run")
	w.ready(p)
	conn, manifest := w.source.Connect(t), w.feedback.Connect(t)
	now := time.Now().Unix()
	var messages []*campaign
	for i := range 1000 {
		sql, recipients := `INSERT INTO subscribers_restaurants (client_id, restaurant_id) VALUES ('c', 'r')`, []string{"c"}
		if i%2 == 1 {
			sql, recipients = `DELETE FROM subscribers_restaurants WHERE client_id = 'c'`, nil
		}
		if _, err := conn.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
		m := message("r", fmt.Sprint(i), "x", now-1000, now+100_000, recipients)
		w.publish(m)
		messages = append(messages, m)
		w.awaitHandled(manifest, m.offset) // the next change must not be there yet when it is joined
	}
	w.stop(p)
	w.wantBoth(messages)
}

func (w *world) awaitHandled(conn *pgx.Conn, offset int64) {
	w.t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(30 * time.Second); ; <-tick.C {
		var handled bool
		if err := conn.QueryRow(w.t.Context(), `SELECT EXISTS (SELECT FROM tiffin.trigger WHERE record_offset = $1)`, offset).Scan(&handled); err != nil {
			w.t.Fatal(err)
		}
		if handled {
			return
		}
		if time.Now().After(deadline) {
			w.t.Fatalf("message %d was not handled within 30 s", offset)
		}
	}
}

// kill -9 in the middle of a backlog, again and again: nothing lost, nothing twice.
func TestKilledInABacklogBothSinksStayEqual(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 4)
	random := rand.New(rand.NewPCG(3, 4))
	of := w.subscribe(20_000, 60, random)
	messages := mixed(of, 1500, random)
	w.publish(messages...)
	w.env = append(w.env, "TIFFIN_DELIVERY_MAX_TRANSACTION_RECORDS=500")
	kills := 0
	for before := -1; kills < 8; kills++ {
		p := w.start("run")
		w.eventually("progress", func() bool { n := w.count(); ok := n > before; before = max(before, n); return ok })
		time.AfterFunc(time.Duration(random.IntN(400))*time.Millisecond, p.kill)
		p.done <- <-p.done
	}
	w.untilNow()
	w.wantBoth(messages)
	if n := len(w.read(w.topic.dead)); n != malformedOf(messages) {
		t.Errorf("%d dead letters: want %d", n, malformedOf(messages))
	}
}
