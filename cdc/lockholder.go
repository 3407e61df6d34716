package cdc

import (
	"context"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// lockPatience is how long the reading of a restaurant may take until it is looked into whether
// somebody holds the table: usually it takes a millisecond, and without an index for it the time of a scan.
const lockPatience = 5 * time.Second

// lookForLock tells the log who holds the table, or a partition of it, against a read that is not over in time. Campaigns wait
// for that, and a prepared transaction may hold it for days. Whoever reads calls over at the end.
func (s *Source) lookForLock(ctx context.Context) (over func()) {
	ctx, cancel := context.WithCancel(ctx)
	looked := make(chan struct{})
	timer := time.AfterFunc(s.lockPatience, func() {
		defer close(looked)
		if holder, fix := s.lockHolder(ctx); holder != "" {
			s.cfg.Log.Warn("a restaurant's rows are waited for: the table is locked", "table", s.cfg.Table, "holder", holder, "fix", fix)
		}
	})
	return func() {
		cancel()
		if !timer.Stop() {
			<-looked
		}
	}
}

// lockHolder names who holds the table against readers, and what ends that; empty where nobody is found.
func (s *Source) lockHolder(ctx context.Context) (holder, fix string) {
	ctx, cancel := context.WithTimeout(ctx, askLimit)
	defer cancel()
	conn, err := s.cfg.connect(ctx)
	if err != nil {
		return "", "" // it is not the lock that is the news then
	}
	defer func() { hangUp(ctx, conn.PgConn()) }()
	rows, err := conn.Query(ctx, `
		WITH RECURSIVE tree AS (SELECT to_regclass($1)::oid AS rel UNION SELECT inhrelid FROM pg_inherits JOIN tree ON inhparent = rel)
		SELECT DISTINCT coalesce('pid ' || l.pid, format('prepared transaction %L', p.gid)),
			coalesce('SELECT pg_terminate_backend(' || l.pid || ');', format('ROLLBACK PREPARED %L;', p.gid))
		FROM pg_locks l
			LEFT JOIN pg_locks x ON l.pid IS NULL AND x.pid IS NULL AND x.locktype = 'transactionid' AND x.virtualtransaction = l.virtualtransaction
			LEFT JOIN pg_prepared_xacts p ON p.transaction = x.transactionid
		WHERE l.granted AND l.mode = 'AccessExclusiveLock' AND l.relation IN (SELECT rel FROM tree)
		ORDER BY 1`, s.footing.table)
	if err != nil {
		return "", ""
	}
	var holders, fixes []string
	_, err = pgx.ForEachRow(rows, []any{&holder, &fix}, func() error {
		holders, fixes = append(holders, holder), append(fixes, fix)
		return nil
	})
	if err != nil {
		return "", ""
	}
	return strings.Join(holders, ", "), strings.Join(fixes, " ")
}
