package devstack

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/jackc/pgx/v5"
)

// standbySlot is the physical slot by which the primary keeps the log for its standby.
const standbySlot = "standby"

// StartStandby starts a second server that replays this one's log by streaming, on a port of its own,
// ready to synchronise logical slots of the database named (PostgreSQL 17 or newer). This server is
// stopped for the copy and started again. The standby is closed by the caller, as any other server.
func (s *Postgres) StartStandby(ctx context.Context, database string) (*Postgres, error) {
	if err := s.exec(ctx, "SELECT pg_create_physical_replication_slot($1)", standbySlot); err != nil {
		return nil, err
	}
	ports, err := freePorts(ctx, 1)
	if err != nil {
		return nil, err
	}
	dir, err := newDirectory(s.options.Dir, "postgres", s.as)
	if err != nil {
		return nil, err
	}
	standby := &Postgres{dir: dir, bin: s.bin, port: ports[0], options: s.options, as: s.as}
	if err := s.copyTo(ctx, standby, database); err != nil {
		return nil, errors.Join(err, standby.Close())
	}
	if err := standby.Start(ctx); err != nil {
		return nil, errors.Join(err, standby.Close())
	}
	return standby, nil
}

// copyTo makes the standby's data directory of this server's.
func (s *Postgres) copyTo(ctx context.Context, standby *Postgres, database string) error {
	if err := s.Stop(ctx, StopFast); err != nil {
		return err
	}
	if err := os.CopyFS(standby.data(), os.DirFS(s.data())); err != nil {
		return errors.Join(fmt.Errorf("copy the data directory: %w", err), s.Start(ctx))
	}
	conf, err := os.OpenFile(filepath.Join(standby.data(), "postgresql.conf"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("open postgresql.conf: %w", err)
	}
	_, err = fmt.Fprintf(conf, `
# devstack: a standby
port = '%d'
primary_conninfo = 'host=127.0.0.1 port=%d user=%s dbname=%s'
primary_slot_name = '%s'
hot_standby_feedback = on
`, standby.port, s.port, s.Username(), database, standbySlot)
	slots := filepath.Join(standby.data(), "pg_replslot")
	if err := errors.Join(err, conf.Close(), os.RemoveAll(slots), os.Mkdir(slots, 0o700),
		os.WriteFile(filepath.Join(standby.data(), "standby.signal"), nil, 0o600),
		os.Chmod(standby.data(), 0o700), s.as.own(standby.dir)); err != nil {
		return fmt.Errorf("make a standby of the copy: %w", err)
	}
	return s.Start(ctx)
}

// SyncSlots has a standby copy the primary's failover slots once, and says whether the one named is
// there to stay. It takes a few calls until the standby has replayed what the slot needs.
func (s *Postgres) SyncSlots(ctx context.Context, database, slot string) (synced bool, err error) {
	conn, err := pgx.Connect(ctx, s.DSN(database))
	if err != nil {
		return false, fmt.Errorf("connect to the standby: %w", err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	if _, err := conn.Exec(ctx, "SELECT pg_sync_replication_slots()"); err != nil {
		return false, fmt.Errorf("synchronise slots: %w", err)
	}
	const there = "SELECT EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = $1 AND synced AND NOT temporary)"
	if err := conn.QueryRow(ctx, there, slot).Scan(&synced); err != nil {
		return false, fmt.Errorf("look for slot %s on the standby: %w", slot, err)
	}
	return synced, nil
}
