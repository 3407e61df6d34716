package commandtest

import (
	"bytes"
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"example.com/tiffin/cmd/internal/command"
)

// Unexplained lists the commands of a program whose --help fails, or shows no description or no example.
// Each is asked on a command line of its own: newRoot makes the program's first command anew.
func Unexplained(ctx context.Context, newRoot func() *cobra.Command) []string {
	var found []string
	var walk func(cmd *cobra.Command)
	walk = func(cmd *cobra.Command) {
		if fault := explained(ctx, newRoot(), cmd); fault != "" {
			found = append(found, cmd.CommandPath()+": "+fault)
		}
		for _, child := range cmd.Commands() {
			walk(child)
		}
	}
	walk(newRoot())
	return found
}

// explained says what is wrong with the help of a command below root; empty when nothing is.
func explained(ctx context.Context, root, cmd *cobra.Command) string {
	if cmd.Short == "" {
		return "no description"
	}
	if !strings.Contains(cmd.Example, cmd.CommandPath()) {
		return fmt.Sprintf("no example of it: %q", cmd.Example)
	}
	var out, errs bytes.Buffer
	args := append(strings.Fields(cmd.CommandPath())[1:], "--help")
	status := command.Run(ctx, root, args, command.Streams{In: strings.NewReader(""), Out: &out, Err: &errs})
	if status != command.ExitOK || errs.Len() > 0 || !strings.Contains(out.String(), cmd.Example) {
		return fmt.Sprintf("--help: exit %d, %q, %q", status, &out, &errs)
	}
	return ""
}
