package testbed

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// Peer is another program that does the same work. It is a directory with an executable named
// "peer", which is called in three ways:
//
//	peer guarantee   prints, in a sentence, what it promises; the words up to its first colon,
//	                 without what is in brackets, stand beside each figure
//	peer prepare     fetches and builds what it needs into PEER_CACHE; exit 75 if it can't here, with
//	                 the reason on stderr: the peer is then skipped
//	peer run         works until SIGTERM; prints the line "ready" on stdout once it would take a
//	                 campaign; exit 0, or what the signal makes of a program (143, a JVM's way)
//
// The environment of all three: PATH, HOME, PEER_CACHE (a directory that stays). Of run also
// PEER_SCRATCH (one that goes), PEER_BROKERS (comma-separated), PEER_SOURCE_DSN and PEER_FEEDBACK_DSN
// (URLs), PEER_INPUT, PEER_OUTPUT and PEER_DEAD_LETTERS (topics, which exist), PEER_GROUP, PEER_SLOT
// and PEER_PUBLICATION (names to use for the like). The input topic is to be read from its start.
// After a kill -9 run is called again, with the same environment, PEER_SCRATCH included: what the
// peer keeps to go on from belongs there.
// The table subscribers_feedback exists; nothing may be created in the source database but a slot, a
// publication and what the peer's own documentation asks for. lz4, acks=all, and no weaker
// durability than the daemon's.
type Peer struct {
	Name      string
	Guarantee string
	dir       string
	cache     string
}

// exitUnavailable is EX_TEMPFAIL of sysexits.h: not here, not now.
const exitUnavailable = 75

// ErrUnavailable is wrapped by the error of a peer that can't run on this machine.
var ErrUnavailable = errors.New("not available here")

// Peers are the names of those below a directory.
func Peers(dir string) []string {
	found, _ := filepath.Glob(filepath.Join(dir, "*", "peer")) // the only error is of the pattern
	var names []string
	for _, path := range found {
		names = append(names, filepath.Base(filepath.Dir(path)))
	}
	return names
}

// PreparePeer asks a peer for its guarantee and lets it fetch what it needs.
func PreparePeer(ctx context.Context, dir, name string) (Peer, error) {
	if !slices.Contains(Peers(dir), name) {
		return Peer{}, fmt.Errorf("there is no peer %q in %s; there are: %s", name, dir, strings.Join(Peers(dir), ", "))
	}
	dir, err := filepath.Abs(dir) // it is run in its own directory
	if err != nil {
		return Peer{}, fmt.Errorf("find peer %s: %w", name, err)
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return Peer{}, fmt.Errorf("find a directory that stays, for peer %s: %w", name, err)
	}
	p := Peer{Name: name, dir: filepath.Join(dir, name), cache: filepath.Join(cache, "tiffin-bench", name)}
	if err := os.MkdirAll(p.cache, 0o755); err != nil { //nolint:gosec // what is fetched is public
		return Peer{}, fmt.Errorf("make the directory of peer %s: %w", name, err)
	}
	if p.Guarantee, err = p.call(ctx, "guarantee"); err != nil {
		return Peer{}, err
	}
	_, err = p.call(ctx, "prepare")
	return p, err
}

func (p Peer) call(ctx context.Context, what string) (string, error) {
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, filepath.Join(p.dir, "peer"), what) //nolint:gosec // it is to be run
	cmd.Env, cmd.Dir, cmd.Stdout, cmd.Stderr = p.environment(), p.dir, &stdout, &stderr
	err := cmd.Run()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok && exit.ExitCode() == exitUnavailable {
		return "", fmt.Errorf("peer %s: %w: %s", p.Name, ErrUnavailable, bytes.TrimSpace(stderr.Bytes()))
	}
	if err != nil {
		return "", fmt.Errorf("peer %s, %s: %w\n%s", p.Name, what, err, stderr.Bytes())
	}
	return strings.TrimSpace(stdout.String()), nil
}

