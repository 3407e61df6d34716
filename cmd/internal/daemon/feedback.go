package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/jackc/pgx/v5"

	"example.com/tiffin/cmd/internal/settings"
	"example.com/tiffin/migrations"
)

// feedback readies the feedback database whenever the stream has connected to it. All of it
// belongs to the stream's goroutine; verdict may be read once the stream has ended.
type feedback struct {
	settings settings.Feedback
	group    string // kafka.group
	log      *slog.Logger
	prepared bool   // was ready once
	verdict  error  // why it cannot be used, and waiting does not help
	stop     func() // ends the stream
}

// prepare migrates and checks the database. What does not fit at the start ends the daemon;
// later it is somebody's change, and is waited for.
func (f *feedback) prepare(ctx context.Context, conn *pgx.Conn) error {
	err := f.attempt(ctx, conn)
	switch {
	case err == nil:
		f.prepared = true
		return nil
	case !f.prepared && errors.Is(err, migrations.ErrUnfit):
		f.verdict = fmt.Errorf("feedback database: %w", err)
		f.stop()
	}
	return err
}

func (f *feedback) attempt(ctx context.Context, conn *pgx.Conn) error {
	opts := migrations.Options{FeedbackTable: f.settings.Table.Identifier(), Group: f.group}
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
