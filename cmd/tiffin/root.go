package main

import (
	"github.com/spf13/cobra"

	"example.com/tiffin/cmd/internal/command"
)

func newRootCommand() *cobra.Command {
	return command.Root(&cobra.Command{
		Use:   "tiffin",
		Short: "Campaigns from Kafka to every subscriber in Postgres, fresh and once",
		Long: `tiffin reads campaign messages from Kafka, joins each with the restaurant's subscribers, which
logical replication keeps current in memory, and writes one record per subscriber to an output
topic and one row per subscriber to a feedback table. Both hold the same deliveries, also after
a crash.`,
		Example: "  tiffin demo\n  tiffin run -c tiffin.yaml",
	},
		newRunCommand(),
		newDemoCommand(),
		newDoctorCommand(),
		newMigrateCommand(),
		newExplainCommand(),
		newVerifyCommand(),
		newAuditCommand(),
	)
}
