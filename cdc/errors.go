package cdc

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"example.com/tiffin/internal/checkup"
)

// SQLSTATEs that decide something (src/backend/utils/errcodes.txt).
const (
	codeInvalidPassword       = "28P01"
	codeInvalidAuthorization  = "28000"
	codeInvalidCatalog        = "3D000"
	codeInsufficientPrivilege = "42501"
	codeObjectInUse           = "55006"
	codeDuplicateObject       = "42710"
	codeUndefinedObject       = "42704"
)

// ErrPermanent marks what does not mend by waiting: errors.Is(err, ErrPermanent).
var ErrPermanent = errors.New("does not mend by waiting")

// Error says what was attempted on what, why it could not be done, and the fix.
type Error struct {
	Op  string // what was attempted: "read table"
	On  string // on what: a name
	Err error  // why
	Fix string // what the operator can do, "" when there is nothing but to wait
	// Permanent says that waiting does not help. At the start such an error ends Run.
	Permanent bool
}

// Error implements error.
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(e.Op)
	if e.On != "" {
		b.WriteString(" " + e.On)
	}
	b.WriteString(": " + e.Err.Error())
	if e.Fix != "" {
		b.WriteString("; fix: " + e.Fix)
	}
	return b.String()
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Is makes a permanent error match ErrPermanent.
func (e *Error) Is(target error) bool { return target == ErrPermanent && e.Permanent }

// rebuildError says that the index no longer follows from the log and must be loaded again.
type rebuildError struct {
	reason string // the label of tiffin_rebuilds_total: a word
	err    error
	slot   bool // the slot is of no use any more
}

func (e *rebuildError) Error() string { return "rebuild the index: " + e.err.Error() }
func (e *rebuildError) Unwrap() error { return e.err }

// heldError says that another walsender has the slot.
type heldError struct{ err error }

func (e *heldError) Error() string { return e.err.Error() }
func (e *heldError) Unwrap() error { return e.err }

// TLS on one side only has no code of its own: what the server says then (ClientAuthentication
// in auth.c), and what pgconn does. In another language the fault is named without this fix.
const (
	unencrypted = ", no encryption"
	noTLS       = "server refused TLS connection"
)

// connectError explains why a connection was not made, and whether waiting may help; key is the
// setting of the DSN.
func connectError(cfg *pgconn.Config, key string, err error) error {
	e := &Error{Op: "connect to source database", On: cfg.Database + " at " + cfg.Host, Err: err}
	switch code := sqlState(err); {
	case code == codeInvalidPassword:
		e.Permanent, e.Fix = true, "check user and password in "+key+" (or PGUSER, PGPASSWORD)"
	case code == codeInvalidAuthorization && cfg.TLSConfig == nil && strings.Contains(err.Error(), unencrypted):
		e.Permanent, e.Fix = true, "the server lets "+cfg.User+" in only over TLS: set sslmode=verify-full in "+key+" (and sslrootcert, the authority's certificate)"
	case code == codeInvalidAuthorization:
		e.Permanent, e.Fix = true, "let role "+cfg.User+" log in: ALTER ROLE, or a line in pg_hba.conf"
	case code == codeInvalidCatalog:
		e.Permanent, e.Fix = true, "name an existing database in "+key
	case code == codeInsufficientPrivilege:
		e.Permanent, e.Fix = true, "as a superuser: ALTER ROLE "+quoted(cfg.User)+" REPLICATION; GRANT CONNECT ON DATABASE "+quoted(cfg.Database)+" TO "+quoted(cfg.User)
	case code == "" && strings.Contains(err.Error(), noTLS):
		e.Permanent, e.Fix = true, "the server has no TLS: ssl = on in its postgresql.conf, or, where the network is trusted, sslmode=disable in "+key
	case code == "" && untrusted(err):
		e.Permanent, e.Fix = true, "give the authority's certificate as sslrootcert in "+key+", and the name the certificate is for as host"
	case code == "" && undialled(err) != "":
		e.Fix = "start the server, or correct host and port in " + key + ": " + checkup.Probe(undialled(err))
	default:
		if refused, ok := errors.AsType[*pgconn.PgError](err); ok {
			e.Fix = checkup.Admission(refused, cfg, key)
		}
	}
	return e
}

// undialled is the address (HOST:PORT) to which no connection came about; empty: another fault.
func undialled(err error) string {
	dial, ok := errors.AsType[*net.OpError](err)
	if !ok || dial.Op != "dial" || dial.Addr == nil {
		return ""
	}
	return dial.Addr.String()
}

func untrusted(err error) bool {
	var authority x509.UnknownAuthorityError
	var host x509.HostnameError
	var invalid x509.CertificateInvalidError
	var verification *tls.CertificateVerificationError
	return errors.As(err, &authority) || errors.As(err, &host) || errors.As(err, &invalid) || errors.As(err, &verification)
}

// sqlState returns the error code of a server's answer, "" when there was none.
func sqlState(err error) string {
	if pgErr, ok := errors.AsType[*pgconn.PgError](err); ok {
		return pgErr.Code
	}
	return ""
}

// timedOut reports whether err is a deadline's, of a socket or of a context.
func timedOut(err error) bool {
	var timeout interface{ Timeout() bool }
	return errors.Is(err, context.DeadlineExceeded) || (errors.As(err, &timeout) && timeout.Timeout())
}
