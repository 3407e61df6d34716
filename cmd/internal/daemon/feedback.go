package daemon

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"example.com/tiffin/cmd/internal/settings"
	"example.com/tiffin/migrations"
)

// Waiting for the feedback database: quick at first, so that a server that is just starting
// costs no time; then rarely enough to be no load.
const (
	firstPause   = 200 * time.Millisecond
	longestPause = 5 * time.Second
	connectLimit = 10 * time.Second
)

// feedback prepares the feedback database before the stream writes to it.
type feedback struct {
	settings settings.Feedback
	log      *slog.Logger

	mu     sync.Mutex
	reason string // why the stream cannot start yet; empty once prepared
}

func newFeedback(s settings.Feedback, log *slog.Logger) *feedback {
	return &feedback{settings: s, log: log, reason: "feedback database: not looked at yet"}
}

// Reasons says why the database is not prepared; empty once it is.
func (f *feedback) Reasons() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.reason == "" {
		return nil
	}
	return []string{f.reason}
}

// prepare migrates and checks the database. What may mend is tried again until ctx ends,
// which is no error.
func (f *feedback) prepare(ctx context.Context) error {
	pause := firstPause
	for attempt := 1; ; attempt++ {
		err := f.attempt(ctx)
		switch {
		case err == nil:
			f.explain("")
			return nil
		case ctx.Err() != nil:
			return nil
		case !mends(err):
			return fmt.Errorf("feedback database: %w", err)
		}
		f.explain("feedback database: " + err.Error())
		f.log.Warn("feedback database not there yet", "attempt", attempt, "err", err)
		// Several daemons that wait for one server do not come back all at once.
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause/2 + rand.N(pause/2)):
		}
		pause = min(2*pause, longestPause)
	}
}

func (f *feedback) explain(reason string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.reason = reason
}

func (f *feedback) attempt(ctx context.Context) error {
	conn, err := Connect(ctx, f.settings.DSN)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	f.explain("feedback database: checking schema and table")
	opts := migrations.Options{FeedbackTable: f.settings.Table.Identifier()}
	if f.settings.Migrate {
		report, err := migrations.Migrate(ctx, conn, opts)
		if err != nil {
			return err
		}
		if report.Changed() {
			f.log.Info("feedback database migrated", "from", report.From, "to", report.To, "created_table", report.CreatedFeedbackTable)
		}
	}
	return migrations.Check(ctx, conn, opts)
}

// Connect opens one connection for a command's own questions. Its error names the server and
// what to do, and no password.
func Connect(ctx context.Context, dsn settings.DSN) (*pgx.Conn, error) {
	config, err := pgx.ParseConfig(dsn.Reveal())
	if err != nil {
		return nil, fmt.Errorf("the DSN cannot be understood: %w", err)
	}
	if config.RuntimeParams["application_name"] == "" {
		config.RuntimeParams["application_name"] = "tiffin"
	}
	if config.ConnectTimeout == 0 {
		config.ConnectTimeout = connectLimit
	}
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return nil, connectError(err)
	}
	return conn, nil
}

// connectError adds the fix where the cause is known. pgx's text names host, user and
// database already, and no password.
func connectError(err error) error {
	fix := ""
	switch code := sqlState(err); {
	case strings.HasPrefix(code, "28"):
		fix = "check user and password in feedback.dsn (or PGUSER, PGPASSWORD), and pg_hba.conf"
	case code == "3D000":
		fix = "name an existing database in feedback.dsn"
	case refusedTLS(err):
		fix = "turn ssl on at the server, or choose another sslmode in feedback.dsn"
	case untrusted(err):
		fix = "give the authority's certificate as sslrootcert in feedback.dsn, and the name the certificate is for as host"
	default:
		return err
	}
	return fmt.Errorf("%w: %s", err, fix)
}

// mends reports whether waiting may help: the server could not be reached or cannot serve
// just now. What it refuses, and what is wrong with the schema, stays so.
func mends(err error) bool {
	if code := sqlState(err); code != "" {
		// Classes of src/backend/utils/errcodes.txt.
		switch code[:2] {
		case "08", "40", "53", "57", "58":
			return true // connection, rollback, resources, operator, system
		}
		return code == "55P03" // lock not available
	}
	if untrusted(err) || refusedTLS(err) || errors.Is(err, migrations.ErrNewerSchema) {
		return false
	}
	var connect *pgconn.ConnectError
	return errors.As(err, &connect) || pgconn.Timeout(err) || pgconn.SafeToRetry(err) || isNetwork(err)
}

func sqlState(err error) string {
	var pgErr *pgconn.PgError
	if errors.As(err, &pgErr) {
		return pgErr.Code
	}
	return ""
}

func untrusted(err error) bool {
	var verification *tls.CertificateVerificationError
	var authority x509.UnknownAuthorityError
	var host x509.HostnameError
	return errors.As(err, &verification) || errors.As(err, &authority) || errors.As(err, &host)
}

// refusedTLS reports whether the server has TLS turned off; pgconn has no value for it.
func refusedTLS(err error) bool { return strings.Contains(err.Error(), "server refused TLS connection") }

// isNetwork reports whether a connection broke or was never made.
func isNetwork(err error) bool {
	var network net.Error
	return errors.As(err, &network) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, context.DeadlineExceeded)
}
