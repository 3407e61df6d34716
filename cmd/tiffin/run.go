package main

import (
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"slices"

	sd "github.com/coreos/go-systemd/v22/daemon"
	"github.com/spf13/cobra"

	"example.com/tiffin/cmd/internal/command"
	"example.com/tiffin/cmd/internal/daemon"
	"example.com/tiffin/cmd/internal/settings"
	"example.com/tiffin/stream"
)

// collectAt is by how much, in percent of what lives, the heap grows before the collector looks. The daemon
// allocates little a delivery: Go's 100 took a tenth more memory under load and was no faster.
const collectAt = 75

// spareMemory leaves an operator's GOGC as it is.
func spareMemory() {
	if _, set := os.LookupEnv("GOGC"); !set {
		debug.SetGCPercent(collectAt)
	}
}

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
		Args: command.Args(cobra.NoArgs),
	}
	file := command.ConfigFlag(cmd)
	untilNow := cmd.Flags().Bool("until-now", false, "handle every campaign message that the input topic holds now, then exit")
	behind := cmd.Flags().String("ledger-behind", string(stream.LedgerStop),
		"when Kafka is ahead of the ledger (the feedback database was restored): stop, skip (the rows stay missing) or replay (records come twice)")
	reset := cmd.Flags().String("input-reset", string(stream.InputStop),
		"when the input topic was deleted and created again, or lost its end: stop, or anew (the old manifest is set aside)")
	command.Choices(cmd, "ledger-behind", stream.LedgerStop, stream.LedgerSkip, stream.LedgerReplay)
	command.Choices(cmd, "input-reset", stream.InputStop, stream.InputAnew)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		err := errors.Join(
			oneOf("--ledger-behind", *behind, stream.LedgerStop, stream.LedgerSkip, stream.LedgerReplay),
			oneOf("--input-reset", *reset, stream.InputStop, stream.InputAnew))
		if err != nil {
			return command.Usage(cmd, err)
		}
		s, log, err := command.Load(cmd, *file, nil)
		if err != nil {
			return command.Logged(cmd, nil, err)
		}
		spareMemory()
		err = daemon.Run(cmd.Context(), daemon.Options{
			Settings: s, Log: log, Version: command.ThisBuild().Version, UntilNow: *untilNow,
			LedgerBehind: stream.LedgerBehind(*behind), InputReset: stream.InputReset(*reset),
			Notify: notify,
		})
		return command.Logged(cmd, s, err)
	}
	return cmd
}

// notify tells the service manager that started this process, if one did and asks for it.
func notify(state string) {
	_, _ = sd.SdNotify(false, state) // a manager that does not listen has its own watchdog
}

func oneOf[T ~string](flag, text string, choices ...T) error {
	if slices.Contains(choices, T(text)) {
		return nil
	}
	return fmt.Errorf("%s %q: want one of %v", flag, text, choices)
}
