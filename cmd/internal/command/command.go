// Package command is what the programs of cmd share of a command line: exit statuses, faults of
// usage, the flag for the settings, and what becomes of the signals that ask it to end.
package command

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"example.com/tiffin/cmd/internal/settings"
)

// The exit statuses (operators' scripts hold on to them).
const (
	ExitOK    = 0
	ExitFault = 1
	ExitUsage = 2 // of settings or arguments
)

// Streams are what a program reads and writes.
type Streams struct {
	In       io.Reader
	Out, Err io.Writer
}

// Main runs root with the process's arguments and streams, and returns the exit status. The first
// SIGINT, SIGTERM or SIGHUP ends the context, which asks root to stop; the second ends the process at
// once. A closed terminal is as good as Ctrl-C, but under nohup it is none.
func Main(root *cobra.Command) int {
	ends := []os.Signal{syscall.SIGINT, syscall.SIGTERM}
	if !signal.Ignored(syscall.SIGHUP) {
		ends = append(ends, syscall.SIGHUP)
	}
	ctx, stop := signal.NotifyContext(context.Background(), ends...)
	defer stop()
	context.AfterFunc(ctx, stop) // without the handler a signal has its usual effect
	return Run(ctx, root, os.Args[1:], Streams{os.Stdin, os.Stdout, os.Stderr})
}

// Run executes one command line and returns the exit status. A fault goes to s.Err, in one piece,
// behind the program's name.
func Run(ctx context.Context, root *cobra.Command, args []string, s Streams) int {
	root.SetArgs(args)
	root.SetIn(s.In)
	root.SetOut(s.Out)
	root.SetErr(s.Err)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return ExitOK
	}
	if _, told := errors.AsType[*loggedError](err); !told {
		_, _ = fmt.Fprintln(s.Err, root.Name()+":", err) // there is nowhere else to say it
	}
	if isUsage(err) {
		return ExitUsage
	}
	return ExitFault
}

func isUsage(err error) bool {
	var faults *settings.Faults
	var usage *UsageError
	return errors.As(err, &faults) || errors.As(err, &usage)
}

// Root completes a program's first command: faults of flags are of usage, and Run prints faults, once.
// A root that does nothing by itself asks for a command. Every program has version, completion and man.
func Root(root *cobra.Command, commands ...*cobra.Command) *cobra.Command {
	root.SilenceErrors = true
	root.SilenceUsage = true
	root.SetFlagErrorFunc(Usage)
	if root.RunE == nil {
		root.Args = Args(cobra.NoArgs)
		root.RunE = func(cmd *cobra.Command, _ []string) error { return Usage(cmd, errors.New("name a command")) }
	}
	root.AddCommand(commands...)
	root.AddCommand(versionCommand(root.Name()), completionCommand(root.Name()), manCommand(root.Name()))
	return root
}
