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

// look is called at every look at readiness. A daemon that hangs does not come here: the watchdog
// of the service manager notices.
func (n *notices) look(reasons []string) {
	if n.tell == nil {
		return
	}
	states := []string{"WATCHDOG=1"}
	status := "ready"
	if len(reasons) > 0 {
		status = "not ready: " + strings.Join(reasons, "; ")
	}
	switch {
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
	n.tell(strings.Join(states, "\n"))
}

// noticeStop tells that the daemon was asked to stop.
func (o Options) noticeStop() {
	if o.Notify != nil {
		o.Notify("STOPPING=1\nSTATUS=finishing the batch in hand")
	}
}
