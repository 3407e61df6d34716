package main

import (
	"bytes"
	"io"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"example.com/tiffin/cmd/internal/command"
	"example.com/tiffin/cmd/internal/command/commandtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func benchRun(t *testing.T, out, progress io.Writer, args ...string) int {
	t.Helper()
	return command.Run(t.Context(), newRootCommand(), args, command.Streams{Out: out, Err: progress})
}

// Scripts hold on to the exit statuses.
func TestExitStatus(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		args []string
		want int
	}{
		{[]string{"list"}, command.ExitOK},
		{[]string{"--help"}, command.ExitOK},
		{nil, command.ExitUsage},
		{[]string{"no-such"}, command.ExitUsage},
		{[]string{"list", "x"}, command.ExitUsage},
		{[]string{"throughput", "--no-such"}, command.ExitUsage},
		{[]string{"throughput", "--quick", "--dir", "/no/such/directory"}, command.ExitFault},
		{[]string{"throughput", "--quick", "--peer", "no-such"}, command.ExitFault},
	} {
		var out, progress bytes.Buffer
		if got := benchRun(t, &out, &progress, c.args...); got != c.want {
			t.Errorf("bench %q: status %d, want %d\n%s%s", c.args, got, c.want, &out, &progress)
		}
	}
	var out bytes.Buffer
	if benchRun(t, &out, io.Discard, "list"); !strings.Contains(out.String(), "throughput ") {
		t.Errorf("bench list: %s", &out)
	}
}

func TestNoFlagTakesASecret(t *testing.T) {
	t.Parallel()
	if found := commandtest.SecretFlags(newRootCommand()); len(found) > 0 {
		t.Errorf("%q would show a secret to everyone who lists processes", found)
	}
}
