// Command slotsetup prepares the source database for tiffin: role, rights, replica identity,
// publication and replication slot.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"example.com/tiffin/cmd/internal/settings"
)

// The exit statuses (operators' scripts hold on to them).
const (
	exitOK    = 0
	exitFault = 1
	exitUsage = 2 // of settings or arguments
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	// The first signal asks; with the handler gone, the second ends the process at once.
	context.AfterFunc(ctx, stop)
	os.Exit(run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// run executes one command line and returns the exit status.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	root := newRootCommand()
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitOK
	}
	_, _ = fmt.Fprintln(stderr, "slotsetup:", err) // there is nowhere else to say it
	var faults *settings.Faults
	var usage *usageError
	if errors.As(err, &faults) || errors.As(err, &usage) {
		return exitUsage
	}
	return exitFault
}
