package devstack

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"time"
)

// outputGrace is how long a dead process's descendants may keep its output open.
const outputGrace = 5 * time.Second

// command says what to run, as whom, and how it is to die.
type command struct {
	name  string // for errors
	path  string
	args  []string
	env   []string
	dir   string
	as    *account       // nil: the user of this process
	death syscall.Signal // sent when this process dies (Linux)
	log   io.Writer      // nil: only the tail is kept
}

// process is a running server. exited is closed once it is gone and its output is read.
type process struct {
	name   string
	cmd    *exec.Cmd
	tail   *tail
	exited chan struct{}
	err    error // how it ended; read only after exited is closed
}

// startProcess forks c. ctx gives values only: the process outlives it.
func startProcess(ctx context.Context, c command) (*process, error) {
	p := &process{name: c.name, tail: newTail(c.log), exited: make(chan struct{})}
	p.cmd = exec.CommandContext(context.WithoutCancel(ctx), c.path, c.args...)
	p.cmd.Env, p.cmd.Dir = c.env, c.dir
	p.cmd.Stdout, p.cmd.Stderr = p.tail, p.tail
	p.cmd.WaitDelay = outputGrace
	p.cmd.SysProcAttr = attributes(c.as, c.death)
	started := make(chan error)
	go p.own(started)
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start %s (%s): %w", c.name, c.path, err)
	}
	return p, nil
}

// own forks the process and waits for it, all on one thread: Linux sends the parent-death signal
// when the forking thread ends, not the process, so that thread must live as long as the server.
func (p *process) own(started chan<- error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	err := p.cmd.Start()
	started <- err
	if err != nil {
		return
	}
	p.err = p.cmd.Wait()
	close(p.exited)
}

// runToEnd runs c and returns an error with the end of its output unless it exits with 0.
func runToEnd(ctx context.Context, c command) error {
	p, err := startProcess(ctx, c)
	if err != nil {
		return err
	}
	select {
	case <-p.exited:
	case <-ctx.Done():
		p.kill()
		return fmt.Errorf("run %s: %w", c.name, ctx.Err())
	}
	if p.err != nil {
		return p.failure(p.err)
	}
	return nil
}

// stop sends sig and waits for the end; a process that has not gone when ctx is done is killed.
func (p *process) stop(ctx context.Context, sig os.Signal) error {
	if err := p.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("send %v to %s (pid %d): %w", sig, p.name, p.pid(), err)
	}
	select {
	case <-p.exited:
		return nil
	case <-ctx.Done():
		p.kill()
		return p.failure(fmt.Errorf("did not stop on %v and was killed: %w", sig, ctx.Err()))
	}
}

// kill ends the process at once and waits until it is gone.
func (p *process) kill() {
	_ = p.cmd.Process.Kill() // the only error is that it is gone already
	<-p.exited
}

func (p *process) pid() int { return p.cmd.Process.Pid }

// running tells whether the process has not ended yet; nil is one that was never started.
func (p *process) running() bool {
	if p == nil {
		return false
	}
	select {
	case <-p.exited:
		return false
	default:
		return true
	}
}

// ended is the error of a process that ended by itself; call it only after exited is closed.
func (p *process) ended() error {
	if p.err == nil {
		return p.failure(errors.New("exited with status 0"))
	}
	return p.failure(p.err)
}

// failure adds what the process wrote last to err.
func (p *process) failure(err error) error {
	return fmt.Errorf("%s: %w; its last output:\n%s", p.name, err, p.tail)
}

// waitReady calls probe until it returns nil, the process ends or ctx is done.
func (p *process) waitReady(ctx context.Context, probe func(context.Context) error) error {
	const pause = 20 * time.Millisecond // a start takes 100 ms at best
	timer := time.NewTimer(0)
	defer timer.Stop()
	last := errors.New("not probed yet")
	for {
		select {
		case <-p.exited:
			return p.ended()
		case <-ctx.Done():
			return p.failure(fmt.Errorf("not ready: %w (last answer: %w)", ctx.Err(), last))
		case <-timer.C:
		}
		if last = probe(ctx); last == nil {
			return nil
		}
		timer.Reset(pause)
	}
}
