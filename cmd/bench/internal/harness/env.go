package harness

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"time"

	"example.com/tiffin/cmd/bench/internal/testbed"
)

// Options are what the command line says.
type Options struct {
	Quick    bool
	Runs     int      // of each scenario; 0: 1
	Cases    []string // of the scenarios; empty: all
	Tiffin   string   // program to measure; empty: find or build it
	Against  []string // other builds of it, contenders like peers
	Dir      string   // for the servers' directories; empty: the system's for temporary files
	Given    testbed.Given
	Peers    []testbed.Peer
	Skipped  []string // peers that cannot be had here, and why
	Progress io.Writer

	// Of soak, which ends with the first that is reached; 0: not by this.
	Kills int
	For   time.Duration
	Seed  uint64 // 0: any
}

// Env is what a run is given: options, a directory, servers that are started once, the program to
// measure. It is for one goroutine, but Say and the bars may be called from any.
type Env struct {
	Options
	scratch string
	tiffin  string
	servers *testbed.Servers
	warm    bool // the servers have worked
	voice   *voice
}

// NewEnv makes the directory. Close removes it and ends the servers.
func NewEnv(o Options) (*Env, error) {
	dir, err := os.MkdirTemp(o.Dir, "tiffin-bench-")
	if err != nil {
		return nil, fmt.Errorf("make a directory: %w", err)
	}
	// Servers run as another user when this one is root.
	if err := os.Chmod(dir, 0o755); err != nil { //nolint:gosec // nothing secret is in it
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	return &Env{Options: o, scratch: dir, voice: newVoice(o.Progress)}, nil
}

// Close ends the servers, if any run, and removes the directory.
func (e *Env) Close() error {
	var err error
	if e.servers != nil {
		err = e.servers.Close()
	}
	return errors.Join(err, os.RemoveAll(e.scratch))
}

// Scratch is a directory that goes when bench ends.
func (e *Env) Scratch() string { return e.scratch }

// Servers are a real Kafka and two real Postgres, started by the first scenario that needs them.
func (e *Env) Servers(ctx context.Context) (*testbed.Servers, error) {
	if e.servers != nil {
		return e.servers, nil
	}
	s, err := testbed.Start(ctx, e.Dir, e.Given)
	if err != nil {
		return nil, err
	}
	e.servers = s
	e.Say("Kafka and Postgres run")
	return s, nil
}

// WarmFor is how long servers that were just started are given before anything is measured.
const WarmFor = 90 * time.Second

// WarmUp has the servers work, once in all, until it is enough.
func (e *Env) WarmUp(work func(enough func() bool) error) error {
	if e.warm {
		return nil
	}
	begun := time.Now()
	if err := work(func() bool { return time.Since(begun) >= WarmFor }); err != nil {
		return fmt.Errorf("warm up: %w", err)
	}
	e.warm = true
	return nil
}

// Started are the servers if a scenario needed them, else nil.
func (e *Env) Started() *testbed.Servers { return e.servers }

// Durability says in a note what a commit of the servers survives.
func (e *Env) Durability() string {
	if e.servers != nil && e.servers.Given() {
		return "given servers, whose settings stand in the report"
	}
	return "fsync and synchronous_commit on"
}

// Program is the daemon to measure: the one named, the one beside this program, or one built from
// the module that the working directory is in.
func (e *Env) Program(ctx context.Context) (string, error) {
	switch self, err := os.Executable(); {
	case e.tiffin != "":
	case e.Tiffin != "":
		e.tiffin = e.Tiffin
	case err == nil && exists(filepath.Join(filepath.Dir(self), "tiffin")):
		e.tiffin = filepath.Join(filepath.Dir(self), "tiffin")
	default:
		built := filepath.Join(e.scratch, "tiffin")
		out, err := exec.CommandContext(ctx, "go", "build", "-o", built, "example.com/tiffin/cmd/tiffin").CombinedOutput()
		if err != nil {
			return "", fmt.Errorf("build tiffin: %w; run bench inside the module or name the program by --tiffin\n%s", err, out)
		}
		e.tiffin = built
	}
	return e.tiffin, nil
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// Wants is whether a case is to be measured.
func (e *Env) Wants(name string) bool { return e.wants(name) }

func (o Options) wants(name string) bool {
	return name == "" || len(o.Cases) == 0 || slices.Contains(o.Cases, name)
}

// Say tells what happened, with the time since the beginning. It is a courtesy, not a result.
func (e *Env) Say(format string, args ...any) { e.voice.say(fmt.Sprintf(format, args...)) }

// Bar shows progress towards total until it is done: a bar on a terminal, a line now and then
// elsewhere. Done must be called.
func (e *Env) Bar(total int64, what string) *Bar { return e.voice.bar(total, what) }

// Begin names the scenario whose progress follows.
func (e *Env) begin(s Scenario, run, runs int) {
	name := s.Name
	if runs > 1 {
		name = fmt.Sprintf("%s, run %d of %d", s.Name, run, runs)
	}
	e.Say("%s", name)
}

// Patience bounds the wait for something that gets nowhere.
const Patience = 10 * time.Minute
