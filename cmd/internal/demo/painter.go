package demo

import (
	"fmt"
	"io"
	"strings"
)

// painter shows a block of text in the place of the one before, in a terminal.
type painter struct {
	out   io.Writer
	shown int // lines
}

// show goes up to where the last block began and clears from there (ECMA-48: CPL, ED). Wrapping is
// off while it writes (DECAWM), so that a line of text is a line of the screen, however narrow.
func (p *painter) show(block string) {
	var up string
	if p.shown > 0 {
		up = fmt.Sprintf("\x1b[%dF\x1b[J", p.shown)
	}
	_, _ = fmt.Fprint(p.out, up+"\x1b[?7l"+block+"\x1b[?7h") // a closed terminal must not end the demo before its clean-up
	p.shown = strings.Count(block, "\n")
}
