package cdc

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/jackc/pgx/v5"

	"example.com/tiffin/cache"
)

// footing is what an index stands on and the log does not tell: the server, its timeline,
// which table the name means, its partitions, and the publication as it was last altered. A fence asks for it
// with the position, so that none passes between a DROP TABLE, an ALTER PUBLICATION or a
// failover and the warden's next look.
type footing struct {
	table, publication string
	// question is the expression that asks, for the server and the table as they were found.
	question atomic.Pointer[string]
	// system is the server's identifier as the reader knows it, trusted what the warden
	// found in order; nil while there is no index.
	system, trusted atomic.Pointer[string]
}

// errFooting says that something moved under the index, or that nobody has looked yet.
var errFooting = errors.New("table, publication and timeline are yet to be compared with those of the index")

// learn fits the question to a server's version and to a table, partitioned or not: what they
// cannot have costs a fence nothing.
func (f *footing) learn(version int, partitioned bool) {
	sql := f.sql(version, partitioned)
	f.question.Store(&sql)
}

// sql is an expression of type text. The xmin of a catalog row changes when the row is
// altered; pg_walfile_name begins with the timeline (XLogFileName in xlog_internal.h).
func (f *footing) sql(version int, partitioned bool) string {
	schemas, partitions := "NULL", "NULL"
	if version >= publishedSchemas {
		schemas = `(SELECT string_agg(n.oid || ':' || n.xmin, ' ' ORDER BY n.oid) FROM pg_publication_namespace n WHERE n.pnpubid = p.oid)`
	}
	if partitioned {
		partitions = `(SELECT string_agg(c.oid || ':' || c.relfilenode, ' ' ORDER BY c.oid)
			FROM pg_partition_tree(to_regclass(` + literal(f.table) + `)) t JOIN pg_class c ON c.oid = t.relid)`
	}
	return `concat_ws(' ', left(pg_walfile_name(pg_current_wal_flush_lsn()), 8), to_regclass(` + literal(f.table) + `)::oid,
		(SELECT concat_ws(' ', p.oid, p.xmin, (SELECT string_agg(r.oid || ':' || r.xmin, ' ' ORDER BY r.oid) FROM pg_publication_rel r WHERE r.prpubid = p.oid), ` + schemas + `)
		FROM pg_publication p WHERE p.pubname = ` + literal(f.publication) + `), ` + partitions + `)`
}

// publishedSchemas is the first server_version_num whose publications may hold whole schemas.
const publishedSchemas = 150000

// holds reports whether an answer is what the index stands on.
func (f *footing) holds(answer string) bool {
	trusted := f.trusted.Load()
	return trusted != nil && *trusted == answer
}

// greet refuses a connection to another server than the followed one. Where the right to ask
// was taken from everybody, nothing is compared.
func (f *footing) greet(ctx context.Context, conn *pgx.Conn) error {
	known := f.system.Load()
	if known == nil {
		return errFooting
	}
	var system string
	err := conn.QueryRow(ctx, "SELECT system_identifier::text FROM pg_control_system()").Scan(&system)
	switch {
	case sqlState(err) == codeInsufficientPrivilege:
		return nil
	case err != nil:
		return err
	case system != *known:
		return fmt.Errorf("%w: system identifier %s, was %s", errFooting, system, *known)
	}
	return nil
}

// position asks for a position, and with it whether the index still stands.
func (s *Source) position(ctx context.Context, expression string) (cache.LSN, error) {
	if s.footing.trusted.Load() == nil {
		return 0, errFooting
	}
	var at, footing string
	if err := s.fence.ask(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		return conn.QueryRow(ctx, "SELECT "+expression+"::text, "+*s.footing.question.Load()).Scan(&at, &footing)
	}); err != nil {
		return 0, fmt.Errorf("ask source database for its position: %w", err)
	}
	if !s.footing.holds(footing) {
		return 0, errFooting
	}
	return cache.ParseLSN(at)
}
