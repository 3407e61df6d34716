package main

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"example.com/tiffin/cmd/internal/command"
	"example.com/tiffin/cmd/internal/daemon"
	"example.com/tiffin/internal/checkup"
)

// doctorSummary is the last line of doctor --json.
type doctorSummary struct {
	OK    bool `json:"ok"`
	Fails int  `json:"fails"`
	Warns int  `json:"warns"`
}

func newDoctorCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Check each thing that run will need, one line each, with the fix",
		Long: `Checks source database, feedback database and Kafka in the order in which a start would fail: names,
connections, certificates, log-in, versions, rights, tables, topics, limits. Connects as the daemon
does, and changes nothing. A check that needs one that failed is skipped, all others are judged.

The exit status is 0 if all is ok or worth a warning, 1 if something fails.`,
		Example: "  tiffin doctor -c tiffin.yaml\n  tiffin doctor --json | jq 'select(.verdict == \"fail\")'",
		Args:    command.Args(cobra.NoArgs),
	}
	file := command.ConfigFlag(cmd)
	asJSON := cmd.Flags().Bool("json", false, "one object a line, last a summary with \"ok\"")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		s, log, err := command.Load(cmd, *file, daemon.ExamineNeeds())
		if err != nil {
			return err
		}
		var told error
		sheet := checkup.NewSheet(func(line checkup.Line) {
			line.Fix = command.SameSettings(line.Fix, *file)
			told = errors.Join(told, tellLine(cmd, line, *asJSON))
		})
		if err := daemon.Examine(cmd.Context(), s, log, sheet); err != nil {
			return fmt.Errorf("doctor: %w", err)
		}
		if *asJSON {
			told = errors.Join(told, json.NewEncoder(cmd.OutOrStdout()).Encode(doctorSummary{sheet.Fails == 0, sheet.Fails, sheet.Warns}))
		}
		switch {
		case told != nil || sheet.Fails == 0:
			return told
		case sheet.Fails == 1:
			return errors.New("doctor: 1 check fails")
		}
		return fmt.Errorf("doctor: %d checks fail", sheet.Fails)
	}
	return cmd
}

// tellLine prints a check: for people the fix stands below, where it can be copied.
func tellLine(cmd *cobra.Command, line checkup.Line, asJSON bool) error {
	if asJSON {
		out := json.NewEncoder(cmd.OutOrStdout())
		out.SetEscapeHTML(false)
		return out.Encode(line)
	}
	if err := command.Say(cmd, "%-4s  %-32s %s", line.Verdict, line.Check, line.Text); err != nil || line.Fix == "" || line.Verdict == checkup.OK {
		return err
	}
	return command.Say(cmd, "      %-32s fix: %s", "", line.Fix)
}
