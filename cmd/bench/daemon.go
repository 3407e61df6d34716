package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// tiffin is the daemon as a process of its own.
type tiffin struct {
	cmd    *exec.Cmd
	log    bytes.Buffer // its stderr; read it only after exited is closed
	exited chan struct{}
	err    error // how it ended; read only after exited is closed
	url    string
}

// findTiffin returns the program to measure: the one named, the one beside this program, or one
// built into dir from the module that the working directory is in.
func findTiffin(ctx context.Context, o options, dir string) (string, error) {
	if o.tiffin != "" {
		return o.tiffin, nil
	}
	if self, err := os.Executable(); err == nil {
		beside := filepath.Join(filepath.Dir(self), "tiffin")
		if _, err := os.Stat(beside); err == nil {
			return beside, nil
		}
	}
	built := filepath.Join(dir, "tiffin")
	out, err := exec.CommandContext(ctx, "go", "build", "-o", built, "example.com/tiffin/cmd/tiffin").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("build tiffin: %w; run bench inside the module or name the program by --tiffin\n%s", err, out)
	}
	return built, nil
}

// startTiffin runs "tiffin run" with these settings only; nothing of this environment reaches it.
func startTiffin(ctx context.Context, program string, s *servers) (*tiffin, error) {
	address, err := freeAddress(ctx)
	if err != nil {
		return nil, err
	}
	t := &tiffin{exited: make(chan struct{}), url: "http://" + address}
	t.cmd = exec.CommandContext(context.WithoutCancel(ctx), program, "run")
	t.cmd.Env = []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + os.Getenv("HOME"),
		"TIFFIN_SOURCE_DSN=" + s.source.DSN(sourceDatabase), "TIFFIN_FEEDBACK_DSN=" + s.feedback.DSN(feedbackDatabase),
		"TIFFIN_KAFKA_BROKERS=" + strings.Join(s.kafka.Brokers(), ","), "TIFFIN_KAFKA_START=earliest",
		"TIFFIN_KAFKA_INPUT=" + inputTopic, "TIFFIN_KAFKA_OUTPUT=" + outputTopic, "TIFFIN_KAFKA_DEAD_LETTER=" + deadLetterTopic,
		"TIFFIN_KAFKA_GROUP=" + group, "TIFFIN_DELIVERY_MODE=exactly_once", "TIFFIN_HTTP_LISTEN=" + address,
	}
	t.cmd.Stderr = &t.log
	t.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // Ctrl-C is for bench, which then stops it
	if err := t.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", program, err)
	}
	go func() {
		t.err = t.cmd.Wait()
		close(t.exited)
	}()
	return t, nil
}

// stop asks the daemon to stop and returns the error of one that fails to.
func (t *tiffin) stop() error {
	_ = t.cmd.Process.Signal(syscall.SIGTERM) // gone already: its exit tells
	timer := time.NewTimer(20 * time.Second)
	defer timer.Stop()
	select {
	case <-t.exited:
	case <-timer.C:
		_ = t.cmd.Process.Kill()
		<-t.exited
		return t.failure(errors.New("did not stop within 20 s and was killed"))
	}
	if t.err != nil {
		return t.failure(t.err)
	}
	return nil
}

// failure adds the end of the log; call it only after exited is closed.
func (t *tiffin) failure(err error) error {
	log := t.log.Bytes()
	const most = 4 << 10
	return fmt.Errorf("tiffin run: %w\n%s", err, log[max(0, len(log)-most):])
}

// waitReady returns the last moment at which the daemon was not ready yet, so that a measurement
// that begins there leaves nothing out.
func (t *tiffin) waitReady(ctx context.Context) (time.Time, error) {
	client := http.Client{Timeout: time.Second}
	defer client.CloseIdleConnections()
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	for {
		asked := time.Now()
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, t.url+"/readyz", nil)
		if err != nil {
			return asked, err
		}
		if response, err := client.Do(request); err == nil {
			_ = response.Body.Close()
			if response.StatusCode == http.StatusOK {
				return asked.Add(-5 * time.Millisecond), nil
			}
		}
		select {
		case <-t.exited:
			return asked, t.failure(errors.New("ended before it was ready"))
		case <-ctx.Done():
			return asked, fmt.Errorf("wait for the daemon: %w", ctx.Err())
		case <-ticker.C:
		}
	}
}

// freeAddress is a port that nobody listens on now.
func freeAddress(ctx context.Context) (string, error) {
	var config net.ListenConfig
	l, err := config.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("find a free port: %w", err)
	}
	return l.Addr().String(), l.Close()
}
