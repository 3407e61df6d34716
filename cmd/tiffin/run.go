package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"example.com/tiffin/cmd/internal/daemon"
	"example.com/tiffin/cmd/internal/settings"
	"example.com/tiffin/stream"
)

func newRunCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Run the daemon",
		Long: `Runs until SIGINT or SIGTERM: then the batch in hand is finished, the group is left, and the exit
status is 0. A second signal ends the process at once, which loses nothing either. What mends by
waiting (a server that is not there yet) is waited for, see /readyz; what does not ends the
process with status 1, a fault in the settings with status 2.

` + settings.Help(),
		Example: `  tiffin run -c tiffin.yaml
  tiffin run --until-now        # for a scheduler: what is there now, then exit
  TIFFIN_SOURCE_DSN=postgres://tiffin@db/app TIFFIN_FEEDBACK_DSN=postgres://tiffin@db2/feedback \
    TIFFIN_KAFKA_BROKERS=broker:9092 tiffin run`,
		Args: usage(cobra.NoArgs),
	}
	file := addConfigFlag(cmd)
	untilNow := cmd.Flags().Bool("until-now", false, "handle every campaign message that the input topic holds now, then exit")
	behind := cmd.Flags().String("ledger-behind", string(stream.LedgerStop),
		"when Kafka is ahead of the ledger (the feedback database was restored): stop, skip (the rows stay missing) or replay (records come twice)")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		choice, err := ledgerBehind(*behind)
		if err != nil {
			return &usageError{cmd.CommandPath(), err}
		}
		s, log, err := loadSettings(cmd, *file, nil)
		if err != nil {
			return err
		}
		return daemon.Run(cmd.Context(), daemon.Options{
			Settings: s, Log: log, Version: version(), UntilNow: *untilNow, LedgerBehind: choice,
		})
	}
	return cmd
}

func ledgerBehind(text string) (stream.LedgerBehind, error) {
	choices := []string{string(stream.LedgerStop), string(stream.LedgerSkip), string(stream.LedgerReplay)}
	if !slices.Contains(choices, text) {
		return "", fmt.Errorf("--ledger-behind %q: want %s", text, strings.Join(choices, ", "))
	}
	return stream.LedgerBehind(text), nil
}
