package main

import (
	"github.com/spf13/cobra"

	"example.com/tiffin/cdc"
	"example.com/tiffin/cmd/internal/command"
)

func newRootCommand() *cobra.Command {
	return command.Root(&cobra.Command{
		Use:   "slotsetup",
		Short: "Prepare the source database for tiffin",
		Long: `slotsetup gives the daemon's role (setup.role, default: the user of source.dsn) what it needs on
the source database, and makes the publication and the replication slot. It connects by
setup.dsn (default: source.dsn) as the table's owner or a superuser.`,
		Example: "  slotsetup plan -c tiffin.yaml\n  slotsetup apply -c tiffin.yaml",
	},
		newPlanCommand(),
		newApplyCommand(),
		newStatusCommand(),
		newDropCommand(),
	)
}

// load reads the settings into what cdc needs to set up the source, and the daemon's role.
func load(cmd *cobra.Command, file string) (cdc.Config, string, error) {
	s, log, err := command.Load(cmd, file, []string{"source.dsn"})
	if err != nil {
		return cdc.Config{}, "", err
	}
	key := "setup.dsn"
	if s.Setup.DSN == s.Source.DSN {
		key = "source.dsn"
	}
	return cdc.Config{
		DSN:            s.Setup.DSN.Reveal(),
		DSNKey:         key,
		Table:          s.Source.Table.String(),
		Publication:    s.Source.Publication,
		Slot:           s.Source.Slot,
		MaxRetainedWAL: int64(s.Source.MaxRetainedWAL),
		Failover:       s.Source.Failover,
		Log:            log,
	}, s.Setup.Role, nil
}
