package daemon

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"example.com/tiffin/cmd/internal/settings"
)

// connectLimit bounds a command's wait for a server that does not answer, unless the DSN
// says otherwise (connect_timeout).
const connectLimit = 10 * time.Second

// ConnectFeedback opens one connection to the feedback database, for a command's own
// questions. Its error names the server and what to do, and no password.
func ConnectFeedback(ctx context.Context, dsn settings.DSN) (*pgx.Conn, error) {
	config, err := pgx.ParseConfig(dsn.Reveal())
	if err != nil {
		return nil, errors.New("feedback.dsn cannot be understood") // pgx's text may repeat a password
	}
	if config.RuntimeParams["application_name"] == "" {
		config.RuntimeParams["application_name"] = "tiffin"
	}
	if config.ConnectTimeout == 0 {
		config.ConnectTimeout = connectLimit
	}
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return nil, withFix(err)
	}
	return conn, nil
}

// withFix adds what to do, where the cause is known. pgx's text names host, user and database.
func withFix(err error) error {
	var refused *pgconn.PgError
	var untrusted *tls.CertificateVerificationError
	switch {
	case errors.As(err, &refused) && strings.HasPrefix(refused.Code, "28"):
		return fmt.Errorf("%w: check user and password in feedback.dsn (or PGUSER, PGPASSWORD), and pg_hba.conf", err)
	case errors.As(err, &refused) && refused.Code == "3D000":
		return fmt.Errorf("%w: name an existing database in feedback.dsn", err)
	case errors.As(err, &untrusted):
		return fmt.Errorf("%w: give the authority's certificate as sslrootcert in feedback.dsn, and the name the certificate is for as host", err)
	default:
		return err
	}
}
