package devstack

import (
	"bytes"
	"io"
	"sync"
)

// tailBytes of output are shown when a start fails: a Java stack trace with its causes fits.
const tailBytes = 16 << 10

// tail keeps the end of what a process writes and passes all of it on.
type tail struct {
	to io.Writer // may be nil

	mu   sync.Mutex
	kept []byte
}

func newTail(to io.Writer) *tail { return &tail{to: to} }

// Write never fails: a process must not die because its log cannot be written.
func (t *tail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.kept = append(t.kept, b...)
	if len(t.kept) > 2*tailBytes {
		t.kept = append(t.kept[:0], t.kept[len(t.kept)-tailBytes:]...)
	}
	if t.to != nil {
		_, _ = t.to.Write(b)
	}
	return len(b), nil
}

// String returns whole lines, the last tailBytes of them.
func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	b := t.kept
	if len(b) > tailBytes {
		b = b[len(b)-tailBytes:]
		if i := bytes.IndexByte(b, '\n'); i >= 0 {
			b = b[i+1:]
		}
	}
	return string(bytes.TrimRight(b, "\n"))
}
