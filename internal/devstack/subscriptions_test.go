package devstack

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// What Load wrote is what the table says of itself: pairs, fan-outs, no pair twice, no row lost.
func TestSubscriptionsAreWhatTheySay(t *testing.T) {
	t.Parallel()
	s := startPostgres(t, PostgresOptions{})
	for i, plan := range []Subscriptions{
		{Seed: 1, Rows: 5000, Restaurants: 50, Clients: 100},
		{Seed: 2, Rows: 5003, Restaurants: 70, Clients: 4000, Zipf: 1.1},
		{Seed: 3, Rows: 1, Restaurants: 1, Clients: 1},
	} {
		conn, err := pgx.Connect(t.Context(), s.DSN("postgres"))
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = conn.Close(context.WithoutCancel(t.Context())) }()
		name := fmt.Sprintf("subscribers_%d", i)
		table, err := plan.Load(t.Context(), conn, pgx.Identifier{"public", name})
		if err != nil {
			t.Fatal(err)
		}
		want := map[[2]string]bool{}
		for n := range plan.Restaurants {
			for j := range table.Fanout(n) {
				want[[2]string{table.Restaurant(n), table.Client(table.Subscriber(n, j))}] = true
			}
		}
		if len(want) != plan.Rows {
			t.Fatalf("%+v: %d different pairs described", plan, len(want))
		}
		rows, err := conn.Query(t.Context(), "SELECT restaurant_id, client_id FROM "+name)
		if err != nil {
			t.Fatal(err)
		}
		var restaurant, client string
		if _, err := pgx.ForEachRow(rows, []any{&restaurant, &client}, func() error {
			delete(want, [2]string{restaurant, client})
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		if got := query(t, s.DSN("postgres"), "SELECT count(*)::text FROM "+name); got != fmt.Sprint(plan.Rows) || len(want) != 0 {
			t.Fatalf("%+v: %s rows, %d pairs missing", plan, got, len(want))
		}
	}
}

func TestSubscriptionsRefuseWhatCannotBe(t *testing.T) {
	t.Parallel()
	for _, plan := range []Subscriptions{
		{}, {Rows: 1, Restaurants: 2, Clients: 9}, {Rows: 9, Restaurants: 1, Clients: 8},
	} {
		if _, err := plan.Layout(); err == nil {
			t.Errorf("%+v was accepted", plan)
		}
	}
}

// The same seed gives the same bytes, another seed others, and the fields are the contract's.
func TestCampaignsAreDeterministic(t *testing.T) {
	t.Parallel()
	now := time.Unix(1_700_000_000, 0)
	one := Campaigns{Seed: 1, Now: now}.Campaign(7, "r").JSON()
	if again := (Campaigns{Seed: 1, Now: now}).Campaign(7, "r").JSON(); string(again) != string(one) {
		t.Errorf("twice the same:\n%s\n%s", one, again)
	}
	if other := (Campaigns{Seed: 2, Now: now}).Campaign(7, "r").JSON(); string(other) == string(one) {
		t.Error("another seed gives the same campaign")
	}
	seen := map[string]bool{}
	for n := range 10_000 {
		seen[Campaigns{Seed: 1, Now: now}.Campaign(n, "r").ID] = true
	}
	if len(seen) != 10_000 {
		t.Errorf("%d different ids of 10000", len(seen))
	}
}
