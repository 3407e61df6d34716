package stream

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/twmb/franz-go/pkg/kerr"
)

// A remedy is a command where there is one, with the names that are known.
func TestRemedyIsACommandWhereThereIsOne(t *testing.T) {
	t.Parallel()
	config, err := pgx.ParseConfig("postgres://writer@127.0.0.1:1/feedback?sslmode=disable")
	if err != nil {
		t.Fatal(err)
	}
	_, refused := pgx.ConnectConfig(t.Context(), config)
	for fix, err := range map[string]error{
		"nc -vz 127.0.0.1 1":            refused,
		"tiffin migrate --print --role": &pgconn.PgError{Code: "42501"},
		"ALTER ROLE CURRENT_USER SET":   &pgconn.PgError{Code: "57014"},
		"SET transaction_timeout = 0":   &pgconn.PgError{Code: "25P04"},
		"feedback.dsn":                  &pgconn.PgError{Code: "25006"},
		"ulimit -n":                     &net.OpError{Op: "dial", Net: "tcp", Err: os.NewSyscallError("socket", syscall.EMFILE)},
	} {
		if got := FeedbackRemedy(err); !strings.Contains(got, fix) {
			t.Errorf("%v: %q, want %q", err, got, fix)
		}
	}
	for fix, err := range map[string]error{
		"nc -vz 127.0.0.1 1":                          &net.OpError{Op: "dial", Net: "tcp", Addr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1}, Err: errors.New("refused")},
		"start the brokers, or correct kafka.brokers": &net.OpError{Op: "dial", Net: "tcp", Err: errors.New("no such host")},
		"tiffin doctor prints the command":            kerr.TransactionalIDAuthorizationFailed,
		"transaction.max.timeout.ms=60000":            kerr.InvalidTransactionTimeout,
		"fs.file-max":                                 &net.OpError{Op: "dial", Net: "tcp", Err: os.NewSyscallError("socket", syscall.ENFILE)},
	} {
		if got := kafkaRemedy(fmt.Errorf("session: %w", err)); !strings.Contains(got, fix) {
			t.Errorf("%v: %q, want %q", err, got, fix)
		}
	}
}

// Whatever keeps the comparison from its files is told with what helps.
func TestTemporaryFilesFaultIsToldWithWhatHelps(t *testing.T) {
	t.Parallel()
	for cause, fix := range map[error]string{syscall.EMFILE: "ulimit -n", syscall.ENOSPC: "TMPDIR"} {
		if err := temporaryFault(&os.PathError{Op: "open", Path: "x", Err: cause}); !errors.Is(err, cause) || !strings.Contains(err.Error(), fix) {
			t.Errorf("%v: %v, want %q", cause, err, fix)
		}
	}
}
