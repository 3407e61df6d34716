package command

import (
	"errors"
	"io"
	"log/slog"
	"os"

	"github.com/spf13/cobra"

	"example.com/tiffin/cmd/internal/settings"
)

// ConfigFlag adds -c. There is no flag for a single setting: flags are seen by everyone who lists
// processes, and some settings are secrets.
func ConfigFlag(cmd *cobra.Command) *string {
	return cmd.Flags().StringP("config", "c", "", "settings, a YAML `FILE`; the environment wins over it")
}

// Load reads the settings from file (of ConfigFlag) and the environment, and logs what is odd about
// them. Of the required ones only those that needs names must be there; nil: all.
func Load(cmd *cobra.Command, file string, needs []string) (*settings.Settings, *slog.Logger, error) {
	if cmd.Flags().Changed("config") && file == "" {
		return nil, nil, Usage(cmd, errors.New("-c names no file"))
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

// loggedError is a fault that the log has told: Run does not print it again.
type loggedError struct{ error }

func (e *loggedError) Unwrap() error { return e.error }

// Logged has the log tell why a daemon ends, where it is read by programs (JSON); s is nil
// after a fault in the settings, which says so itself.
func Logged(cmd *cobra.Command, s *settings.Settings, err error) error {
	how := settings.Log{}
	if faults, ok := errors.AsType[*settings.Faults](err); ok {
		how = faults.Log
	} else if s != nil {
		how = s.Log
	}
	if err == nil || how.Format != "json" {
		return err
	}
	newLogger(cmd.ErrOrStderr(), how).Error("failed", "err", err)
	return &loggedError{err}
}
