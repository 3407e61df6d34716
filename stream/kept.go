package stream

import (
	"bytes"
	"context"
	"fmt"
	"iter"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// kept is what the feedback table does to a row that it is given: as it is when the session begins. The probe ends a
// session of which that is no longer true.
type kept struct {
	// limits are the lengths, in characters, of the five texts and the client id; 0 for none. A longer text
	// of which the rest is spaces Postgres cuts without a word (SQL's rule): the record would have them.
	limits [6]int
	// changes says that triggers, rules or the default of the id may make another row of it, or another
	// id: each batch is read back and compared.
	changes bool
	// deferred says that something of it is checked at the commit only.
	deferred bool
	// narrow says that an id has 32 bits.
	narrow bool
}

// rowQuerier is a connection or a pool.
type rowQuerier interface {
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

func askKept(ctx context.Context, db rowQuerier, table string) (k kept, err error) {
	var limits []int32
	err = db.QueryRow(ctx, `
		SELECT ARRAY(SELECT greatest(0, b.typmod - 4)
			FROM unnest(ARRAY['restaurant_id', 'adv_campaign_id', 'adv_campaign_content', 'adv_campaign_owner', 'adv_campaign_owner_contact', 'client_id'])
				WITH ORDINALITY AS n(name, i)
			JOIN pg_attribute a ON a.attrelid = $1::text::regclass AND a.attname = n.name
			CROSS JOIN LATERAL (WITH RECURSIVE base AS (SELECT a.atttypid AS oid, a.atttypmod AS typmod UNION ALL
				SELECT d.typbasetype, d.typtypmod FROM base JOIN pg_type d ON d.oid = base.oid AND d.typtype = 'd')
				SELECT max(typmod) AS typmod FROM base) b ORDER BY n.i),
		EXISTS (SELECT FROM pg_trigger g WHERE NOT g.tgisinternal AND g.tgenabled <> 'D' AND g.tgtype & 4 <> 0 -- for INSERT
			AND (g.tgrelid = $1::text::regclass OR g.tgrelid IN (SELECT relid FROM pg_partition_tree($1::text::regclass))))
		OR EXISTS (SELECT FROM pg_rewrite r WHERE r.ev_class = $1::text::regclass AND r.ev_type = '3')
		OR EXISTS (SELECT FROM pg_attrdef d JOIN pg_attribute a ON a.attrelid = d.adrelid AND a.attnum = d.adnum AND a.attname = 'id'
			WHERE d.adrelid = $1::text::regclass AND pg_get_expr(d.adbin, d.adrelid) !~ '^nextval[(]''[^'']+''::regclass[)]$'),
		EXISTS (SELECT FROM pg_trigger g WHERE g.tginitdeferred AND g.tgenabled <> 'D'
			AND (g.tgrelid = $1::text::regclass OR g.tgrelid IN (SELECT relid FROM pg_partition_tree($1::text::regclass)))),
		coalesce((SELECT t.typlen < 8 FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid WHERE a.attrelid = $1::text::regclass AND a.attname = 'id'), false)`,
		table).Scan(&limits, &k.changes, &k.deferred, &k.narrow)
	if err != nil {
		return k, fmt.Errorf("feedback table %s: ask what it does to rows: %w", table, err)
	}
	for i := range min(len(limits), len(k.limits)) {
		k.limits[i] = int(limits[i])
	}
	return k, nil
}

// fits refuses as Postgres does a text that is longer than its column.
func (k *kept) fits(b *batch) error {
	if k.limits == [6]int{} {
		return nil
	}
	for _, t := range b.triggers {
		if t.recipients == nil {
			continue
		}
		c := &t.campaign
		for i, text := range [...]string{c.RestaurantID, c.ID, c.Content, c.Owner, c.OwnerContact} {
			if n := k.limits[i]; n > 0 && len(text) > n && utf8.RuneCountInString(text) > n {
				return tooLong(n)
			}
		}
		n := k.limits[5]
		if n == 0 || t.recipients.MaxLen() <= n {
			continue
		}
		for client := range t.recipients.Range(0, t.deliveries()) {
			if len(client) > n && utf8.RuneCount(client) > n {
				return tooLong(n)
			}
		}
	}
	return nil
}

func tooLong(n int) error {
	return &pgconn.PgError{Severity: "ERROR", Code: "22001", Message: fmt.Sprintf("value too long for type character varying(%d)", n)}
}

// compare reads the rows of a batch, where something may have changed them.
func (w *writer) compare(ctx context.Context, b *batch) error {
	if !w.kept.changes {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, timeoutOf(b.deliveries))
	defer cancel()
	for _, t := range b.triggers {
		if t.recipients == nil {
			continue
		}
		if err := w.compareOne(ctx, t); err != nil {
			return err
		}
	}
	return nil
}

func (w *writer) compareOne(ctx context.Context, t *trigger) error {
	want, stop := iter.Pull(t.recipients.Range(0, t.deliveries()))
	defer stop()
	left := t.deliveries()
	for _, run := range t.ids {
		err := eachRow(ctx, w.conn, w.table, run.first, run.last, func(r row) error {
			client, _ := want()
			left--
			if c, now := r.campaign(); c != t.campaign || now != t.now || !bytes.Equal(r.client, client) {
				return fmt.Errorf("row %d is not what was inserted: a trigger or rule on the table changes it; remove that", r.id)
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	if left != 0 {
		return swallowed(int64(t.deliveries()), int64(t.deliveries()-left))
	}
	return nil
}
