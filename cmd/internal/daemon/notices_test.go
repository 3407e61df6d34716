package daemon

import (
	"slices"
	"testing"
)

// A service manager must neither give up a start that waits for a server, nor take a daemon for
// ready that has never been, nor hear the same again each second, nor that one which hangs is alive.
func TestServiceManagerHearsEachChangeOnce(t *testing.T) {
	t.Parallel()
	var heard []string
	n := notices{tell: func(state string) { heard = append(heard, state) }}
	for _, reasons := range [][]string{{"index loading"}, {"index loading"}, {"no broker", "a\nb"}, nil, nil, {"no broker"}, nil} {
		n.look(reasons, nil)
	}
	n.look(nil, []string{"the reader hangs"})
	n.look(nil, []string{"the reader hangs"}) // told nothing: the watchdog runs out
	n.look(nil, nil)
	want := []string{
		"WATCHDOG=1\nEXTEND_TIMEOUT_USEC=30000000\nSTATUS=not ready: index loading",
		"WATCHDOG=1\nEXTEND_TIMEOUT_USEC=30000000",
		"WATCHDOG=1\nEXTEND_TIMEOUT_USEC=30000000\nSTATUS=not ready: no broker; a b",
		"WATCHDOG=1\nREADY=1\nSTATUS=ready",
		"WATCHDOG=1",
		"WATCHDOG=1\nSTATUS=not ready: no broker",
		"WATCHDOG=1\nSTATUS=ready",
		"STATUS=the reader hangs",
		"WATCHDOG=1\nSTATUS=ready",
	}
	if !slices.Equal(heard, want) {
		t.Errorf("heard %q, want %q", heard, want)
	}
}