func (p Peer) environment() []string {
	return []string{"PATH=" + os.Getenv("PATH"), "HOME=" + os.Getenv("HOME"), "PEER_CACHE=" + p.cache}
}

// RunningPeer is a peer's process.
type RunningPeer struct {
	*Process
	peer    Peer
	lane    *Lane
	ready   chan struct{}
	scratch string
}

// Start runs the peer on a lane, with a directory below scratch.
func (p Peer) Start(ctx context.Context, lane *Lane, scratch string) (*RunningPeer, error) {
	dir, err := os.MkdirTemp(scratch, p.Name+"-")
	if err != nil {
		return nil, fmt.Errorf("make a directory for peer %s: %w", p.Name, err)
	}
	r, err := p.run(ctx, lane, dir)
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	return r, nil
}

// Again runs a peer that was killed, with what it has kept. The killed one needs no Stop.
func (r *RunningPeer) Again(ctx context.Context) (*RunningPeer, error) {
	return r.peer.run(ctx, r.lane, r.scratch)
}

func (p Peer) run(ctx context.Context, lane *Lane, dir string) (r *RunningPeer, err error) {
	r = &RunningPeer{peer: p, lane: lane, ready: make(chan struct{}), scratch: dir}
	reader, writer := io.Pipe()
	go r.watch(reader)
	env := append(p.environment(), "PEER_SCRATCH="+dir, "PEER_BROKERS="+strings.Join(lane.Brokers, ","),
		"PEER_SOURCE_DSN="+lane.SourceDSN, "PEER_FEEDBACK_DSN="+lane.FeedbackDSN,
		"PEER_INPUT="+lane.Input, "PEER_OUTPUT="+lane.Output, "PEER_DEAD_LETTERS="+lane.DeadLetters,
		"PEER_GROUP="+lane.Group, "PEER_SLOT="+lane.Slot, "PEER_PUBLICATION="+lane.Publication)
	r.Process, err = start(ctx, "peer "+p.Name, env, writer, filepath.Join(p.dir, "peer"), "run")
	if err != nil {
		_ = writer.Close()
		return nil, err
	}
	go func() {
		<-r.Exited()
		_ = writer.Close() // never fails
	}()
	return r, nil
}

// watch looks for the line "ready"; whatever else is printed is let through.
func (r *RunningPeer) watch(stdout io.Reader) {
	lines := bufio.NewScanner(stdout)
	told := false
	for lines.Scan() {
		if lines.Text() == "ready" && !told {
			told = true
			close(r.ready)
		}
	}
	_, _ = io.Copy(io.Discard, stdout) // a line too long for the scanner must not stop the peer
}

// WaitReady waits for the peer's word.
func (r *RunningPeer) WaitReady(ctx context.Context) (time.Time, error) {
	select {
	case <-r.ready:
		return time.Now(), nil
	case <-r.Exited():
		return time.Now(), r.Ended("before it was ready")
	case <-ctx.Done():
		return time.Now(), r.Failure(fmt.Errorf("wait until it is ready: %w", ctx.Err()))
	}
}

// Stop asks it to stop and removes its directory. JVMs take their time, and end with 143.
func (r *RunningPeer) Stop() error {
	err := r.Process.Stop(60 * time.Second)
	if exit, ok := errors.AsType[*exec.ExitError](err); ok && obeyed(exit) {
		err = nil
	}
	return errors.Join(err, os.RemoveAll(r.scratch))
}

// obeyed is whether a program ended as SIGTERM makes it end, itself or by a shell's account.
func obeyed(exit *exec.ExitError) bool {
	status, ok := exit.Sys().(syscall.WaitStatus)
	const terminated = 128 + int(syscall.SIGTERM)
	return exit.ExitCode() == terminated || ok && status.Signaled() && status.Signal() == syscall.SIGTERM
}
