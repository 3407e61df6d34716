package work

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"example.com/tiffin/internal/devstack"
	"example.com/tiffin/internal/devstack/devstacktest"
)

var servers devstacktest.Servers

func TestMain(m *testing.M) { os.Exit(servers.Main(m)) }

func fakeBroker(tb testing.TB) *devstack.FakeBroker {
	tb.Helper()
	broker, err := devstack.StartFakeBroker(tb.Context(), devstack.FakeBrokerOptions{})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(broker.Close)
	return broker
}

// The oracle finds whatever is wrong in one sink or both, and says how much.
func TestOracleFindsEveryDifference(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		spoil func(rows, records []devstack.Delivery) ([]devstack.Delivery, []devstack.Delivery)
		says  string
	}{
		"nothing": {nil, "80 rows, 80 records"},
		"row missing": {func(r, k []devstack.Delivery) ([]devstack.Delivery, []devstack.Delivery) {
			return r[1:], k
		}, "79 rows (1 missing, 0 too many)"},
		"missing in both": {func(r, k []devstack.Delivery) ([]devstack.Delivery, []devstack.Delivery) {
			return r[1:], k[1:]
		}, "79 records (1 missing, 0 too many)"},
		"record twice": {func(r, k []devstack.Delivery) ([]devstack.Delivery, []devstack.Delivery) {
			return r, append(k, k[0])
		}, "81 records (0 missing, 1 too many)"},
		"twice in both": {func(r, k []devstack.Delivery) ([]devstack.Delivery, []devstack.Delivery) {
			return append(r, r[0]), append(k, k[0])
		}, "81 rows (0 missing, 1 too many)"},
		"one lost, one doubled": {func(r, k []devstack.Delivery) ([]devstack.Delivery, []devstack.Delivery) {
			r[0], k[0] = r[1], k[1]
			return r, k
		}, "80 rows (1 missing, 1 too many)"},
		"other client in both": {func(r, k []devstack.Delivery) ([]devstack.Delivery, []devstack.Delivery) {
			r[0].Client, k[0].Client = "x", "x"
			return r, k
		}, "80 records (1 missing, 1 too many)"},
		"other time in one sink": {func(r, k []devstack.Delivery) ([]devstack.Delivery, []devstack.Delivery) {
			r[0].Trigger++
			return r, k
		}, "equal to each other: false"},
		"two times in one campaign": {func(r, k []devstack.Delivery) ([]devstack.Delivery, []devstack.Delivery) {
			r[0].Trigger++
			k[0].Trigger++
			return r, k
		}, "than their campaign: "},
	} {
		w, err := New(Shape{Restaurants: 5, Subscriptions: 50, Campaigns: 8}, time.Unix(1_700_000_000, 0))
		if err != nil {
			t.Fatal(err)
		}
		var r, k []devstack.Delivery
		for n := range w.Campaigns {
			for _, client := range w.Recipients(n) {
				r = append(r, w.Campaign(n).Delivery(client, int64(n)))
			}
		}
		k = append(k, r...)
		if c.spoil != nil {
			r, k = c.spoil(r, k)
		}
		v, err := judge(w.expected(UpTo(w.Campaigns)), list(r), list(k))
		if err != nil || v.Exact != (c.spoil == nil) || !strings.Contains(v.Text, c.says) {
			t.Errorf("%s: exact %t, %q, %v; want %q", name, v.Exact, v.Text, err, c.says)
		}
	}
}

func list(deliveries []devstack.Delivery) each {
	return func(do func(devstack.Delivery) error) error {
		for _, d := range deliveries {
			if err := do(d); err != nil {
				return err
			}
		}
		return nil
	}
}

// The key is the client's id: whoever writes another one has not delivered to that client.
func TestOracleLooksAtKeys(t *testing.T) {
	t.Parallel()
	for key, same := range map[string]bool{"client": true, "": false, "other": false} {
		d, err := deliveryOf(&kgo.Record{Key: []byte(key), Value: []byte(`{"client_id":"client"}`)})
		if err != nil || (d == devstack.Delivery{Client: "client"}) != same {
			t.Errorf("key %q: %+v, %v", key, d, err)
		}
	}
}
