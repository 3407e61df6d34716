package command

import (
	"fmt"

	"github.com/spf13/cobra"
)

// UsageError is a command line that cannot be understood. It ends a program with ExitUsage.
type UsageError struct {
	command string
	err     error
}

// Error names the fault, and the help that would have avoided it.
func (e *UsageError) Error() string { return e.err.Error() + "\nsee " + e.command + " --help" }

// Unwrap returns the fault.
func (e *UsageError) Unwrap() error { return e.err }

// Usage makes err a fault in how cmd was called.
func Usage(cmd *cobra.Command, err error) error { return &UsageError{cmd.CommandPath(), err} }

// Args makes a fault in the arguments one of usage.
func Args(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if err := check(cmd, args); err != nil {
			return Usage(cmd, err)
		}
		return nil
	}
}

// Say writes a line of output that is meant for people or programs, not for the log.
func Say(cmd *cobra.Command, format string, args ...any) error {
	_, err := fmt.Fprintf(cmd.OutOrStdout(), format+"\n", args...)
	return err
}
