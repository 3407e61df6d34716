package main

import (
	"errors"
	"io"
	"log/slog"
	"os"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"example.com/tiffin/cmd/internal/command"
	"example.com/tiffin/cmd/internal/demo"
)

// Fast enough to be seen at work, slow enough to be left running: everything is kept in memory and
// in a temporary directory until the end.
const (
	demoCampaigns = 4  // a second
	demoChanges   = 20 // a second
)

func newDemoCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Show the whole system at work, with servers of its own",
		Long: `Runs a Kafka broker in memory, a throwaway Postgres, a table of subscribers that keeps changing, a
stream of campaigns and the daemon, all in one process group and on 127.0.0.1 only. The Postgres
is the newest one installed; where there is none its binaries are downloaded once, to the cache
directory. Each campaign follows a change of its restaurant, so that freshness is seen to hold.
At the end, both sinks are compared row for row and everything is removed; the exit status is 0
only if they agree. Settings are not read.`,
		Example: "  tiffin demo\n  tiffin demo --for 30s      # for a script: exit status 0 if both sinks agree",
		Args:    command.Args(cobra.NoArgs),
	}
	duration := cmd.Flags().Duration("for", 0, "end after this `DURATION` (default: at Ctrl-C)")
	port := cmd.Flags().Int("broker-port", 0, "`PORT` of the broker (default: any free one)")
	campaigns := cmd.Flags().Float64("campaigns", demoCampaigns, "campaigns a second")
	changes := cmd.Flags().Float64("changes", demoChanges, "changes of subscriptions a second")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		options := demo.Options{
			Out: cmd.OutOrStdout(), Terminal: isTerminal(cmd.OutOrStdout()), Version: command.ThisBuild().Version,
			For: *duration, BrokerPort: *port, Campaigns: *campaigns, Changes: *changes,
		}
		if err := checkDemo(options); err != nil {
			return command.Usage(cmd, err)
		}
		level := slog.LevelWarn
		if options.Terminal {
			level = slog.LevelError // a log line in the middle of the summary is no help
		}
		options.Log = slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), &slog.HandlerOptions{Level: level}))
		return demo.Run(cmd.Context(), options)
	}
	return cmd
}

func checkDemo(o demo.Options) error {
	var faults []error
	const fastest = 10_000 // beyond it a ticker only pretends
	if o.Campaigns <= 0 || o.Campaigns > fastest {
		faults = append(faults, errors.New("--campaigns: want more than 0 and at most 10000"))
	}
	if o.Changes <= 0 || o.Changes > fastest {
		faults = append(faults, errors.New("--changes: want more than 0 and at most 10000"))
	}
	if o.For < 0 || o.For > 0 && o.For < time.Second {
		faults = append(faults, errors.New("--for: want at least 1s"))
	}
	if o.BrokerPort < 0 || o.BrokerPort > 65535 {
		faults = append(faults, errors.New("--broker-port: want 1 to 65535"))
	}
	return errors.Join(faults...)
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}
