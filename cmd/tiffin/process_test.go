package main

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"example.com/tiffin/cmd/internal/command"
	"example.com/tiffin/internal/devstack/devstacktest"
)

// servers is shared by the tests of the package, as TestMain demands.
var servers devstacktest.Servers

// asCommand makes the test binary the command itself, so that signals and exit statuses are
// those of a process.
const asCommand = "ACT_AS_TIFFIN"

func TestMain(m *testing.M) {
	if os.Getenv(asCommand) == "1" {
		main()
		return
	}
	os.Exit(servers.Main(m))
}

// patience bounds what a test waits for; it is reached only by a fault.
const patience = 60 * time.Second

// process is tiffin as a process of its own.
type process struct {
	cmd   *exec.Cmd
	lines *bufio.Scanner // of stderr
	seen  strings.Builder
}

func begin(t *testing.T, environ []string, args ...string) *process {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, os.Args[0], args...)
	cmd.Env = append([]string{asCommand + "=1", "PATH=/usr/bin:/bin"}, environ...)
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // both say so if the process has ended
		_ = cmd.Wait()
	})
	return &process{cmd: cmd, lines: bufio.NewScanner(stderr)}
}

// waitFor reads the log until a line holds the text.
func (p *process) waitFor(t *testing.T, text string) {
	t.Helper()
	for p.lines.Scan() {
		p.seen.WriteString(p.lines.Text() + "\n")
		if strings.Contains(p.lines.Text(), text) {
			return
		}
	}
	t.Fatalf("the log never says %q:\n%s", text, p.seen.String())
}

// end waits for the exit and returns its status; -1 after a signal.
func (p *process) end(t *testing.T) int {
	t.Helper()
	for p.lines.Scan() {
		p.seen.WriteString(p.lines.Text() + "\n")
	}
	err := p.cmd.Wait()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) && !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	return p.cmd.ProcessState.ExitCode()
}

// nowhere is a daemon that waits for servers which are not there.
func nowhere() []string {
	return []string{
		"TIFFIN_SOURCE_DSN=postgres://u@127.0.0.1:1/d", "TIFFIN_FEEDBACK_DSN=postgres://u@127.0.0.1:1/d", "TIFFIN_KAFKA_BROKERS=127.0.0.1:1",
		"TIFFIN_HTTP_LISTEN=127.0.0.1:0",
	}
}

func TestSignalStopsTheDaemonWithStatus0(t *testing.T) {
	t.Parallel()
	for _, sig := range []os.Signal{syscall.SIGINT, syscall.SIGTERM} {
		p := begin(t, nowhere(), "run")
		p.waitFor(t, "connection refused")
		if err := p.cmd.Process.Signal(sig); err != nil {
			t.Fatal(err)
		}
		if code := p.end(t); code != command.ExitOK {
			t.Errorf("%s: exit %d\n%s", sig, code, p.seen.String())
		}
	}
}

func TestOutageIsNamedOnStderrWithinThirtySeconds(t *testing.T) {
	t.Parallel()
	started := time.Now()
	p := begin(t, nowhere(), "run")
	p.waitFor(t, "connection refused")
	if took := time.Since(started); took > 30*time.Second {
		t.Errorf("the reason came after %s", took)
	}
}

func TestFaultOfSettingsIsTheStatusOfTheProcess(t *testing.T) {
	t.Parallel()
	p := begin(t, nil, "run")
	if code := p.end(t); code != command.ExitUsage || !strings.Contains(p.seen.String(), "kafka.brokers") {
		t.Errorf("exit %d\n%s", code, p.seen.String())
	}
}

// What systemd (Type=notify) hears of a start that waits, and of the stop.
func TestServiceManagerIsToldWhatTheDaemonWaitsFor(t *testing.T) {
	t.Parallel()
	manager := listenForNotices(t)
	p := begin(t, append(nowhere(), "NOTIFY_SOCKET="+manager.LocalAddr().String()), "run")
	awaitNotice(t, manager, "EXTEND_TIMEOUT_USEC=", "connection refused")
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	awaitNotice(t, manager, "STOPPING=1")
	if code := p.end(t); code != command.ExitOK {
		t.Errorf("exit %d\n%s", code, p.seen.String())
	}
}

// And of one that works: that it is ready, and signs of life.
func TestServiceManagerIsToldThatTheDaemonIsReadyAndAlive(t *testing.T) {
	t.Parallel()
	manager := listenForNotices(t)
	p := begin(t, append(working(t), "TIFFIN_HTTP_LISTEN=off", "NOTIFY_SOCKET="+manager.LocalAddr().String()), "run")
	awaitNotice(t, manager, "WATCHDOG=1\nREADY=1\nSTATUS=ready")
	awaitNotice(t, manager, "WATCHDOG=1")
	awaitNotice(t, manager, "WATCHDOG=1")
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	awaitNotice(t, manager, "STOPPING=1")
	if code := p.end(t); code != command.ExitOK {
		t.Errorf("exit %d\n%s", code, p.seen.String())
	}
}

func listenForNotices(t *testing.T) *net.UnixConn {
	t.Helper()
	dir, err := os.MkdirTemp("", "notify") //nolint:usetesting // the name of a socket has at most 108 bytes
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(dir, "s"), Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if err := conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	return conn
}

// awaitNotice reads what the manager is told until it has heard all of the texts, in whatever order: one that
// does not change is told once.
func awaitNotice(t *testing.T, conn *net.UnixConn, texts ...string) {
	t.Helper()
	datagram := make([]byte, 8<<10)
	for len(texts) > 0 {
		n, err := conn.Read(datagram)
		if err != nil {
			t.Fatalf("never told %q: %v", texts, err)
		}
		texts = slices.DeleteFunc(texts, func(text string) bool { return strings.Contains(string(datagram[:n]), text) })
	}
}
