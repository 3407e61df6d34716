package main

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"example.com/tiffin/cache"
	"example.com/tiffin/cmd/bench/internal/harness"
)

// compareIndex holds an index against the table: the number of rows, and the clients of the restaurants
// that the condition is of.
func compareIndex(ctx context.Context, conn *pgx.Conn, index *cache.Index, condition string) error {
	var rows int64
	if err := conn.QueryRow(ctx, "SELECT count(*) FROM subscribers_restaurants").Scan(&rows); err != nil {
		return fmt.Errorf("count the rows: %w", err)
	}
	if got := index.Stats().Subscriptions; got != rows {
		return fmt.Errorf("%w: %d rows are indexed, the table has %d", harness.ErrDiffer, got, rows)
	}
	answer, err := conn.Query(ctx, "SELECT restaurant_id, array_agg(DISTINCT client_id) FROM subscribers_restaurants WHERE "+condition+" GROUP BY 1")
	if err != nil {
		return fmt.Errorf("read restaurants: %w", err)
	}
	var restaurant string
	var clients []string
	tag, err := pgx.ForEachRow(answer, []any{&restaurant, &clients}, func() error { return compareClients(ctx, index, restaurant, clients) })
	if err == nil && tag.RowsAffected() == 0 {
		err = fmt.Errorf("%w: no restaurant was compared", harness.ErrDiffer)
	}
	return err
}

// compareClients holds what the index answers for a restaurant against its clients, each at least once.
func compareClients(ctx context.Context, index *cache.Index, restaurant string, clients []string) error {
	r, err := index.Lookup(ctx, restaurant)
	if err != nil {
		return err
	}
	defer r.Release()
	want := map[string]bool{}
	for _, c := range clients {
		want[c] = true
	}
	same := r.Len() == len(want)
	for c := range r.Range(0, r.Len()) {
		same = same && want[string(c)]
	}
	if !same {
		return fmt.Errorf("%w: restaurant %s has %d clients in the index, or others than the %d expected", harness.ErrDiffer, restaurant, r.Len(), len(want))
	}
	return nil
}
