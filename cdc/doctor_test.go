package cdc

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
)

// Whatever goes wrong with a question, the doctor says what was asked, why it failed and what to do.
func TestDoctorHasAFixForEveryFault(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		err       error
		text, fix string
	}{
		{&Error{Op: "read table", On: "t", Err: errors.New("no"), Fix: "ALTER TABLE t;"}, "read table t: no", "ALTER TABLE t;"},
		{&Error{Op: "read settings", Err: context.DeadlineExceeded}, "read settings: context", "FROM pg_stat_activity"},
		{&pgconn.PgError{Code: codeQueryCanceled, Message: "statement timeout"}, "statement timeout", "FROM pg_stat_activity"},
		{&pgconn.PgError{Code: codeLockNotAvailable, Message: "lock timeout"}, "lock timeout", "FROM pg_stat_activity"},
		{&pgconn.PgError{Code: codeInsufficientPrivilege, Message: "permission denied"}, "permission denied", "the server's log"},
		{errors.New("connection reset"), "connection reset", "try again"},
	} {
		if f := fault(c.err); !strings.Contains(f.Text, c.text) || !strings.Contains(f.Fix, c.fix) {
			t.Errorf("%+v: want %q, %q", f, c.text, c.fix)
		}
	}
}

// What keeps a slot depends on why it was lost.
func TestRemedyOfAnInvalidatedSlot(t *testing.T) {
	t.Parallel()
	for reason, want := range map[string]string{"idle_timeout": "idle_replication_slot_timeout", "wal_removed": "max_slot_wal_keep_size", "": "max_slot_wal_keep_size", "wal_level_insufficient": "wal_level"} {
		if fix := (&slotFacts{invalidation: reason}).keep(); !strings.Contains(fix, want) {
			t.Errorf("%s: %s", reason, fix)
		}
	}
}
