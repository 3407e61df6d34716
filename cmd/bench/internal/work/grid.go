package work

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"example.com/tiffin/cmd/bench/internal/testbed"
	"example.com/tiffin/internal/devstack"
)

// layout says who subscribes to what; campaign and client numbers are from 0.
type layout interface {
	Restaurant(n int) string
	Client(n int) string
	Fanout(restaurant int) int
	Subscriber(restaurant, i int) int // the number of the i-th client
}

// gridClients is a prime, so that no client comes twice among any gridClients rows in a row.
const gridClients = 1_000_003

// grid is a table that the server can compute by itself, in seconds for millions of rows: row i is
// of restaurant i / fanout.
type grid struct{ fanout int }

// gridStep is a prime, so that campaigns come in no order that the table has. Campaigns in the table's order read a small
// table's clients one behind the other, and skip through a large one's: the misses of the cache that only the latter
// has look like a cost of its size.
const gridStep = 7_368_787

// Restaurant implements layout, as Client, Fanout and Subscriber do.
func (g grid) Restaurant(n int) string { return fmt.Sprintf("%08x-0000-4000-8000-00000000000a", n) }

func (g grid) Client(n int) string { return fmt.Sprintf("%08x-0000-4000-8000-00000000000c", n) }

func (g grid) Fanout(int) int { return g.fanout }

func (g grid) Subscriber(restaurant, i int) int {
	return int((int64(restaurant)*int64(g.fanout) + int64(i)) * 7919 % gridClients)
}

const gridSQL = `INSERT INTO subscribers_restaurants (restaurant_id, client_id)
	SELECT lpad(to_hex(i / $3), 8, '0') || '-0000-4000-8000-00000000000a', lpad(to_hex(i * 7919 % $4), 8, '0') || '-0000-4000-8000-00000000000c'
	FROM generate_series($1::bigint, $2::bigint - 1) i`

// NewGrid is a workload on a table that Grow fills on the server: campaigns are spread over the
// restaurants of so many subscriptions, all of the same fan-out, in no order.
func NewGrid(fanout, subscriptions, campaigns int, now time.Time) *Workload {
	g := grid{fanout: fanout}
	w := &Workload{
		Shape:  Shape{Campaigns: campaigns, Restaurants: subscriptions / fanout, Subscriptions: subscriptions, Clients: gridClients, Partitions: defaultPartitions},
		made:   devstack.Campaigns{Seed: 42, Now: now},
		source: g,
		step:   gridStep,
	}
	w.clientIDs = make([]string, gridClients)
	for n := range w.clientIDs {
		w.clientIDs[n] = g.Client(n)
	}
	return w
}

// Grow adds the grid's rows from number from up to to, that excluded, to the stage's source table,
// which it makes.
func Grow(ctx context.Context, stage *testbed.Stage, fanout, from, to int) error {
	conn, err := pgx.Connect(ctx, stage.SourceDSN)
	if err != nil {
		return fmt.Errorf("connect to the source database: %w", err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	if err := devstack.CreateSourceTable(ctx, conn, pgx.Identifier{"public", "subscribers_restaurants"}); err != nil {
		return err
	}
	if _, err := conn.Exec(ctx, gridSQL, from, to, int64(fanout), int64(gridClients)); err != nil {
		return fmt.Errorf("add rows to the source table: %w", err)
	}
	return analyze(ctx, conn)
}
