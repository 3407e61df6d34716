package soak

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"

	"github.com/jackc/pgx/v5"
)

// book knows the rows of the source table as they are committed, and thinks up the next changes.
// The writer's goroutine owns it.
type book struct {
	restaurants []string       // that have rows now and then
	sizes       map[string]int // rows that a restaurant is kept near
	clients     []string
	rows        map[string][]row // of a restaurant
}

type row struct {
	id     int64
	client string
}

// rowChange is a row that came or went; of a new one the id is known once it is inserted.
type rowChange struct {
	restaurant string
	row        row
	gone       bool
}

// transaction is what is done at once. No two of its statements touch the same restaurant, so that
// each may be thought up from what is committed.
type transaction struct {
	statements []*statement
	rollback   bool
}

// statement is one change, and what it does to the book when it is committed.
type statement struct {
	sql     string
	args    []any
	insert  bool // sql returns the ids of the rows that changes name
	undone  bool // by a savepoint: nothing of changes happens
	changes []rowChange
}

func (s *statement) run(ctx context.Context, conn *pgx.Conn) error {
	if s.undone {
		if _, err := conn.Exec(ctx, "SAVEPOINT s"); err != nil {
			return err
		}
	}
	if err := s.change(ctx, conn); err != nil {
		return fmt.Errorf("%s: %w", s.sql, err)
	}
	if s.undone {
		_, err := conn.Exec(ctx, "ROLLBACK TO SAVEPOINT s")
		return err
	}
	return nil
}

func (s *statement) change(ctx context.Context, conn *pgx.Conn) error {
	if !s.insert {
		_, err := conn.Exec(ctx, s.sql, s.args...)
		return err
	}
	rows, err := conn.Query(ctx, s.sql, s.args...)
	if err != nil {
		return err
	}
	ids, err := pgx.CollectRows(rows, pgx.RowTo[int64])
	if err != nil {
		return err
	}
	n := 0
	for i := range s.changes {
		if !s.changes[i].gone {
			s.changes[i].row.id = ids[n]
			n++
		}
	}
	return nil
}

// apply takes a committed transaction into the book, and says what it changed for whom.
func (b *book) apply(t *transaction) map[string][]change {
	changed := map[string][]change{}
	for _, s := range t.statements {
		if s.undone {
			continue
		}
		for _, c := range s.changes {
			n := 1
			if c.gone {
				n = -1
				b.remove(c.restaurant, c.row.id)
			} else {
				b.rows[c.restaurant] = append(b.rows[c.restaurant], c.row)
			}
			changed[c.restaurant] = append(changed[c.restaurant], change{c.row.client, n})
		}
	}
	return changed
}

func (b *book) remove(restaurant string, id int64) {
	rows := b.rows[restaurant]
	i := slices.IndexFunc(rows, func(r row) bool { return r.id == id })
	rows[i] = rows[len(rows)-1]
	b.rows[restaurant] = rows[:len(rows)-1]
}

// fill is the first transaction: every restaurant at its size.
func (b *book) fill(random *rand.Rand) *transaction {
	t := &transaction{}
	for _, r := range b.restaurants {
		t.statements = append(t.statements, b.insert(random, r, b.sizes[r]))
	}
	return t
}

// plan thinks up a transaction.
func (b *book) plan(random *rand.Rand) *transaction {
	if random.IntN(3000) == 0 {
		return b.truncate(random)
	}
	t := &transaction{rollback: random.IntN(20) == 0}
	statements := 1
	if random.IntN(4) == 0 {
		statements += random.IntN(6)
	}
	order := random.Perm(len(b.restaurants))
	for range statements {
		s, used := b.think(random, b.restaurants[order[0]], b.restaurants[order[1]])
		s.undone = random.IntN(15) == 0
		t.statements = append(t.statements, s)
		order = order[used:]
	}
	return t
}

