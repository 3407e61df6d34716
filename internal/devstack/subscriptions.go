package devstack

import (
	"context"
	"fmt"
	"io"
	"math"
	"sort"

	"github.com/jackc/pgx/v5"
)

// Subscriptions describe the rows of a source table. The same values give the same rows, on any
// machine; nothing is kept but one number a restaurant. No pair occurs twice.
type Subscriptions struct {
	Seed        uint64
	Rows        int     // at least Restaurants
	Restaurants int     // at least 1
	Clients     int     // at least the rows of the largest restaurant
	Zipf        float64 // 0: every restaurant has the same number of rows (one apart); else restaurant n has about 1/(n+1)^Zipf of the largest's
}

// SourceTable is a table made by Load, which can name its restaurants and clients.
type SourceTable struct {
	plan   Subscriptions
	ends   []int // of restaurant n: rows of all restaurants up to n
	step   int   // walks through the clients of one restaurant; has no divisor in common with Clients
	stride int   // walks through the rows, so that a restaurant's lie scattered; none in common with Rows
}

// Layout validates the description and prepares to produce its rows.
func (s Subscriptions) Layout() (*SourceTable, error) {
	if s.Restaurants < 1 || s.Rows < s.Restaurants || s.Clients < 1 || s.Zipf < 0 {
		return nil, fmt.Errorf("subscriptions %+v: want at least one restaurant, one client and one row a restaurant", s)
	}
	t := &SourceTable{plan: s, ends: make([]int, s.Restaurants)}
	t.step = coprime(7919, s.Clients)
	t.stride = coprime(s.Rows/2+1, s.Rows)
	var total float64
	for n := range s.Restaurants {
		total += s.weight(n)
	}
	// One row each, and of the others a share. Rounding the running sum loses and doubles none.
	spare, sum := float64(s.Rows-s.Restaurants), 0.0
	for n := range s.Restaurants {
		sum += s.weight(n)
		t.ends[n] = n + 1 + int(math.Round(spare*min(sum/total, 1)))
	}
	t.ends[s.Restaurants-1] = s.Rows
	for n := range s.Restaurants {
		if fan := t.Fanout(n); fan > s.Clients {
			return nil, fmt.Errorf("subscriptions %+v: restaurant %d would have %d different clients", s, n, fan)
		}
	}
	return t, nil
}

func (s Subscriptions) weight(n int) float64 { return math.Pow(float64(n+1), -s.Zipf) }

// Load creates the contract's source table under this name, if there is none, and fills it by COPY.
func (s Subscriptions) Load(ctx context.Context, conn *pgx.Conn, table pgx.Identifier) (*SourceTable, error) {
	t, err := s.Layout()
	if err != nil {
		return nil, err
	}
	if err := CreateSourceTable(ctx, conn, table); err != nil {
		return nil, err
	}
	into := "COPY " + table.Sanitize() + " (restaurant_id, client_id) FROM STDIN"
	if _, err := conn.PgConn().CopyFrom(ctx, &rowReader{table: t}, into); err != nil {
		return nil, fmt.Errorf("fill %s: %w", table.Sanitize(), err)
	}
	if _, err := conn.Exec(ctx, "VACUUM (ANALYZE) "+table.Sanitize()); err != nil {
		return nil, fmt.Errorf("analyze %s: %w", table.Sanitize(), err)
	}
	return t, nil
}

// CreateSourceTable creates the contract's table unless it exists.
func CreateSourceTable(ctx context.Context, conn *pgx.Conn, table pgx.Identifier) error {
	const columns = ` (id serial PRIMARY KEY, client_id varchar NOT NULL, restaurant_id varchar NOT NULL)`
	if _, err := conn.Exec(ctx, "CREATE TABLE IF NOT EXISTS "+table.Sanitize()+columns); err != nil {
		return fmt.Errorf("create %s: %w", table.Sanitize(), err)
	}
	return nil
}

// Restaurant is the id of restaurant n, a UUID.
func (t *SourceTable) Restaurant(n int) string { return numberedUUID(t.plan.Seed, uint64(n)) }

// Client is the id of client n, a UUID.
func (t *SourceTable) Client(n int) string { return numberedUUID(t.plan.Seed+1, uint64(n)) }

// Fanout is how many clients restaurant n has.
func (t *SourceTable) Fanout(n int) int {
	if n == 0 {
		return t.ends[0]
	}
	return t.ends[n] - t.ends[n-1]
}

// Subscriber is the number of the i-th client of restaurant n.
func (t *SourceTable) Subscriber(n, i int) int {
	first := mix(t.plan.Seed+2+uint64(n)) % uint64(t.plan.Clients)
	return int((first + uint64(i)*uint64(t.step)) % uint64(t.plan.Clients))
}

// row is the restaurant and client of the i-th row in the table's order.
func (t *SourceTable) row(i int) (restaurant, client int) {
	position := int(uint64(i) * uint64(t.stride) % uint64(t.plan.Rows))
	restaurant = sort.SearchInts(t.ends, position+1)
	return restaurant, t.Subscriber(restaurant, position-(t.ends[restaurant]-t.Fanout(restaurant)))
}

// rowReader gives the rows as COPY's text format. UUIDs need no escaping.
type rowReader struct {
	table *SourceTable
	next  int
	rest  []byte
}

// Read gives whole or partial rows and io.EOF after the last.
func (r *rowReader) Read(b []byte) (int, error) {
	if len(r.rest) == 0 {
		r.rest = r.rest[:0]
		for len(r.rest) < len(b) && r.next < r.table.plan.Rows {
			restaurant, client := r.table.row(r.next)
			r.rest = append(r.rest, r.table.Restaurant(restaurant)...)
			r.rest = append(r.rest, '\t')
			r.rest = append(r.rest, r.table.Client(client)...)
			r.rest = append(r.rest, '\n')
			r.next++
		}
		if len(r.rest) == 0 {
			return 0, io.EOF
		}
	}
	n := copy(b, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}

// coprime is the first number from start on that has no divisor in common with n.
func coprime(start, n int) int {
	for ; ; start++ {
		a, b := start, n
		for b != 0 {
			a, b = b, a%b
		}
		if a == 1 {
			return start
		}
	}
}
