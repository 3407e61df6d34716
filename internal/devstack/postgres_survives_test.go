package devstack

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// A committed row is there after an orderly stop, an immediate stop and a kill; the address stays.
func TestPostgresKeepsCommitsOverStopAndKill(t *testing.T) {
	t.Parallel()
	s := startPostgres(t, PostgresOptions{})
	ctx := t.Context()
	if err := s.CreateDatabase(ctx, `odd "name"`); err != nil {
		t.Fatal(err)
	}
	dsn := s.DSN(`odd "name"`)
	query(t, dsn, "CREATE TABLE kept AS SELECT 1 AS n")

	ends := map[string]func() error{
		"fast":      func() error { return s.Stop(ctx, StopFast) },
		"immediate": func() error { return s.Stop(ctx, StopImmediate) },
		"kill":      func() error { s.Kill(); return nil },
	}
	for name, end := range ends {
		if err := end(); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if s.PID() != 0 {
			t.Fatalf("%s: the server still has pid %d", name, s.PID())
		}
		if _, err := pgx.Connect(ctx, dsn); err == nil {
			t.Fatalf("%s: the stopped server answers", name)
		}
		if err := s.Start(ctx); err != nil {
			t.Fatalf("start after %s: %v", name, err)
		}
		if got := query(t, dsn, "SELECT count(*)::text FROM kept"); got != "1" {
			t.Fatalf("after %s: %s rows, want 1", name, got)
		}
	}
}

// Kill takes the backends too, also while they work, and Close leaves neither process nor file.
func TestPostgresLeavesNothingBehind(t *testing.T) {
	t.Parallel()
	parent := openDir(t)
	s := startPostgres(t, PostgresOptions{Dir: parent})
	pids := append(childrenOf(s.PID()), s.PID())
	if len(pids) < 4 {
		t.Fatalf("only %d server processes found: %v", len(pids), pids)
	}
	s.Kill()
	for _, pid := range pids {
		if err := syscall.Kill(pid, 0); !errors.Is(err, syscall.ESRCH) {
			waitGone(t, pid)
		}
	}
	if err := s.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if left, _ := os.ReadDir(parent); len(left) != 0 {
		t.Fatalf("left behind: %v", left)
	}
	if err := s.Start(t.Context()); !errors.Is(err, ErrClosed) {
		t.Fatalf("start after close: %v, want ErrClosed", err)
	}
}

func TestPostgresRefusesWrongPassword(t *testing.T) {
	t.Parallel()
	for _, auth := range []Auth{AuthSCRAM, AuthPassword} {
		t.Run(string(auth), func(t *testing.T) {
			t.Parallel()
			s := startPostgres(t, PostgresOptions{Auth: auth})
			query(t, s.DSN("postgres"), "SELECT 'in'")
			_, err := pgx.Connect(t.Context(), s.DSNFor(s.Username(), "wrong", "postgres"))
			var refused *pgconn.PgError
			if !errors.As(err, &refused) || refused.Code != "28P01" {
				t.Fatalf("wrong password: %v, want 28P01", err)
			}
		})
	}
}

// With TLS the certificate is verified against the server's own authority, and plain text is refused.
func TestPostgresRequiresTLS(t *testing.T) {
	t.Parallel()
	s := startPostgres(t, PostgresOptions{TLS: true})
	if got := query(t, s.DSN("postgres"), "SELECT ssl::text FROM pg_stat_ssl WHERE pid = pg_backend_pid()"); got != "true" {
		t.Fatalf("ssl is %s, want true", got)
	}
	plain := strings.Replace(s.DSN("postgres"), "sslmode=verify-full", "sslmode=disable", 1)
	if _, err := pgx.Connect(t.Context(), plain); err == nil {
		t.Fatal("a connection without TLS was accepted")
	}
	unknown := strings.Replace(s.DSN("postgres"), "sslrootcert=", "ignored=", 1)
	if _, err := pgx.Connect(t.Context(), unknown); err == nil {
		t.Fatal("a certificate of an unknown authority was accepted")
	}
}

// A server that cannot start says why, and leaves nothing.
func TestPostgresShowsWhyItDidNotStart(t *testing.T) {
	t.Parallel()
	parent := openDir(t)
	_, err := StartPostgres(t.Context(), PostgresOptions{Dir: parent, Settings: map[string]string{"no_such_setting": "1"}})
	if err == nil || !strings.Contains(err.Error(), `unrecognized configuration parameter "no_such_setting"`) {
		t.Fatalf("error: %v", err)
	}
	if left, _ := os.ReadDir(parent); len(left) != 0 {
		t.Fatalf("left behind: %v", left)
	}
}

func startPostgres(t *testing.T, options PostgresOptions) *Postgres {
	t.Helper()
	s, err := StartPostgres(t.Context(), options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// openDir is a directory of the test that the servers' user can enter, too.
func openDir(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.Chmod(filepath.Dir(dir), 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// query returns the only value of the only row, or "" for a statement without rows.
func query(t *testing.T, dsn, sql string) string {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(t.Context())) }()
	var value string
	if err := conn.QueryRow(t.Context(), sql).Scan(&value); err != nil && !errors.Is(err, pgx.ErrNoRows) {
		t.Fatalf("%s: %v", sql, err)
	}
	return value
}

// waitGone waits for a killed process that its new parent has yet to reap.
func waitGone(t *testing.T, pid int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	ticker := time.NewTicker(10 * time.Millisecond)
	defer ticker.Stop()
	for {
		stat, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
		if err != nil || strings.Contains(string(stat), ") Z ") {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("process %d is still there: %s", pid, stat)
		case <-ticker.C:
		}
	}
}
