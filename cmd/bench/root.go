package main

import (
	"errors"
	"fmt"
	"slices"

	"github.com/spf13/cobra"
)

// usageError is a command line that cannot be understood.
type usageError struct{ err error }

func (e *usageError) Error() string { return e.err.Error() + "\nsee bench --help" }
func (e *usageError) Unwrap() error { return e.err }

func newRootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "bench [SCENARIO…]",
		Short: "Measure tiffin from outside, beside the machine's limit",
		Long: `Starts a real Apache Kafka (Java and, the first time, Maven are needed) and a durable PostgreSQL in a
temporary directory, runs "tiffin run" as a process of its own, and measures from outside. Both
sinks are compared with the expected deliveries, each of them. The exit status is 1 if they differ
or a goal is missed. Progress goes to stderr, results to stdout.`,
		Example:       "  bench list\n  bench throughput\n  bench throughput --quick",
		SilenceErrors: true, // main prints them, once
		SilenceUsage:  true,
		Args:          checkScenarios,
	}
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return &usageError{err} })
	root.CompletionOptions.HiddenDefaultCmd = true
	var o options
	root.Flags().BoolVar(&o.quick, "quick", false, "a small form of the scenario that takes seconds; no goal is judged")
	root.Flags().StringVar(&o.tiffin, "tiffin", "", "`PATH` of the program to measure (default: tiffin beside bench, else built from the source)")
	root.Flags().StringVar(&o.dir, "dir", "", "`DIRECTORY` that the servers' directories are made in; its disk is measured too (default: for temporary files)")
	root.RunE = func(cmd *cobra.Command, names []string) error {
		o.out, o.progress = cmd.OutOrStdout(), cmd.ErrOrStderr()
		for _, s := range scenarios() {
			if !slices.Contains(names, s.name) {
				continue
			}
			if err := s.run(cmd.Context(), o); err != nil {
				return fmt.Errorf("%s: %w", s.name, err)
			}
		}
		return nil
	}
	root.AddCommand(newListCommand())
	return root
}

func newListCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "list",
		Short:   "Name the scenarios",
		Example: "  bench list",
		Args: func(cmd *cobra.Command, args []string) error {
			if err := cobra.NoArgs(cmd, args); err != nil {
				return &usageError{err}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error {
			for _, s := range scenarios() {
				if _, err := fmt.Fprintf(cmd.OutOrStdout(), "%-12s %s\n", s.name, s.summary); err != nil {
					return err
				}
			}
			return nil
		},
	}
}

func checkScenarios(_ *cobra.Command, names []string) error {
	if len(names) == 0 {
		return &usageError{errors.New("name a scenario")}
	}
	for _, name := range names {
		if !slices.ContainsFunc(scenarios(), func(s scenario) bool { return s.name == name }) {
			return &usageError{fmt.Errorf("there is no scenario %q; bench list names them", name)}
		}
	}
	return nil
}
