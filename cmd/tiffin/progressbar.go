package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"example.com/tiffin/stream"
)

// progressBar shows how far a verification is, on one line of a terminal; elsewhere nothing.
type progressBar struct {
	out  io.Writer // nil for no terminal
	from *stream.Progress

	mu    sync.Mutex
	shown bool
	begun time.Time
	pass  int64
}

// barEvery is often enough to be seen moving.
const barEvery = 200 * time.Millisecond

func newProgressBar(out io.Writer, from *stream.Progress) *progressBar {
	b := &progressBar{from: from}
	if isTerminal(out) {
		b.out = out
	}
	return b
}

// run draws until ctx ends, and leaves an empty line.
func (b *progressBar) run(ctx context.Context) {
	if b.out == nil {
		return
	}
	tick := time.NewTicker(barEvery)
	defer tick.Stop()
	for {
		select {
		case now := <-tick.C:
			b.draw(now)
		case <-ctx.Done():
			b.clear()
			return
		}
	}
}

// clear takes the bar away, so that a line can be written in its place.
func (b *progressBar) clear() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.shown {
		_, _ = io.WriteString(b.out, "\r\x1b[K") // ECMA-48: EL
		b.shown = false
	}
}

func (b *progressBar) draw(now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	_, _, _, _, _, pass := b.from.Now()
	if pass != b.pass {
		b.pass, b.begun = pass, now
	}
	// No wrapping while it is written (DECAWM), however narrow the terminal is.
	_, _ = io.WriteString(b.out, "\r\x1b[K\x1b[?7l"+barLine(b.from, now.Sub(b.begun))+"\x1b[?7h")
	b.shown = true
}

// barLine is the bar's text after some time in the pass.
func barLine(p *stream.Progress, spent time.Duration) string {
	rows, rowsAll, records, recordsAll, differences, pass := p.Now()
	if pass == 0 {
		return "waiting for messages in flight"
	}
	what := "comparing"
	if pass > 1 {
		what = fmt.Sprintf("naming differences, pass %d", pass-1)
	}
	share := 0.0
	if all := rowsAll + recordsAll; all > 0 {
		share = min(1, float64(rows+records)/float64(all))
	}
	const width = 30
	full := int(share * width)
	line := fmt.Sprintf("%s ▕%s%s▏ %3.0f %%  %d rows, %d records", what, strings.Repeat("█", full), strings.Repeat(" ", width-full), 100*share, rows, records)
	if share > 0.02 && share < 1 {
		left := time.Duration(float64(spent) * (1 - share) / share)
		line += fmt.Sprintf(", %s left", left.Round(time.Second))
	}
	if differences > 0 {
		line += fmt.Sprintf(", %d differences", differences)
	}
	return line
}
