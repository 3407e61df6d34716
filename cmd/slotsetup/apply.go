package main

import (
	"github.com/spf13/cobra"

	"example.com/tiffin/cdc"
	"example.com/tiffin/cmd/internal/command"
)

func newPlanCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "plan",
		Short: "Print the SQL that apply would run",
		Long: `Prints the statements that the source database lacks, each with the reason as a comment, and runs
none. Nothing but a comment means that all is there.`,
		Example: "  slotsetup plan -c tiffin.yaml\n  slotsetup plan -c tiffin.yaml | psql -X -v ON_ERROR_STOP=1 source",
		Args:    command.Args(cobra.NoArgs),
	}
	file := command.ConfigFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		cfg, role, err := load(cmd, *file)
		if err != nil {
			return err
		}
		steps, err := cdc.Plan(cmd.Context(), cfg, role)
		if err != nil {
			return err
		}
		for _, step := range steps {
			if err := command.Say(cmd, "-- it %s\n%s", step.Why, step.SQL); err != nil {
				return err
			}
		}
		if len(steps) == 0 {
			return command.Say(cmd, "-- nothing is missing")
		}
		return nil
	}
	return cmd
}

func newApplyCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "apply",
		Short: "Run what is missing on the source database",
		Long: `Creates or alters what the source database lacks, and prints each statement after it ran. It may be
run at any time; where all is there it changes nothing. Making the slot waits for the
transactions that run. A role that is created has no password yet.`,
		Example: "  slotsetup apply -c tiffin.yaml\n  TIFFIN_SETUP_DSN=postgres://postgres@db/app slotsetup apply -c tiffin.yaml",
		Args:    command.Args(cobra.NoArgs),
	}
	file := command.ConfigFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		cfg, role, err := load(cmd, *file)
		if err != nil {
			return err
		}
		done := 0
		err = cdc.Apply(cmd.Context(), cfg, role, func(step cdc.Step) {
			done++
			_ = command.Say(cmd, "%s", step.SQL) // the statement ran, whether or not somebody reads this
		})
		if err != nil {
			return err
		}
		return command.Say(cmd, "-- ready: %d statements run", done)
	}
	return cmd
}
