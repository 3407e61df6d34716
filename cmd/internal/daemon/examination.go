package daemon

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/prometheus/client_golang/prometheus"

	"example.com/tiffin/cdc"
	"example.com/tiffin/cmd/internal/httpd"
	"example.com/tiffin/cmd/internal/settings"
	"example.com/tiffin/internal/checkup"
	"example.com/tiffin/internal/dsn"
	"example.com/tiffin/migrations"
	"example.com/tiffin/stream"
)

// ExamineNeeds are the settings without which there is nothing to examine: whatever else is wrong is a line of its own.
func ExamineNeeds() []string { return []string{"source.dsn", "feedback.dsn", "kafka.brokers"} }

// Examine checks each thing that Run will need with these settings, and changes nothing. What is found
// is on the sheet; an error is a setting that cannot be used at all.
func Examine(ctx context.Context, s *settings.Settings, log *slog.Logger, sheet *checkup.Sheet) error {
	if err := cdc.Examine(ctx, sourceConfig(Options{Settings: s, Log: log}, prometheus.NewRegistry()), sheet); err != nil {
		return err
	}
	feedback, err := dsn.Parse(s.Feedback.DSN.Reveal())
	if err != nil {
		return fmt.Errorf("feedback.dsn %w", err)
	}
	opts := migrations.Options{FeedbackTable: s.Feedback.Table.Identifier(), Group: s.Kafka.Group}
	if err := migrations.Examine(ctx, feedback, opts, s.Feedback.Migrate, sheet); err != nil {
		return err
	}
	if err := stream.Examine(ctx, kafkaConfig(s), stream.Mode(s.Delivery.Mode), sheet); err != nil {
		return err
	}
	sheet.Area("index")
	sheet.Check(ctx, "spill_dir", nil, func(context.Context) checkup.Finding { return spillDir(s.Index.SpillDir) })
	httpd.Examine(ctx, s.HTTP.Listen, sheet)
	return nil
}

func spillDir(path string) checkup.Finding {
	const fix = "set index.spill_dir: DIRECTORY in which the daemon's user may make files"
	err := settings.CheckSpillDir(path)
	switch {
	case err != nil && path != "":
		return checkup.Bad(err.Error(), fix)
	case err != nil:
		return checkup.Odd("the default "+err.Error()+": a large transaction of the source stays in memory", fix)
	}
	return checkup.Good("files can be made in it")
}
