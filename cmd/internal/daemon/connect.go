package daemon

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"example.com/tiffin/cmd/internal/settings"
	"example.com/tiffin/internal/dsn"
	"example.com/tiffin/stream"
)

// connectLimit bounds a command's wait for a server that does not answer, unless the DSN
// says otherwise (connect_timeout).
const connectLimit = 10 * time.Second

// ConnectFeedback opens one connection to the feedback database, for a command's own
// questions. Its error names the server and what to do, and no password.
func ConnectFeedback(ctx context.Context, name settings.DSN) (*pgx.Conn, error) {
	config, err := dsn.Parse(name.Reveal())
	if err != nil {
		return nil, fmt.Errorf("feedback.dsn %w", err)
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
	if fix := stream.FeedbackRemedy(err); fix != "" {
		return fmt.Errorf("%w; fix: %s", err, fix)
	}
	return err
}
