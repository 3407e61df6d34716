package devstack

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/jackc/pgx/v5"
)

// SaveStandby keeps a copy of the stopped server's data, as an asynchronous standby would have it,
// for Failover. The server is stopped and started again.
func (s *Postgres) SaveStandby(ctx context.Context) error {
	if err := s.Stop(ctx, StopFast); err != nil {
		return err
	}
	if err := os.CopyFS(s.standby(), os.DirFS(s.data())); err != nil {
		return fmt.Errorf("copy the data directory: %w", err)
	}
	return s.Start(ctx)
}

// Failover kills the server and promotes the saved standby in its place, on the same port: the
// timeline is another, no slot is there (before PostgreSQL 17 a standby has none), and what was
// committed since SaveStandby is lost. It returns once the server accepts writes.
func (s *Postgres) Failover(ctx context.Context) error {
	s.Kill()
	if err := os.RemoveAll(s.data()); err != nil {
		return fmt.Errorf("remove the old primary: %w", err)
	}
	if err := os.Rename(s.standby(), s.data()); err != nil {
		return fmt.Errorf("put the standby in its place: %w", err)
	}
	slots := filepath.Join(s.data(), "pg_replslot")
	err := errors.Join(os.RemoveAll(slots), os.Mkdir(slots, 0o700),
		os.WriteFile(filepath.Join(s.data(), "standby.signal"), nil, 0o600),
		os.Chmod(s.data(), 0o700), s.as.own(s.data()))
	if err != nil {
		return fmt.Errorf("make a standby of the copy: %w", err)
	}
	if err := s.Start(ctx); err != nil {
		return err
	}
	return s.Promote(ctx)
}

// Promote makes a standby the primary: the timeline is another. It returns once the server accepts
// writes.
func (s *Postgres) Promote(ctx context.Context) error {
	conn, err := pgx.Connect(ctx, s.DSN("postgres"))
	if err != nil {
		return fmt.Errorf("connect to the standby: %w", err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	var promoted bool
	if err := conn.QueryRow(ctx, "SELECT pg_promote(true, $1)", int(startLimit/time.Second)).Scan(&promoted); err != nil {
		return fmt.Errorf("promote the standby: %w", err)
	}
	if !promoted {
		return fmt.Errorf("promote the standby: not within %s", startLimit)
	}
	return nil
}

func (s *Postgres) standby() string { return filepath.Join(s.dir, "standby") }
