package testbed

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"example.com/tiffin/internal/devstack/devstacktest"
)

var servers devstacktest.Servers

func TestMain(m *testing.M) { os.Exit(servers.Main(m)) }

// script makes a peer of a shell script.
func script(t *testing.T, name, text string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, name, "peer"), []byte("#!/bin/sh\n"+text), 0o755); err != nil { //nolint:gosec // it is to be run
		t.Fatal(err)
	}
	return dir
}

// A peer is asked for its guarantee, prepared, told where everything is, awaited, and stopped.
func TestPeerIsRunByItsRules(t *testing.T) {
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	dir := script(t, "echoing", `case $1 in
guarantee) echo "whatever you like" ;;
prepare) echo prepared > "$PEER_CACHE/mark" ;;
run)
	trap 'exit 0' TERM
	cat "$PEER_CACHE/mark" >&2
	echo "$PEER_BROKERS $PEER_SOURCE_DSN $PEER_FEEDBACK_DSN $PEER_INPUT $PEER_OUTPUT $PEER_DEAD_LETTERS $PEER_GROUP $PEER_SLOT $PEER_PUBLICATION" >&2
	touch "$PEER_SCRATCH/file"
	echo "not yet ready"
	echo ready
	while :; do read -r line < /dev/zero || :; done ;;
esac
`)
	if !slices.Equal(Peers(dir), []string{"echoing"}) {
		t.Errorf("peers: %q", Peers(dir))
	}
	p, err := PreparePeer(t.Context(), dir, "echoing")
	if err != nil || p.Guarantee != "whatever you like" {
		t.Fatalf("prepare: %+v, %v", p, err)
	}
	scratch := t.TempDir()
	lane := &Lane{
		Brokers: []string{"a:1", "b:2"}, SourceDSN: "postgres://s", FeedbackDSN: "postgres://f",
		Input: "in", Output: "out", DeadLetters: "dlq", Group: "g", Slot: "slot", Publication: "pub",
	}
	r, err := p.Start(t.Context(), lane, scratch)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.WaitReady(t.Context()); err != nil {
		t.Error(err)
	}
	r.Kill()
	if err := r.Stop(); err == nil {
		t.Error("a peer that was killed has stopped by itself")
	}
	// What it wrote to stderr is whole once it has ended: ready comes by another pipe.
	told := r.Failure(errors.New("told")).Error()
	if want := "a:1,b:2 postgres://s postgres://f in out dlq g slot pub"; !strings.Contains(told, want) || !strings.Contains(told, "prepared") {
		t.Errorf("the peer was told %q, want %q", told, want)
	}
	if left, err := os.ReadDir(scratch); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// A peer that ends as SIGTERM makes programs end has stopped; one that was killed goes on with what
// it has kept.
func TestPeerMayEndBySignal(t *testing.T) {
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	const text = `[ "$1" = run ] || exit 0
echo life >> "$PEER_SCRATCH/lives"
wc -l < "$PEER_SCRATCH/lives" >&2
`
	const waits = `
sleep 1000 > /dev/null 2>&1 &
echo ready
wait
`
	for end, stops := range map[string]bool{
		"trap 'kill $!; exit 143' TERM" + waits: true, "echo ready; exec sleep 1000\n": true, "trap 'kill $!; exit 3' TERM" + waits: false,
	} {
		p, err := PreparePeer(t.Context(), script(t, "jvm", text+end), "jvm")
		if err != nil {
			t.Fatal(err)
		}
		r, err := p.Start(t.Context(), &Lane{}, t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := r.WaitReady(t.Context()); err != nil {
			t.Error(err)
		}
		r.Kill()
		if r, err = r.Again(t.Context()); err != nil {
			t.Fatal(err)
		}
		if _, err := r.WaitReady(t.Context()); err != nil {
			t.Error(err)
		}
		if err := r.Stop(); (err == nil) != stops {
			t.Errorf("%q: %v", end, err)
		}
		if told := r.Failure(errors.New("told")).Error(); !strings.Contains(told, "2\n") { // whole only now
			t.Errorf("the second life does not see what the first kept: %s", told)
		}
	}
}

// What a peer cannot do here is told apart from what is wrong with it.
func TestPeerThatIsNotThere(t *testing.T) {
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	unavailable := script(t, "p", `[ "$1" = guarantee ] && { echo none; exit; }
echo "no registry" >&2
exit 75
`)
	if _, err := PreparePeer(t.Context(), unavailable, "p"); !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), "no registry") {
		t.Errorf("unavailable: %v", err)
	}
	broken := script(t, "p", "echo oops >&2\nexit 1\n")
	if _, err := PreparePeer(t.Context(), broken, "p"); err == nil || errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), "oops") {
		t.Errorf("broken: %v", err)
	}
	if _, err := PreparePeer(t.Context(), broken, "q"); err == nil || !strings.Contains(err.Error(), "there are: p") {
		t.Errorf("unknown: %v", err)
	}
	ends := script(t, "p", "echo $1 >&2\n")
	p, err := PreparePeer(t.Context(), ends, "p")
	if err != nil {
		t.Fatal(err)
	}
	r, err := p.Start(t.Context(), &Lane{}, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.WaitReady(t.Context()); err == nil || !strings.Contains(err.Error(), "before it was ready") {
		t.Errorf("a peer that ends: %v", err)
	}
	if err := r.Stop(); err != nil {
		t.Errorf("it ended with 0: %v", err)
	}
}

// The meter sees a process and its children.
func TestMeterSeesTheWholeTree(t *testing.T) {
	t.Parallel()
	if len(readAll()) == 0 {
		t.Skip("no /proc here")
	}
	p, err := start(t.Context(), "busy", []string{"PATH=" + os.Getenv("PATH")}, nil, "/bin/sh", "-c", "sh -c 'while :; do :; done' & wait")
	if err != nil {
		t.Fatal(err)
	}
	m := StartMeter(map[string]int{"busy": p.PID()})
	deadline := time.After(20 * time.Second)
	ticker := time.NewTicker(10 * time.Millisecond)
	defer ticker.Stop()
	for usageOf(map[string]int{"busy": p.PID()})["busy"].CPU < 50*time.Millisecond {
		select {
		case <-ticker.C:
		case <-deadline:
			t.Fatal("the child's time is not seen")
		}
	}
	m.Stop()
	p.Kill()
	if m.CPU["busy"] < 30*time.Millisecond || m.Peak["busy"] == 0 || len(m.Memory["busy"]) == 0 {
		t.Errorf("CPU %v, peak %d, %d samples", m.CPU["busy"], m.Peak["busy"], len(m.Memory["busy"]))
	}
}

func readAll() map[string]Usage {
	u := usageOf(map[string]int{"self": os.Getpid()})
	if u["self"].Memory == 0 {
		return nil
	}
	return u
}
