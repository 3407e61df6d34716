package testbed

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"runtime"
	"sync"
	"syscall"
	"time"
)

// Process is a contender that runs. Its methods may be called from several goroutines.
type Process struct {
	name   string
	cmd    *exec.Cmd
	exited chan struct{}
	err    error // how it ended; read only after exited is closed

	mu  sync.Mutex
	log bytes.Buffer // the end of its stderr
}

// logKept is how much of a contender's log is kept, for errors.
const logKept = 256 << 10

// Write implements io.Writer for the process's stderr.
func (p *Process) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.log.Len() > logKept {
		p.log.Next(p.log.Len() - logKept/2)
	}
	return p.log.Write(b)
}

// start runs a program with this environment and nothing of our own. Ctrl-C is for bench, which then
// stops it, with all its children.
func start(ctx context.Context, name string, env []string, stdout io.Writer, path string, args ...string) (*Process, error) {
	p := &Process{name: name, exited: make(chan struct{})}
	p.cmd = exec.CommandContext(context.WithoutCancel(ctx), path, args...)
	p.cmd.Env, p.cmd.Stdout, p.cmd.Stderr = env, stdout, p
	p.cmd.SysProcAttr = attributes()
	p.cmd.WaitDelay = 5 * time.Second // for children that hold the output open
	started := make(chan error)
	go p.own(started)
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start %s (%s): %w", name, path, err)
	}
	return p, nil
}

// own starts the process and waits for it, all on one thread: Linux sends the signal of a parent's
// death when the thread that forked ends.
func (p *Process) own(started chan<- error) {
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

// PID is its process id.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Exited is closed once the process is gone.
func (p *Process) Exited() <-chan struct{} { return p.exited }

// Stop asks it to stop (SIGTERM) and returns the error of one that fails to; after patience it is
// killed.
func (p *Process) Stop(patience time.Duration) error {
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // gone already: its exit tells
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-p.exited:
	case <-timer.C:
		p.Kill()
		return p.Failure(fmt.Errorf("did not stop within %v and was killed", patience))
	}
	if p.err != nil {
		return p.Failure(p.err)
	}
	return nil
}

// Kill ends it and its children at once (SIGKILL) and waits until it is gone.
func (p *Process) Kill() {
	_ = syscall.Kill(-p.PID(), syscall.SIGKILL) // gone already: its exit tells
	<-p.exited
}

// Ended is the error of a process that should still run.
func (p *Process) Ended(when string) error {
	return p.Failure(errors.Join(fmt.Errorf("ended %s", when), p.err))
}

// Failure adds the end of the log to an error.
func (p *Process) Failure(err error) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	log := p.log.Bytes()
	const most = 4 << 10
	return fmt.Errorf("%s: %w\n%s", p.name, err, log[max(0, len(log)-most):])
}
