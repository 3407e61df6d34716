package devstacktest

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"example.com/tiffin/internal/devstack"
)

// cleanUpLimit bounds what a test's clean-up may wait for a server.
const cleanUpLimit = 30 * time.Second

// Database is an empty database of one test on the shared server. It is dropped at the test's end
// with the slots that were made in it, also when a connection or a walsender is still there.
type Database struct {
	Server *devstack.Postgres
	Name   string
	DSN    string // of the superuser
	Slot   string // a name for a replication slot that no other test has; nothing of it exists yet
}

// Database makes a database for this test.
func (s *Servers) Database(tb testing.TB) *Database {
	tb.Helper()
	return NewDatabase(tb, s.Postgres(tb), s.Unique(tb, "t"))
}

// NewDatabase makes a database on a server that the test started itself. The server may be stopped
// at the test's end; then there is nothing to drop.
func NewDatabase(tb testing.TB, server *devstack.Postgres, name string) *Database {
	tb.Helper()
	if err := server.CreateDatabase(tb.Context(), name); err != nil {
		tb.Fatal(err)
	}
	d := &Database{Server: server, Name: name, DSN: server.DSN(name), Slot: name}
	tb.Cleanup(func() {
		ctx, cancel := context.WithTimeout(detached(tb), cleanUpLimit)
		defer cancel()
		if server.PID() == 0 {
			return
		}
		if err := d.drop(ctx); err != nil {
			tb.Errorf("clean up: %v", err)
		}
	})
	return d
}

// Exec runs statements; several in one string share one implicit transaction.
func (d *Database) Exec(tb testing.TB, statements ...string) {
	tb.Helper()
	conn := d.connect(tb)
	defer func() { _ = conn.Close(detached(tb)) }()
	for _, sql := range statements {
		if _, err := conn.PgConn().Exec(tb.Context(), sql).ReadAll(); err != nil {
			tb.Fatalf("run %q: %v", sql, err)
		}
	}
}

// Connect opens a connection that the test's end closes.
func (d *Database) Connect(tb testing.TB) *pgx.Conn {
	tb.Helper()
	conn := d.connect(tb)
	tb.Cleanup(func() { _ = conn.Close(detached(tb)) })
	return conn
}

func (d *Database) connect(tb testing.TB) *pgx.Conn {
	tb.Helper()
	conn, err := pgx.Connect(tb.Context(), d.DSN)
	if err != nil {
		tb.Fatal(err)
	}
	return conn
}

func (d *Database) drop(ctx context.Context) error {
	conn, err := pgx.Connect(ctx, d.Server.DSN("postgres"))
	if err != nil {
		return fmt.Errorf("connect to drop database %s: %w", d.Name, err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	if err := d.dropSlots(ctx, conn); err != nil {
		return err
	}
	if _, err := conn.Exec(ctx, "DROP DATABASE IF EXISTS "+pgx.Identifier{d.Name}.Sanitize()+" WITH (FORCE)"); err != nil {
		return fmt.Errorf("drop database %s: %w", d.Name, err)
	}
	return nil
}

// dropSlots asks again until none is left: a terminated walsender holds its slot a little longer.
func (d *Database) dropSlots(ctx context.Context, conn *pgx.Conn) error {
	const end = `SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE database = $1 AND active_pid IS NOT NULL`
	const drop = `SELECT count(*), count(pg_drop_replication_slot(slot_name)) FROM pg_replication_slots WHERE database = $1 AND NOT active`
	const left = `SELECT count(*) FROM pg_replication_slots WHERE database = $1`
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	for {
		if _, err := conn.Exec(ctx, end, d.Name); err != nil {
			return fmt.Errorf("end the walsenders of database %s: %w", d.Name, err)
		}
		_, dropped := conn.Exec(ctx, drop, d.Name) // fails when someone takes the slot just now
		var n int
		if err := conn.QueryRow(ctx, left, d.Name).Scan(&n); err != nil {
			return fmt.Errorf("list the slots of database %s: %w", d.Name, err)
		}
		if n == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("drop the %d slots of database %s: %w (%w)", n, d.Name, ctx.Err(), dropped)
		case <-ticker.C:
		}
	}
}
