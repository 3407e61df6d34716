package main

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"

	"github.com/spf13/cobra"

	"example.com/tiffin/cmd/internal/settings"
)

// usageError is a command line that cannot be understood.
type usageError struct {
	command string
	err     error
}

func (e *usageError) Error() string { return e.err.Error() + "\nsee " + e.command + " --help" }
func (e *usageError) Unwrap() error { return e.err }

func newRootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "tiffin",
		Short: "Campaigns from Kafka to every subscriber in Postgres, fresh and once",
		Long: `tiffin reads campaign messages from Kafka, joins each with the restaurant's subscribers, which
logical replication keeps current in memory, and writes one record per subscriber to an output
topic and one row per subscriber to a feedback table. Both hold the same deliveries, also after
a crash.`,
		Example:       "  tiffin demo\n  tiffin run -c tiffin.yaml",
		Args:          usage(cobra.NoArgs),
		SilenceErrors: true, // main prints them, once
		SilenceUsage:  true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return &usageError{cmd.CommandPath(), errors.New("name a command")}
		},
	}
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error { return &usageError{cmd.CommandPath(), err} })
	root.CompletionOptions.HiddenDefaultCmd = true
	root.AddCommand(newRunCommand(), newDemoCommand(), newMigrateCommand(), newExplainCommand(), newAuditCommand(), newVersionCommand())
	return root
}

// usage makes a fault in the arguments one of usage.
func usage(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if err := check(cmd, args); err != nil {
			return &usageError{cmd.CommandPath(), err}
		}
		return nil
	}
}

// addConfigFlag adds -c. There is no flag for a single setting: flags are seen by everyone
// who lists processes, and some settings are secrets.
func addConfigFlag(cmd *cobra.Command) *string {
	return cmd.Flags().StringP("config", "c", "", "settings, a YAML `FILE`; the environment wins over it")
}

// loadSettings reads the settings and logs what is odd about them.
func loadSettings(cmd *cobra.Command, file string, needs []string) (*settings.Settings, *slog.Logger, error) {
	if cmd.Flags().Changed("config") && file == "" {
		return nil, nil, &usageError{cmd.CommandPath(), errors.New("-c names no file")}
	}
	s, err := settings.Load(settings.Input{File: file, Environ: os.Environ(), Needs: needs})
	if err != nil {
		return nil, nil, err
	}
	log := newLogger(cmd.ErrOrStderr(), s.Log)
	for _, warning := range s.Warnings {
		log.Warn("settings", "warning", warning)
	}
	return s, log, nil
}

func newLogger(w io.Writer, s settings.Log) *slog.Logger {
	options := &slog.HandlerOptions{Level: s.Level}
	if s.Format == "json" {
		return slog.New(slog.NewJSONHandler(w, options))
	}
	return slog.New(slog.NewTextHandler(w, options))
}

// say writes a line of output that is meant for people or programs, not for the log.
func say(cmd *cobra.Command, format string, args ...any) error {
	_, err := fmt.Fprintf(cmd.OutOrStdout(), format+"\n", args...)
	return err
}
