package cdc

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
)

// querier is a connection or a transaction.
type querier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

// serverFacts is what the reader needs to know of the server.
type serverFacts struct {
	version    int // server_version_num
	recovery   bool
	walLevel   string
	database   string
	user       string
	standbys   string // synchronous_standby_names
	senderWait int64  // wal_sender_timeout in milliseconds, 0: none
}

func inspectServer(ctx context.Context, q querier) (serverFacts, error) {
	var f serverFacts
	err := q.QueryRow(ctx, `
		SELECT current_setting('server_version_num')::int, pg_is_in_recovery(), current_setting('wal_level'),
		       current_database(), current_user, current_setting('synchronous_standby_names'),
		       (SELECT setting::bigint FROM pg_settings WHERE name = 'wal_sender_timeout')`).
		Scan(&f.version, &f.recovery, &f.walLevel, &f.database, &f.user, &f.standbys, &f.senderWait)
	if err != nil {
		return f, &Error{Op: "read settings of source database", Err: err}
	}
	return f, nil
}

// oldestVersion is the first server_version_num that is supported.
const oldestVersion = 140000

// loseChanges says that a walsender that sends a transaction which began before a publication was altered, and
// ended behind that, goes on to take its tables for what they were: their changes are not sent. Invalidations reach
// transactions under way (SnapBuildDistributeSnapshotAndInval in snapbuild.c) from 14.18, 15.13, 16.9 and 17.5 on.
func (f *serverFacts) loseChanges() bool {
	mended := map[int]int{14: 18, 15: 13, 16: 9, 17: 5}
	return f.version%10000 < mended[f.version/10000]
}

// failoverSlots is the first server_version_num whose slots standbys can synchronise.
const failoverSlots = 170000

// verify says what of the server stands in the way.
func (f *serverFacts) verify(cfg *Config) error {
	if err := f.verifyKind(cfg); err != nil {
		return err
	}
	application := cfg.application()
	e := &Error{Op: "follow source database", On: f.database, Permanent: true}
	switch {
	case f.walLevel != "logical":
		e.Err, e.Fix = fmt.Errorf("wal_level is %s", f.walLevel), "ALTER SYSTEM SET wal_level = logical; and restart the server"
	case chosenAsStandby(f.standbys, application):
		e.Err = fmt.Errorf("synchronous_standby_names %q makes its commits wait for this reader", f.standbys)
		e.Fix = "name the standbys in synchronous_standby_names, without * and without " + application
	default:
		return nil
	}
	return e
}

// verifyKind says why no setting makes this server one to follow.
func (f *serverFacts) verifyKind(cfg *Config) error {
	e := &Error{Op: "follow source database", On: f.database, Permanent: true}
	switch {
	case f.version < oldestVersion:
		e.Err, e.Fix = fmt.Errorf("server version %d", f.version), "PostgreSQL 14 or newer"
	case f.recovery:
		e.Err, e.Fix, e.Permanent = errors.New("it is a standby"), "name the primary in "+cfg.dsnKey()+" (or several hosts and target_session_attrs=primary)", false
	case cfg.Failover && f.version < failoverSlots:
		e.Err = fmt.Errorf("server version %d has no slots that standbys synchronise, and source.failover is true", f.version)
		e.Fix = "PostgreSQL 17 or newer, or source.failover: false (after a failover the slot is then made again)"
	default:
		return nil
	}
	return e
}

// chosenAsStandby reports whether a walsender of this application name may become a
// synchronous standby (SyncRepGetStandbyPriority in syncrep.c).
func chosenAsStandby(names, application string) bool {
	fields := strings.FieldsFunc(names, func(r rune) bool { return strings.ContainsRune(" ,()", r) })
	return slices.ContainsFunc(fields, func(name string) bool {
		name = strings.Trim(name, `"`)
		return name == "*" || strings.EqualFold(name, application)
	})
}
