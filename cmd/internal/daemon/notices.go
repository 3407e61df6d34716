package daemon

import (
	"fmt"
	"strings"
	"time"
)

// grace is what a start that still waits for a server asks of the service manager, again at each
// look: a start may take as long as the outage of a server does.
const grace = 30 * time.Second

// notices are what the service manager is told (sd_notify(3)): ready, when it is so for the first
// time; alive, at each look; why not ready; stopping. Used by one goroutine.
type notices struct {
	tell   func(state string) // nil: nobody listens
	ready  bool               // has ever been
	status string             // told last
}

// look is called at every look at readiness. While something hangs nothing says alive, and the
// watchdog of the service manager ends the daemon; the same if nobody comes here any more.
func (n *notices) look(reasons, hangs []string) {
	if n.tell == nil {
		return
	}
	var states []string
	status := "ready"
	switch {
	case len(hangs) > 0:
		status = strings.Join(hangs, "; ")
	case len(reasons) > 0:
		status = "not ready: " + strings.Join(reasons, "; ")
	}
	if len(hangs) == 0 {
		states = append(states, "WATCHDOG=1")
	}
	switch {
	case len(hangs) > 0:
	case len(reasons) == 0 && !n.ready:
		n.ready = true
		states = append(states, "READY=1")
	case !n.ready:
		states = append(states, fmt.Sprintf("EXTEND_TIMEOUT_USEC=%d", grace.Microseconds()))
	}
	if status != n.status {
		n.status = status
		states = append(states, "STATUS="+strings.ReplaceAll(status, "\n", " "))
	}
	if len(states) > 0 {
		n.tell(strings.Join(states, "\n"))
	}
}

// noticeStop tells that the daemon was asked to stop.
func (o Options) noticeStop() {
	if o.Notify != nil {
		o.Notify("STOPPING=1\nSTATUS=finishing the batch in hand")
	}
}
