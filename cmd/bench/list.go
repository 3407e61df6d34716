package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"example.com/tiffin/cmd/bench/internal/harness"
	"example.com/tiffin/cmd/bench/internal/testbed"
	"example.com/tiffin/cmd/internal/command"
)

func newListCommand(f *flags) *cobra.Command {
	list := &cobra.Command{
		Use:     "list",
		Short:   "Name the scenarios, their goals, and the peers",
		Example: "  bench list",
		Args:    command.Args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := io.WriteString(cmd.OutOrStdout(), listed(scenarios(), testbed.Peers(f.peersDir)))
			return err
		},
	}
	f.peersFlag(list)
	return list
}

func listed(scenarios []harness.Scenario, peers []string) string {
	var text strings.Builder
	for _, s := range scenarios {
		fmt.Fprintf(&text, "%-12s %s\n", s.Name, s.Summary)
		for _, g := range s.Goals {
			fmt.Fprintf(&text, "%-12s   goal: %s\n", "", g)
		}
		if s.Peers {
			fmt.Fprintf(&text, "%-12s   takes --peer\n", "")
		}
		if s.OwnServers {
			fmt.Fprintf(&text, "%-12s   starts its own servers, also when some are given\n", "")
		}
	}
	if len(peers) > 0 {
		fmt.Fprintf(&text, "\npeers: %s\n", strings.Join(peers, ", "))
	}
	return text.String()
}

// named are the names of the scenarios that are wanted.
func named(scenarios []harness.Scenario, wanted func(harness.Scenario) bool) string {
	var names []string
	for _, s := range scenarios {
		if wanted(s) {
			names = append(names, s.Name)
		}
	}
	return strings.Join(names, ", ")
}
