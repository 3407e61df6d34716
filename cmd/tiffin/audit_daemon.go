package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"syscall"
	"time"

	"example.com/tiffin/cdc"
	"example.com/tiffin/cmd/internal/daemon"
)

// auditSilence is how long a daemon may say nothing: it says every second how far it is, once
// it has begun, and a refusal comes at once.
const auditSilence = 30 * time.Second

// errNobody says that no daemon answers.
var errNobody = errors.New("no daemon answers")

// daemonAt is the endpoint's address of a daemon on this machine that listens so; empty when
// there is none to ask.
func daemonAt(listen string) string {
	host, port, err := net.SplitHostPort(listen)
	if err != nil || port == "0" {
		return ""
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	return "http://" + net.JoinHostPort(host, port)
}

// auditLine tells the lines of a daemon's answer apart.
type auditLine struct {
	OK         *bool  `json:"ok"`
	Error      string `json:"error"`
	Difference string `json:"difference"`
}

// auditRunning has a daemon audit its index; one that is silent for too long is given up.
func auditRunning(ctx context.Context, base string, silence time.Duration, to auditTo) (daemon.AuditSummary, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	silent := time.AfterFunc(silence, cancel)
	defer silent.Stop()
	address, err := url.JoinPath(base, "audit")
	if err != nil {
		return daemon.AuditSummary{}, fmt.Errorf("daemon %q: %w", base, err)
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, address, nil)
	if err != nil {
		return daemon.AuditSummary{}, fmt.Errorf("daemon %q: %w", base, err)
	}
	request.Host = "localhost"     // the daemon answers no name that may have been pointed at it, whatever this machine is called
	transport := &http.Transport{} // no proxy: an audit is for this machine
	defer transport.CloseIdleConnections()
	response, err := (&http.Client{Transport: transport}).Do(request)
	if errors.Is(err, syscall.ECONNREFUSED) {
		return daemon.AuditSummary{}, fmt.Errorf("%w on %s", errNobody, base)
	}
	var summary daemon.AuditSummary
	if err == nil {
		defer func() { _ = response.Body.Close() }()
		silent.Reset(silence)
		if response.StatusCode != http.StatusOK {
			return daemon.AuditSummary{}, fmt.Errorf("daemon on %s: %s", base, refusal(response))
		}
		summary, err = readAudit(response.Body, to, func() { silent.Reset(silence) })
		if err == nil {
			return summary, nil
		}
	}
	if errors.Is(err, context.Canceled) && !silent.Stop() {
		err = fmt.Errorf("it says nothing for %s: does it hang, or is it stopped?", silence)
	}
	return summary, fmt.Errorf("daemon on %s: %w", base, err)
}

// refusal is why a daemon made no audit.
func refusal(response *http.Response) string {
	body, err := io.ReadAll(io.LimitReader(response.Body, 1<<16))
	var line auditLine
	if err == nil && json.Unmarshal(body, &line) == nil && line.Error != "" {
		return line.Error
	}
	return fmt.Sprintf("answers %s: an older tiffin, or another program? --fresh does without it", response.Status)
}

// readAudit reads an answer to its last line.
func readAudit(body io.Reader, to auditTo, heard func()) (daemon.AuditSummary, error) {
	lines := bufio.NewReader(body)
	for {
		text, err := lines.ReadBytes('\n')
		if err != nil {
			return daemon.AuditSummary{}, fmt.Errorf("the daemon's answer ends early: %w", err)
		}
		heard()
		var line auditLine
		if err := json.Unmarshal(text, &line); err != nil {
			return daemon.AuditSummary{}, fmt.Errorf("the daemon's answer %q: %w", bytes.TrimSpace(text), err)
		}
		switch {
		case line.Error != "":
			return daemon.AuditSummary{}, errors.New(line.Error)
		case line.OK != nil:
			_, _ = io.Copy(io.Discard, lines) // the answer's end says that the daemon would make another audit
			return decode[daemon.AuditSummary](text)
		case line.Difference != "":
			err = pass(text, to.found)
		default:
			err = pass(text, func(p cdc.AuditProgress) error { to.progress(p); return nil })
		}
		if err != nil {
			return daemon.AuditSummary{}, err
		}
	}
}

func decode[T any](text []byte) (T, error) {
	var line T
	err := json.Unmarshal(text, &line)
	return line, err
}

func pass[T any](text []byte, to func(T) error) error {
	line, err := decode[T](text)
	if err != nil {
		return err
	}
	return to(line)
}

// auditTo is where an audit's lines go.
type auditTo struct {
	found    func(cdc.Difference) error
	progress func(cdc.AuditProgress)
}

// progressOn writes how far it is on one line of a terminal.
func progressOn(w io.Writer) func(cdc.AuditProgress) {
	return func(p cdc.AuditProgress) {
		_, _ = fmt.Fprintf(w, "\r%s: %d rows read, %d restaurants compared%s", p.Phase, p.Rows, p.Restaurants, strings.Repeat(" ", 8))
	}
}
