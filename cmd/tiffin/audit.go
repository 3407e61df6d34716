package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"

	"github.com/spf13/cobra"

	"example.com/tiffin/cdc"
	"example.com/tiffin/cmd/internal/command"
	"example.com/tiffin/cmd/internal/daemon"
	"example.com/tiffin/cmd/internal/settings"
)

// auditFlags choose the index and the output.
type auditFlags struct {
	daemon string
	fresh  bool
	asJSON bool
}

func newAuditCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "audit",
		Short: "Compare the running daemon's index, or a fresh one, with the table",
		Long: `Compares an index with the table at one position, by a snapshot: every transaction that it sees is
in the index, and what the index has besides is told apart. Names every difference. The exit
status is 0 when both are equal.

If a daemon answers on http.listen, that one compares its own index, while it goes on: the table
is read once, in the order in which it lies, and neither the stream nor a lookup waits. Of a
restaurant that it does not hold in memory the number of rows is compared. Under replica identity
DEFAULT what the index takes each row's id for is compared, too.

Otherwise, or with --fresh, a new index is built as a daemon does, by a load and through a
replication slot: while a daemon holds the slot through a temporary one of the audit's own, with
_audit behind the name. It is compared in the same way. Of the settings it needs source.dsn.`,
		Example: `  tiffin audit -c tiffin.yaml
  tiffin audit --daemon http://127.0.0.1:9464
  tiffin audit --fresh --json | jq 'select(.restaurant)'`,
		Args: command.Args(cobra.NoArgs),
	}
	file := command.ConfigFlag(cmd)
	var flags auditFlags
	cmd.Flags().StringVar(&flags.daemon, "daemon", "", "the running daemon's endpoint, a `URL` on this machine (default: from http.listen)")
	cmd.Flags().BoolVar(&flags.fresh, "fresh", false, "build a new index, even if a daemon runs")
	cmd.Flags().BoolVar(&flags.asJSON, "json", false, "one object a line, last a summary with \"ok\"")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if flags.fresh && flags.daemon != "" {
			return command.Usage(cmd, errors.New("--daemon and --fresh exclude each other"))
		}
		needs := []string{"source.dsn"}
		if flags.daemon != "" {
			needs = []string{}
		}
		s, log, err := command.Load(cmd, *file, needs)
		if err != nil {
			return err
		}
		return audit(cmd, s, log, flags)
	}
	return cmd
}

func audit(cmd *cobra.Command, s *settings.Settings, log *slog.Logger, flags auditFlags) error {
	summary, err := compare(cmd, s, log, flags)
	if err != nil {
		return fmt.Errorf("audit: %w", err)
	}
	if flags.asJSON {
		err = json.NewEncoder(cmd.OutOrStdout()).Encode(summary)
	} else {
		err = saySummary(cmd, &summary)
	}
	if err == nil && !summary.OK {
		err = fmt.Errorf("audit: index and table differ in %d places", summary.Differences)
	}
	return err
}

func compare(cmd *cobra.Command, s *settings.Settings, log *slog.Logger, flags auditFlags) (daemon.AuditSummary, error) {
	to := auditTo{found: sayDifference(cmd, flags.asJSON), progress: func(cdc.AuditProgress) {}}
	if isTerminal(cmd.ErrOrStderr()) {
		to.progress = progressOn(cmd.ErrOrStderr())
	}
	base := flags.daemon
	if base == "" && !flags.fresh {
		base = daemonAt(s.HTTP.Listen)
	}
	if base != "" {
		summary, err := auditRunning(cmd.Context(), base, auditSilence, to)
		if flags.daemon != "" || !errors.Is(err, errNobody) {
			return summary, err
		}
		log.Info("no daemon answers: a fresh index is built instead", "http", base)
	}
	cfg := cdc.Config{
		DSN: s.Source.DSN.Reveal(), Table: s.Source.Table.String(), Publication: s.Source.Publication,
		Slot: s.Source.Slot, Setup: cdc.Setup(s.Source.Setup), Failover: s.Source.Failover, Log: log.With("part", "source"),
	}
	report, err := cdc.Audit(cmd.Context(), cfg, int64(s.Index.Budget), to.found)
	if err != nil {
		return daemon.AuditSummary{}, err
	}
	return daemon.SummaryOf(&report, daemon.IndexFresh), nil
}

func sayDifference(cmd *cobra.Command, asJSON bool) func(cdc.Difference) error {
	out := json.NewEncoder(cmd.OutOrStdout())
	return func(d cdc.Difference) error {
		switch {
		case asJSON:
			return out.Encode(d)
		case d.Client == "":
			return command.Say(cmd, "restaurant %q: %s", d.Restaurant, d.Text)
		default:
			return command.Say(cmd, "restaurant %q, client %q: %s", d.Restaurant, d.Client, d.Text)
		}
	}
}

func saySummary(cmd *cobra.Command, s *daemon.AuditSummary) error {
	return command.Say(cmd, "%s index (slot %s) and table compared at %s: %d restaurants (%d with their clients), %d rows, %d differences",
		s.Index, s.Slot, s.Position, s.Restaurants, s.Resident, s.Rows, s.Differences)
}
