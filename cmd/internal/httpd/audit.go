package httpd

import (
	"context"
	"encoding/json"
	"net"
	"net/http"
	"strings"
	"time"
)

// Auditor compares the daemon's index with its table.
type Auditor interface {
	// Audit calls tell for every line of its answer, the last of which is a summary with
	// "ok", and progress often, with how far it is. An error is told by the endpoint. It is
	// called from one goroutine at a time.
	Audit(ctx context.Context, tell func(line any) error, progress func(line any)) error
}

// auditBeat is how often an audit says how far it is, so that whoever asked for it can tell a
// long one from a daemon that hangs.
const auditBeat = time.Second

// refusal is the answer, or the last line, of an audit that could not be made.
type refusal struct {
	OK    bool   `json:"ok"`
	Error string `json:"error"`
}

// audit streams lines of JSON. It reads a whole table and names clients, so it answers nobody
// but programs of this machine: no other address, no proxy that says so, and no page in a browser.
func (s *Server) audit(w http.ResponseWriter, r *http.Request) {
	if !private(r) {
		refuse(w, http.StatusForbidden, "an audit is for programs of this machine: ask 127.0.0.1 or localhost, without a proxy")
		return
	}
	if !s.auditing.CompareAndSwap(false, true) {
		refuse(w, http.StatusConflict, "another audit is under way")
		return
	}
	defer s.auditing.Store(false)
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	lines, latest := make(chan any), make(chan any, 1)
	ended := make(chan error, 1)
	go func() {
		ended <- s.cfg.Auditor.Audit(ctx, func(line any) error {
			if ctx.Err() != nil { // the select would choose at random
				return context.Cause(ctx)
			}
			select {
			case lines <- line:
				return nil
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}, func(line any) {
			select {
			case <-latest:
			default:
			}
			latest <- line
		})
	}()
	if err := s.relay(w, lines, latest, ended); err != nil {
		s.cfg.Log.Debug("audit not answered", "err", err)
		cancel()
		for { // until the auditor has ended: another may begin then
			select {
			case <-lines:
			case err := <-ended:
				s.cfg.Log.Debug("audit ended unheard", "err", err)
				return
			}
		}
	}
}

// relay writes what comes. An error is one of writing: the auditor goes on.
func (s *Server) relay(w http.ResponseWriter, lines, latest <-chan any, ended <-chan error) error {
	control := http.NewResponseController(w)
	encoder := json.NewEncoder(w)
	encoder.SetEscapeHTML(false)
	beat := time.NewTicker(auditBeat)
	defer beat.Stop()
	begun := false
	write := func(line any) error {
		if !begun {
			w.Header().Set("Content-Type", "application/x-ndjson")
			w.Header().Set("Cache-Control", "no-store")
			begun = true
		}
		if err := control.SetWriteDeadline(time.Now().Add(answerLimit)); err != nil {
			return err
		}
		if err := encoder.Encode(line); err != nil {
			return err
		}
		return control.Flush()
	}
	var progress any
	for {
		var line any
		select {
		case line = <-lines:
		case progress = <-latest:
			continue
		case <-beat.C:
			if line = progress; line == nil {
				continue
			}
		case err := <-ended:
			switch {
			case err == nil:
			case begun:
				_ = write(refusal{Error: err.Error()}) // whoever asked is told, or gone
			default:
				refuse(w, http.StatusServiceUnavailable, err.Error())
			}
			return nil
		}
		if err := write(line); err != nil {
			return err
		}
	}
}

func refuse(w http.ResponseWriter, status int, why string) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	encoder := json.NewEncoder(w)
	encoder.SetEscapeHTML(false)
	_ = encoder.Encode(refusal{Error: why}) // whoever asked is gone
}

// private reports whether somebody on this machine asks, as far as can be told: a proxy on it that
// neither names its client nor keeps the name that was asked for is one of its programs, too.
func private(r *http.Request) bool { return loopback(r) && atHome(r) }

// atHome reports whether the address that was asked for is one of this machine: a page elsewhere
// whose name was pointed at 127.0.0.1 (DNS rebinding) asks for its own.
func atHome(r *http.Request) bool {
	host := r.Host
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	ip := net.ParseIP(strings.Trim(host, "[]"))
	return strings.EqualFold(host, "localhost") || ip != nil && ip.IsLoopback()
}

// loopback reports whether a request comes from this machine, as far as can be told.
func loopback(r *http.Request) bool {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil || proxied(r.Header) {
		return false
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}

// proxied reports whether a proxy shows itself: RFC 7239, RFC 9110 section 7.6.3, and what nginx, Apache, HAProxy and
// Traefik send by custom.
func proxied(header http.Header) bool {
	for name := range header { // in their canonical form
		if name == "Forwarded" || name == "Via" || name == "X-Real-Ip" || strings.HasPrefix(name, "X-Forwarded-") {
			return true
		}
	}
	return false
}
