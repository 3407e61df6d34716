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
		{[]string{"completion", "bash"}, command.ExitOK},
		{[]string{"__complete", "thr"}, command.ExitOK},
		{nil, command.ExitUsage},
		{[]string{"no-such"}, command.ExitUsage},
		{[]string{"list", "x"}, command.ExitUsage},
		{[]string{"throughput", "--no-such"}, command.ExitUsage},
		{[]string{"throughput", "--quick", "--dir", "/no/such/directory"}, command.ExitFault},
		{[]string{"throughput", "--quick", "--peers", "peers", "--peer", "no-such"}, command.ExitUsage},
		{[]string{"index", "--quick", "--peers", "peers", "--peer", "plain"}, command.ExitUsage},
		{[]string{"all", "--quick", "--peers", "peers", "--peer", "plain", "--dir", "/no/such/directory"}, command.ExitFault},
		{[]string{"throughput", "--runs", "0"}, command.ExitUsage},
		{[]string{"throughput", "--against", "/no/such/build"}, command.ExitUsage},
		{[]string{"throughput", "--against", "peers"}, command.ExitUsage},
		{[]string{"throughput", "--against", "command_test.go"}, command.ExitUsage},
		{[]string{"throughput", "--against", "peers/plain/peer", "--against", "./peers/plain/peer"}, command.ExitUsage},
		{[]string{"throughput", "--tiffin", "/no/such/build"}, command.ExitUsage},
		{[]string{"soak", "--kills", "-1"}, command.ExitUsage},
		{[]string{"soak", "--for", "-1s"}, command.ExitUsage},
		{[]string{"index", "--against", "command_test.go"}, command.ExitUsage},
	} {
		var out, progress bytes.Buffer
		if got := benchRun(t, &out, &progress, c.args...); got != c.want {
			t.Errorf("bench %q: status %d, want %d\n%s%s", c.args, got, c.want, &out, &progress)
		}
	}
	var out bytes.Buffer
	benchRun(t, &out, io.Discard, "list", "--peers", "peers")
	benchRun(t, &out, io.Discard, "--help")
	for _, want := range []string{"\nfence ", "goal: fan-out 100: CPU a delivery, at most 1.5µs\n", "goal: fan-out 100: deliveries, at least 0.90 of the limit\n", "takes --peer\n", "peers: ", "start their own all the same", "soak"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("bench list and --help lack %q:\n%s", want, &out)
		}
	}
}

func TestEveryCommandHelpsWithAnExample(t *testing.T) {
	t.Parallel()
	if found := commandtest.Unexplained(t.Context(), newRootCommand); len(found) > 0 {
		t.Errorf("%q", found)
	}
}

func TestNoFlagTakesASecret(t *testing.T) {
	t.Parallel()
	if found := commandtest.SecretFlags(newRootCommand()); len(found) > 0 {
		t.Errorf("%q would show a secret to everyone who lists processes", found)
	}
}

func TestScenariosAreCompleted(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	benchRun(t, &out, io.Discard, "__complete", "latency", "")
	if text := out.String(); !strings.Contains(text, "throughput\t") || !strings.Contains(text, "all\t") || strings.Contains(text, "latency\t") {
		t.Errorf("beside latency: %s", text)
	}
}
