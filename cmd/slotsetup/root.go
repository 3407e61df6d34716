package main

import (
	"errors"
	"fmt"
	"log/slog"
	"os"

	"github.com/spf13/cobra"

	"example.com/tiffin/cdc"
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
		Use:   "slotsetup",
		Short: "Prepare the source database for tiffin",
		Long: `slotsetup gives the daemon's role (setup.role, default: the user of source.dsn) what it needs on
the source database, and makes the publication and the replication slot. It connects by
setup.dsn (default: source.dsn) as the table's owner or a superuser.`,
		Example:       "  slotsetup plan -c tiffin.yaml\n  slotsetup apply -c tiffin.yaml",
		Args:          usage(cobra.NoArgs),
		SilenceErrors: true, // main prints them, once
		SilenceUsage:  true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return &usageError{cmd.CommandPath(), errors.New("name a command")}
		},
	}
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error { return &usageError{cmd.CommandPath(), err} })
	root.CompletionOptions.HiddenDefaultCmd = true
	root.AddCommand(newPlanCommand(), newApplyCommand(), newStatusCommand(), newDropCommand())
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

// load reads the settings into what cdc needs to set up the source, and the daemon's role.
func load(cmd *cobra.Command, file string) (cdc.Config, string, error) {
	if cmd.Flags().Changed("config") && file == "" {
		return cdc.Config{}, "", &usageError{cmd.CommandPath(), errors.New("-c names no file")}
	}
	s, err := settings.Load(settings.Input{File: file, Environ: os.Environ(), Needs: []string{"source.dsn"}})
	if err != nil {
		return cdc.Config{}, "", err
	}
	log := slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), &slog.HandlerOptions{Level: s.Log.Level}))
	for _, warning := range s.Warnings {
		log.Warn("settings", "warning", warning)
	}
	return cdc.Config{
		DSN:         s.Setup.DSN.Reveal(),
		Table:       s.Source.Table.String(),
		Publication: s.Source.Publication,
		Slot:        s.Source.Slot,
		Log:         log,
	}, s.Setup.Role, nil
}

// say writes a line of output that is meant for people or programs, not for the log.
func say(cmd *cobra.Command, format string, args ...any) error {
	_, err := fmt.Fprintf(cmd.OutOrStdout(), format+"\n", args...)
	return err
}
