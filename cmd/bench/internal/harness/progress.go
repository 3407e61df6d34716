package harness

import (
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"
)

// voice writes progress: to a terminal with bars, else in plain lines.
type voice struct {
	begun    time.Time
	terminal bool

	mu  sync.Mutex
	out io.Writer
}

func newVoice(out io.Writer) *voice {
	file, ok := out.(*os.File)
	return &voice{begun: time.Now(), out: out, terminal: ok && term.IsTerminal(int(file.Fd()))}
}

func (v *voice) say(what string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	_, _ = fmt.Fprintf(v.out, "%7.1fs  %s\n", time.Since(v.begun).Seconds(), what) // a courtesy
}

// plainEvery is how often a bar that is none says something.
const plainEvery = 2 * time.Second

// Bar is the progress of one piece of work. Its methods may be called from any goroutine.
type Bar struct {
	voice *voice
	what  string
	total int64
	drawn *progressbar.ProgressBar // nil: no terminal

	mu   sync.Mutex
	told time.Time
}

func (v *voice) bar(total int64, what string) *Bar {
	b := &Bar{voice: v, what: what, total: total, told: time.Now()}
	if v.terminal {
		b.drawn = progressbar.NewOptions64(total, progressbar.OptionSetWriter(v.out), progressbar.OptionSetDescription(what),
			progressbar.OptionShowCount(), progressbar.OptionSetWidth(30), progressbar.OptionThrottle(100*time.Millisecond), progressbar.OptionClearOnFinish())
	}
	return b
}

// Set tells how much is done.
func (b *Bar) Set(done int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.drawn != nil {
		_ = b.drawn.Set64(min(done, b.total)) // a courtesy
		return
	}
	if now := time.Now(); now.Sub(b.told) >= plainEvery {
		b.told = now
		b.voice.say(fmt.Sprintf("%s: %s of %s", b.what, humanize.Comma(done), humanize.Comma(b.total)))
	}
}

// Done removes the bar.
func (b *Bar) Done() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.drawn != nil {
		_ = b.drawn.Finish() // a courtesy
	}
}
