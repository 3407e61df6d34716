package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"example.com/tiffin/cmd/internal/command"
	"example.com/tiffin/cmd/internal/daemon"
	"example.com/tiffin/cmd/internal/settings"
	"example.com/tiffin/migrations"
)

func newMigrateCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "migrate",
		Short: "Create or upgrade what tiffin needs in the feedback database",
		Long: `Creates or upgrades the schema tiffin (ledger and manifest), and creates the feedback table if it
is missing. It may be run at any time and several at once; where all is current it changes
nothing. Of the settings it needs feedback.dsn, with --print none.`,
		Example: `  tiffin migrate -c tiffin.yaml
  tiffin migrate --print --role tiffin | psql -X -v ON_ERROR_STOP=1 feedback`,
		Args: command.Args(cobra.NoArgs),
	}
	file := command.ConfigFlag(cmd)
	print := cmd.Flags().Bool("print", false, "show the SQL for a DBA instead of running it")
	role := cmd.Flags().String("role", "", "with --print: grant the daemon's rights to this `ROLE` (default: the user of feedback.dsn, if that is set)")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if *role != "" && !*print {
			return command.Usage(cmd, fmt.Errorf("--role goes with --print: migrate itself grants nothing"))
		}
		needs := []string{"feedback.dsn"}
		if *print {
			needs = []string{}
		}
		s, _, err := command.Load(cmd, *file, needs)
		if err != nil {
			return err
		}
		if *print {
			return printMigration(cmd, s.Feedback, *role)
		}
		return migrate(cmd, s.Feedback)
	}
	return cmd
}

func printMigration(cmd *cobra.Command, s settings.Feedback, role string) error {
	if role == "" && s.DSN != "" {
		role = s.DSN.User()
	}
	sql, err := migrations.SQL(migrations.Options{FeedbackTable: s.Table.Identifier(), Role: role})
	if err != nil {
		return err
	}
	return command.Say(cmd, "%s", sql)
}

func migrate(cmd *cobra.Command, s settings.Feedback) error {
	ctx := cmd.Context()
	conn, err := daemon.ConnectFeedback(ctx, s.DSN)
	if err != nil {
		return fmt.Errorf("feedback database: %w", err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	opts := migrations.Options{FeedbackTable: s.Table.Identifier()}
	report, err := migrations.Migrate(ctx, conn, opts)
	if err != nil {
		return fmt.Errorf("feedback database: %w", err)
	}
	if err := sayReport(cmd, report, s.Table.String()); err != nil {
		return err
	}
	if err := migrations.Check(ctx, conn, opts); err != nil {
		return fmt.Errorf("feedback database: %w", err)
	}
	return nil
}

func sayReport(cmd *cobra.Command, report migrations.Report, table string) error {
	if !report.Changed() {
		return command.Say(cmd, "schema tiffin is current: version %d", report.To)
	}
	if report.From != report.To {
		if err := command.Say(cmd, "schema tiffin: version %d -> %d", report.From, report.To); err != nil {
			return err
		}
	}
	if report.CreatedFeedbackTable {
		return command.Say(cmd, "feedback table %s: created", table)
	}
	return nil
}
