// Command bench measures tiffin from outside, on servers of its own, beside the machine's limit. No
// figure counts unless both sinks hold exactly the expected deliveries.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
)

// The exit statuses (scripts hold on to them).
const (
	exitOK     = 0
	exitMissed = 1 // a goal was missed, sinks differ, or it could not be measured
	exitUsage  = 2
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	os.Exit(func() int {
		defer stop()
		return run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	}())
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
	_, _ = fmt.Fprintln(stderr, "bench:", err) // there is nowhere else to say it
	if _, ok := errors.AsType[*usageError](err); ok {
		return exitUsage
	}
	return exitMissed
}
