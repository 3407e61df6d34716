package cdc

import (
	"context"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"

	"example.com/tiffin/cache"
)

const (
	// suspectMost rows may differ at first sight: most of them changed while the table was read.
	suspectMost = 1 << 20
	// rowsAtOnce are read by one statement.
	rowsAtOnce = 1000
	// rowTwice is how often a row has to differ between two equal answers of the index. Once may be a row
	// that was changed and changed back, or one whose transaction was being applied.
	rowTwice = 2
)

// rowAudit compares what the index takes row ids for with the table, where an index keeps them.
type rowAudit struct {
	*runningAudit
	audit *cache.Audit
	table *tableFacts
	// suspects differed when their row came along.
	suspects []int64
	differed map[int64]int
}

// look takes a row of the table's snapshot.
func (a *rowAudit) look(id int64, restaurant, client []byte) error {
	if a.audit.Has(id, restaurant, client) {
		return nil
	}
	if len(a.suspects) == suspectMost {
		return fmt.Errorf("%d rows differ, or changed while the table was read: run the audit again while less is written", suspectMost)
	}
	a.suspects = append(a.suspects, id)
	return nil
}

// settle asks again for each suspect, until it is equal or stays different. Who changes all the time is left.
func (a *rowAudit) settle(ctx context.Context, conn *pgx.Conn) error {
	a.differed = map[int64]int{}
	for ids := range slices.Chunk(a.suspects, rowsAtOnce) {
		for try := 0; len(ids) > 0 && try < auditTries; try++ {
			var err error
			if ids, err = a.again(ctx, conn, ids); err != nil {
				return err
			}
			if len(ids) > 0 && !pause(ctx, auditPause) {
				return context.Cause(ctx)
			}
		}
	}
	return nil
}

// again compares rows between two looks at the index and returns those to compare once more.
func (a *rowAudit) again(ctx context.Context, conn *pgx.Conn, ids []int64) (left []int64, err error) {
	before := make([]cache.AuditRow, len(ids))
	for i, id := range ids {
		before[i] = a.audit.Row(id)
	}
	rows, snapshot, err := a.rowsOf(ctx, conn, ids)
	if err != nil {
		return nil, err
	}
	if _, err := a.r.reach(ctx); err != nil {
		return nil, err
	}
	for i, id := range ids {
		row, is := rows[id], a.audit.Row(id)
		switch {
		case !before[i].Covers(snapshot) || !before[i].Same(&is):
			left = append(left, id)
		case row.Same(&is) || !row.Known && is.Restaurant == cache.Nothing:
		case a.differed[id]+1 < rowTwice:
			a.differed[id]++
			left = append(left, id)
		default:
			if err := a.differ(row.Restaurant, row.Client, wrongRow(id, &row, &is)); err != nil {
				return nil, err
			}
		}
	}
	return left, nil
}

func wrongRow(id int64, table, index *cache.AuditRow) string {
	switch {
	case !table.Known:
		return fmt.Sprintf("row %d: the index takes it for restaurant %q, client %q; the table does not have it", id, index.Restaurant, index.Client)
	case !index.Known:
		return fmt.Sprintf("row %d: the index does not know its id", id)
	default:
		return fmt.Sprintf("row %d: the index takes it for restaurant %q, client %q", id, index.Restaurant, index.Client)
	}
}

// rowsOf reads rows in one snapshot.
func (a *rowAudit) rowsOf(ctx context.Context, conn *pgx.Conn, ids []int64) (map[int64]cache.AuditRow, cache.Snapshot, error) {
	found := map[int64]cache.AuditRow{}
	var snapshot cache.Snapshot
	err := pgx.BeginTxFunc(ctx, conn, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}, func(tx pgx.Tx) (err error) {
		if snapshot, err = currentSnapshot(ctx, tx.Conn()); err != nil {
			return err
		}
		rows, err := tx.Query(ctx, "SELECT "+a.table.columns()+" FROM "+a.table.from()+
			" WHERE "+quoted(a.table.layout.idName)+" = ANY ($1) AND "+columnRestaurant+" IS NOT NULL AND "+columnClient+" IS NOT NULL", ids)
		if err != nil {
			return err
		}
		row := cache.AuditRow{Known: true}
		var number int64
		_, err = pgx.ForEachRow(rows, []any{&number, &row.Restaurant, &row.Client}, func() error {
			found[number] = row
			return nil
		})
		return err
	})
	if err != nil {
		return nil, snapshot, &Error{Op: "read rows of table", On: a.r.cfg.Table, Err: err}
	}
	return found, snapshot, nil
}
