package main

import (
	"errors"
	"fmt"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"example.com/tiffin/cdc"
	"example.com/tiffin/cmd/internal/command"
)

func newStatusCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "status",
		Short:   "Show the slot's health and what is missing",
		Long:    `Shows the slot, who has it active, what it holds back, and how many statements apply would run. The exit status is 1 if the slot is missing or lost, or if anything else is missing.`,
		Example: "  slotsetup status -c tiffin.yaml",
		Args:    command.Args(cobra.NoArgs),
	}
	file := command.ConfigFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		cfg, role, err := load(cmd, *file)
		if err != nil {
			return err
		}
		s, err := cdc.Status(cmd.Context(), cfg)
		if err != nil {
			return err
		}
		if err := sayStatus(cmd, cfg, s); err != nil {
			return err
		}
		steps, err := cdc.Plan(cmd.Context(), cfg, role)
		if err != nil {
			return err
		}
		if len(steps) > 0 {
			return fmt.Errorf("%d statements are missing: see slotsetup plan", len(steps))
		}
		return command.Say(cmd, "set-up\tcomplete")
	}
	return cmd
}

func sayStatus(cmd *cobra.Command, cfg cdc.Config, s cdc.SlotStatus) error {
	if !s.Exists {
		return command.Say(cmd, "slot\t%s\tdoes not exist", cfg.Slot)
	}
	state := "idle"
	if s.Holder != "" {
		state = "active: " + s.Holder
	}
	if s.Lost {
		state = "lost: invalidated by the server"
	}
	failover := "no standby synchronises it"
	if s.Failover {
		failover = "standbys synchronise it"
	}
	return errors.Join(
		command.Say(cmd, "slot\t%s\t%s", cfg.Slot, state),
		command.Say(cmd, "failover\t%s", failover),
		command.Say(cmd, "confirmed\t%s", s.Confirmed),
		command.Say(cmd, "retained\t%s (%d bytes)", humanize.IBytes(uint64(max(s.Retained, 0))), s.Retained),
	)
}
