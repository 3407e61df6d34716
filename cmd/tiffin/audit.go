package main

import (
	"encoding/json"
	"fmt"

	"github.com/spf13/cobra"

	"example.com/tiffin/cdc"
	"example.com/tiffin/cmd/internal/settings"
)

// auditSummary is the last line of audit --json.
type auditSummary struct {
	OK          bool   `json:"ok"`
	Slot        string `json:"slot"`
	Position    string `json:"position"`
	Restaurants int64  `json:"restaurants"`
	Rows        int64  `json:"rows"`
	Differences int64  `json:"differences"`
}

func newAuditCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "audit",
		Short: "Compare a fresh index, built through the slot, with the table",
		Long: `Builds an index as the daemon does, by a load and through a replication slot, and compares it
with the table at one position: every transaction that a snapshot sees is in it, and no other.
Names every difference. While a daemon holds the slot, the audit makes one of its own, with
_audit behind the name, and drops it at the end. The exit status is 0 when both are equal.

The source server sorts the table by restaurant for it. Of the settings it needs source.dsn.`,
		Example: `  tiffin audit -c tiffin.yaml
  tiffin audit --json | jq 'select(.restaurant)'`,
		Args: usage(cobra.NoArgs),
	}
	file := addConfigFlag(cmd)
	asJSON := cmd.Flags().Bool("json", false, "one object a line, last a summary with \"ok\"")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		s, log, err := loadSettings(cmd, *file, []string{"source.dsn"})
		if err != nil {
			return err
		}
		cfg := cdc.Config{
			DSN: s.Source.DSN.Reveal(), Table: s.Source.Table.String(), Publication: s.Source.Publication,
			Slot: s.Source.Slot, Setup: cdc.Setup(s.Source.Setup), Log: log.With("part", "source"),
		}
		return audit(cmd, cfg, s.Index, *asJSON)
	}
	return cmd
}

func audit(cmd *cobra.Command, cfg cdc.Config, index settings.Index, asJSON bool) error {
	out := json.NewEncoder(cmd.OutOrStdout())
	tell := func(d cdc.Difference) error {
		switch {
		case asJSON:
			return out.Encode(d)
		case d.Client == "":
			return say(cmd, "restaurant %q: %s", d.Restaurant, d.Text)
		default:
			return say(cmd, "restaurant %q, client %q: %s", d.Restaurant, d.Client, d.Text)
		}
	}
	r, err := cdc.Audit(cmd.Context(), cfg, int64(index.Budget), tell)
	if err != nil {
		return fmt.Errorf("audit: %w", err)
	}
	if asJSON {
		err = out.Encode(auditSummary{r.Differences == 0, r.Slot, r.Position.String(), r.Restaurants, r.Rows, r.Differences})
	} else {
		err = say(cmd, "index (through slot %s) and table compared at %s: %d restaurants, %d rows, %d differences",
			r.Slot, r.Position, r.Restaurants, r.Rows, r.Differences)
	}
	if err == nil && r.Differences > 0 {
		err = fmt.Errorf("audit: index and table differ in %d places", r.Differences)
	}
	return err
}
