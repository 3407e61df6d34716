package soak

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"
)

// daemon is one "tiffin run", over all its lives. Its methods may be called from several goroutines.
type daemon struct {
	name    string // of its slot and of the group's member
	program string
	env     []string
	log     *os.File
	fail    func(error) // told when it ends without being asked to

	mu    sync.Mutex
	life  *life // nil before the first
	lives int
}

// life is one process.
type life struct {
	cmd     *exec.Cmd
	exited  chan struct{}
	err     error // how it ended; read only after exited is closed
	mu      sync.Mutex
	expects bool   // its end is asked for
	url     string // of its endpoint; empty until it said so
	tail    []byte // what it logged last
}

// start begins a new life unless the last one goes on.
func (d *daemon) start() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.life != nil && d.life.running() {
		return nil
	}
	d.lives++
	if _, err := fmt.Fprintf(d.log, "=== %s, life %d, %s\n", d.name, d.lives, time.Now().UTC().Format(time.RFC3339Nano)); err != nil {
		return fmt.Errorf("write the log of %s: %w", d.name, err)
	}
	l := &life{exited: make(chan struct{})}
	l.cmd = exec.CommandContext(context.Background(), d.program, "run")
	l.cmd.Env = d.env
	l.cmd.Stderr = &logWriter{file: d.log, life: l}
	l.cmd.SysProcAttr = childAttributes()
	started := make(chan error)
	go d.own(l, started)
	if err := <-started; err != nil {
		return fmt.Errorf("start %s: %w", d.program, err)
	}
	d.life = l
	return nil
}

// own forks the process and waits for its end on one thread: the parent-death signal is the
// forking thread's.
func (d *daemon) own(l *life, started chan<- error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	err := l.cmd.Start()
	started <- err
	if err != nil {
		return
	}
	l.err = l.cmd.Wait()
	close(l.exited)
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.expects {
		d.fail(fmt.Errorf("%s ended by itself (%w); its last words:\n%s", d.name, cause(l.err), l.tail))
	}
}

func cause(err error) error {
	if err == nil {
		return errors.New("exit status 0")
	}
	return err
}

func (l *life) running() bool {
	select {
	case <-l.exited:
		return false
	default:
		return true
	}
}

func (l *life) expectEnd() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.expects = true
}

func (d *daemon) current() *life {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.life
}

// kill ends the process by SIGKILL and waits until it is gone.
func (d *daemon) kill() {
	if l := d.current(); l != nil {
		l.expectEnd()
		_ = l.cmd.Process.Kill() // gone already: as good
		<-l.exited
	}
}

// stopLimit is longer than a daemon that is asked to stop gives its batch in hand (40 s).
const stopLimit = 60 * time.Second

// stop asks the process to end. A daemon that is out of its sinks' reach may say that it could not
// finish what it had in hand; one that hangs is an error.
func (d *daemon) stop(orderly bool) error {
	l := d.current()
	if l == nil {
		return nil
	}
	l.expectEnd()
	_ = l.cmd.Process.Signal(syscall.SIGTERM) // gone already: its status tells
	timer := time.NewTimer(stopLimit)
	defer timer.Stop()
	select {
	case <-l.exited:
	case <-timer.C:
		d.kill()
		return fmt.Errorf("%s did not stop within %v of SIGTERM", d.name, stopLimit)
	}
	if orderly && l.err != nil {
		return fmt.Errorf("%s stopped with %w; its last words:\n%s", d.name, l.err, l.lastWords())
	}
	return nil
}

// suspend and resume are SIGSTOP and SIGCONT.
func (d *daemon) suspend() { d.signal(syscall.SIGSTOP) }
func (d *daemon) resume()  { d.signal(syscall.SIGCONT) }

func (d *daemon) signal(s os.Signal) {
	if l := d.current(); l != nil {
		_ = l.cmd.Process.Signal(s) // gone already: nothing to do
	}
}

// reasons is what /readyz says; nil when it is ready.
func (d *daemon) reasons(ctx context.Context) []string {
	l := d.current()
	if l == nil || !l.running() {
		return []string{"does not run"}
	}
	url := l.endpoint()
	if url == "" {
		return []string{"has not opened its endpoint yet"}
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url+"/readyz", nil)
	if err != nil {
		return []string{err.Error()}
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return []string{err.Error()}
	}
	defer func() { _ = response.Body.Close() }()
	var said struct {
		Ready   bool     `json:"ready"`
		Reasons []string `json:"reasons"`
	}
	if err := json.NewDecoder(response.Body).Decode(&said); err != nil {
		return []string{err.Error()}
	}
	if said.Ready {
		return nil
	}
	return append(said.Reasons, "not ready")
}

func (l *life) endpoint() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.url
}

func (l *life) lastWords() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return string(l.tail)
}

// logWriter keeps a life's log in the file, its end in memory, and finds the endpoint's address.
type logWriter struct {
	file *os.File
	life *life
}

const tailBytes = 4 << 10

// Write never fails: a daemon must not die of its log.
func (w *logWriter) Write(b []byte) (int, error) {
	_, _ = w.file.Write(b)
	w.life.mu.Lock()
	defer w.life.mu.Unlock()
	w.life.tail = append(w.life.tail, b...)
	if w.life.url == "" {
		if _, after, ok := bytes.Cut(w.life.tail, []byte(" http=")); ok {
			if address, _, ok := strings.Cut(string(after), "\n"); ok {
				w.life.url = "http://" + strings.TrimSpace(address)
			}
		}
	}
	if n := len(w.life.tail); n > tailBytes {
		w.life.tail = append(w.life.tail[:0], w.life.tail[n-tailBytes:]...)
	}
	return len(b), nil
}
