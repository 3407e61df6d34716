package soak

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

const (
	// resolveLimit bounds the wait for a source server that is down.
	resolveLimit = 2 * time.Minute
	sourceTable  = "subscribers_restaurants"
)

// writer changes the source table for ever, one transaction after the other, so that the order of
// the commits is known. It asks for the fate of a commit whose answer was lost.
type writer struct {
	dsn     string
	random  *rand.Rand
	book    *book
	history *history
	pause   time.Duration // between two transactions, on average
	log     *slog.Logger

	conn *pgx.Conn
	n    int // of the transaction, as the journal has it
}

// run writes until ctx ends; the transaction in hand is finished.
func (w *writer) run(ctx context.Context) error {
	defer w.disconnect()
	for ctx.Err() == nil {
		if err := w.transact(context.WithoutCancel(ctx), w.book.plan(w.random)); err != nil {
			return err
		}
		// Now and then in a row without a pause: commits come closer together than a fence takes.
		if w.random.IntN(10) > 0 && !wait(ctx, time.Duration(w.random.ExpFloat64()*float64(w.pause))) {
			break
		}
	}
	return nil
}

// transact commits t, or rolls it back as it says, or finds that a dying server did.
func (w *writer) transact(ctx context.Context, t *transaction) error {
	ctx, cancel := context.WithTimeout(ctx, resolveLimit)
	defer cancel()
	if err := w.connect(ctx); err != nil {
		return err
	}
	w.n++
	if err := w.execute(ctx, t); err != nil {
		w.log.Info("a change of the source did not come to its commit", "n", w.n, "err", err)
		w.disconnect() // never sent: the server rolls it back
		return nil
	}
	if t.rollback {
		if _, err := w.conn.Exec(ctx, "ROLLBACK"); err != nil {
			w.disconnect()
		}
		return nil
	}
	sent := time.Now().UnixMicro()
	_, err := w.conn.Exec(ctx, "COMMIT")
	if err == nil {
		return w.committed(ctx, t, sent)
	}
	w.log.Info("the acknowledgement of a commit was lost", "n", w.n, "err", err)
	w.disconnect()
	return w.resolve(ctx, t, sent)
}

// execute does everything but the end of the transaction.
func (w *writer) execute(ctx context.Context, t *transaction) error {
	if _, err := w.conn.Exec(ctx, "BEGIN"); err != nil {
		return err
	}
	for _, s := range t.statements {
		if err := s.run(ctx, w.conn); err != nil {
			return err
		}
	}
	_, err := w.conn.Exec(ctx, "INSERT INTO soak_journal (n) VALUES ($1)", w.n)
	return err
}

// committed enters an acknowledged transaction.
func (w *writer) committed(ctx context.Context, t *transaction, sent int64) error {
	acked := time.Now().UnixMicro()
	lsn, err := w.position(ctx)
	if err != nil { // the commit stands; only the tighter bound is missing
		w.disconnect()
		lsn = ^uint64(0)
	}
	w.history.add(sent, acked, lsn, w.book.apply(t))
	return nil
}

// resolve asks a server that lives again whether the transaction was committed.
func (w *writer) resolve(ctx context.Context, t *transaction, sent int64) error {
	if err := w.connect(ctx); err != nil {
		return err
	}
	var there bool
	if err := w.conn.QueryRow(ctx, "SELECT EXISTS (SELECT FROM soak_journal WHERE n = $1)", w.n).Scan(&there); err != nil {
		w.disconnect()
		if ctx.Err() != nil {
			return fmt.Errorf("ask for the fate of commit %d: %w", w.n, err)
		}
		return w.resolve(ctx, t, sent) // it died again
	}
	w.log.Info("the fate of a commit is known", "n", w.n, "committed", there)
	if there {
		return w.committed(ctx, t, sent)
	}
	return nil
}

func (w *writer) position(ctx context.Context) (uint64, error) {
	var text string
	if err := w.conn.QueryRow(ctx, "SELECT pg_current_wal_insert_lsn()::text").Scan(&text); err != nil {
		return 0, err
	}
	return parseLSN(text)
}

// parseLSN reads Postgres's two hexadecimal halves.
func parseLSN(text string) (uint64, error) {
	high, low, ok := strings.Cut(text, "/")
	h, err := strconv.ParseUint(high, 16, 32)
	l, err2 := strconv.ParseUint(low, 16, 32)
	if err := errors.Join(err, err2); err != nil || !ok {
		return 0, fmt.Errorf("log position %q: %w", text, err)
	}
	return h<<32 | l, nil
}

// connect waits for the server.
func (w *writer) connect(ctx context.Context) error {
	for w.conn == nil {
		conn, err := pgx.Connect(ctx, w.dsn)
		if err == nil {
			w.conn = conn
			return nil
		}
		if !wait(ctx, 100*time.Millisecond) {
			return fmt.Errorf("the source server is away for %v: %w", resolveLimit, err)
		}
	}
	return nil
}

func (w *writer) disconnect() {
	if w.conn == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = w.conn.Close(ctx) // it may be broken
	w.conn = nil
}

// wait returns false when ctx ended first.
func wait(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