// think makes one statement about a, or a and other, and says how many of the two it used.
func (b *book) think(random *rand.Rand, a, other string) (s *statement, used int) {
	rows := b.rows[a]
	if len(rows) == 0 {
		return b.insert(random, a, 1+random.IntN(3)), 1
	}
	grow := len(rows) < b.sizes[a]
	one := rows[random.IntN(len(rows))]
	switch kind := random.IntN(100); {
	case kind < 45 && grow || kind < 15:
		return b.insert(random, a, 1+random.IntN(4)), 1
	case kind < 50:
		return b.again(a, one), 1
	case kind < 60:
		return b.rename(random, a, one), 1
	case kind < 66:
		return b.move(a, other, one), 2
	case kind < 69:
		return &statement{sql: "UPDATE " + sourceTable + " SET restaurant_id = restaurant_id WHERE id = $1", args: []any{one.id}}, 1
	case kind < 71 && len(rows)+len(b.rows[other]) < 200:
		return b.moveAll(a, other), 2
	case kind < 73 && len(rows) < 100:
		return b.deleteAll(a), 1
	default:
		return b.delete(a, rows, 1+random.IntN(4)), 1
	}
}

func (b *book) insert(random *rand.Rand, restaurant string, n int) *statement {
	s := &statement{
		sql: "INSERT INTO " + sourceTable + " (restaurant_id, client_id) SELECT $1, c FROM unnest($2::text[]) WITH ORDINALITY AS u(c, o) ORDER BY o RETURNING id", insert: true,
	}
	var clients []string
	for range n {
		c := b.clients[random.IntN(len(b.clients))]
		clients = append(clients, c)
		s.changes = append(s.changes, rowChange{restaurant: restaurant, row: row{client: c}})
	}
	s.args = []any{restaurant, clients}
	return s
}

// again inserts a pair that is there already.
func (b *book) again(restaurant string, r row) *statement {
	return &statement{
		sql: "INSERT INTO " + sourceTable + " (restaurant_id, client_id) VALUES ($1, $2) RETURNING id", args: []any{restaurant, r.client},
		insert: true, changes: []rowChange{{restaurant: restaurant, row: row{client: r.client}}},
	}
}

// rename makes a row another client's. Its id stays.
func (b *book) rename(random *rand.Rand, restaurant string, r row) *statement {
	c := b.clients[random.IntN(len(b.clients))]
	return &statement{
		sql: "UPDATE " + sourceTable + " SET client_id = $2 WHERE id = $1", args: []any{r.id, c},
		changes: []rowChange{{restaurant, r, true}, {restaurant: restaurant, row: row{r.id, c}}},
	}
}

func (b *book) move(from, to string, r row) *statement {
	return &statement{
		sql: "UPDATE " + sourceTable + " SET restaurant_id = $2 WHERE id = $1", args: []any{r.id, to},
		changes: []rowChange{{from, r, true}, {restaurant: to, row: r}},
	}
}

func (b *book) moveAll(from, to string) *statement {
	s := &statement{sql: "UPDATE " + sourceTable + " SET restaurant_id = $2 WHERE restaurant_id = $1", args: []any{from, to}}
	for _, r := range b.rows[from] {
		s.changes = append(s.changes, rowChange{from, r, true}, rowChange{restaurant: to, row: r})
	}
	return s
}

func (b *book) deleteAll(restaurant string) *statement {
	s := &statement{sql: "DELETE FROM " + sourceTable + " WHERE restaurant_id = $1", args: []any{restaurant}}
	for _, r := range b.rows[restaurant] {
		s.changes = append(s.changes, rowChange{restaurant, r, true})
	}
	return s
}

func (b *book) delete(restaurant string, rows []row, n int) *statement {
	s := &statement{sql: "DELETE FROM " + sourceTable + " WHERE id = ANY($1)"}
	var ids []int64
	for _, r := range rows[:min(n, len(rows))] {
		ids = append(ids, r.id)
		s.changes = append(s.changes, rowChange{restaurant, r, true})
	}
	s.args = []any{ids}
	return s
}

// truncate empties the table, and fills it again in the same transaction.
func (b *book) truncate(random *rand.Rand) *transaction {
	s := &statement{sql: "TRUNCATE " + sourceTable}
	for _, restaurant := range slices.Sorted(maps.Keys(b.rows)) {
		for _, r := range b.rows[restaurant] {
			s.changes = append(s.changes, rowChange{restaurant, r, true})
		}
	}
	t := b.fill(random)
	t.statements = append([]*statement{s}, t.statements...)
	return t
}
