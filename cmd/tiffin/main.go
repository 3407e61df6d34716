// Command tiffin joins campaigns from Kafka with the subscribers of a Postgres table, and
// writes one record and one row per subscriber.
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
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// run executes one command line and returns the exit status.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	root := newRootCommand()
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitOK
	}
	_, _ = fmt.Fprintln(stderr, "tiffin:", err) // there is nowhere else to say it
	if isUsage(err) {
		return exitUsage
	}
	return exitFault
}

func isUsage(err error) bool {
	var faults *settings.Faults
	var usage *usageError
	return errors.As(err, &faults) || errors.As(err, &usage)
}
