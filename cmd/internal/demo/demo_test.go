package demo

import (
	"context"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// The demo delivers, keeps its promises, ends with equal sinks and leaves neither goroutine nor
// file; every line that it tells people to try works while it runs.
func TestDemoShowsWhatItPromises(t *testing.T) {
	own := t.TempDir()
	if err := os.Chmod(filepath.Dir(own), 0o755); err != nil { // for the server's user, when root
		t.Fatal(err)
	}
	t.Setenv("TMPDIR", own)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	asked, ctrlC := context.WithCancel(ctx)
	defer ctrlC()
	printed, out := io.Pipe()
	done := make(chan error, 1)
	go func() {
		err := Run(asked, options(out))
		_ = out.CloseWithError(err) // what reads it tells why it ended
		done <- err
	}()
	said := &lines{from: printed}
	invited := said.until(t, "Ctrl-C ends the demo")
	said.until(t, "  agree") // a sample with both sinks counted
	go func() { _, _ = io.Copy(&said.rest, printed); close(said.over) }()
	try(ctx, t, invited)
	ctrlC()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	<-said.over
	if end := said.rest.String(); !strings.Contains(end, "equal, row for row") || !strings.Contains(end, " 0 missed;") || strings.Contains(end, "\n0 campaigns") {
		t.Errorf("the last words:\n%s", end)
	}
	if left, err := os.ReadDir(own); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v %v", left, err)
	}
}

func options(out io.Writer) Options {
	return Options{Out: out, Log: slog.New(slog.DiscardHandler), Version: "test", Campaigns: 20, Changes: 50}
}

// try runs the invitation's commands in order. kcat may be missing; then its lines are not tried,
// and with them the search for the row they lead to.
func try(ctx context.Context, t *testing.T, invitation string) {
	t.Helper()
	_, err := exec.LookPath("kcat")
	hasKcat := err == nil
	for line := range strings.Lines(invitation) {
		line = strings.TrimSpace(line)
		switch {
		case strings.HasPrefix(line, "#"), !hasKcat && strings.Contains(line, "kcat"):
			continue
		case strings.Contains(line, "-o end"): // runs until its reader ends
			line = "timeout 20 " + line + " -c 1"
		case strings.Contains(line, "kcat -C"), strings.Contains(line, "SELECT"):
			line = "for i in $(seq 100); do out=$(" + line + "); echo \"$out\" | grep -q -e '\"me\"' -e ' me ' -e delivered && exit 0; sleep 0.1; done; exit 1"
		case !strings.Contains(line, "kcat") && !strings.Contains(line, "psql"):
			continue
		}
		if !hasKcat && strings.Contains(line, "subscribers_feedback") {
			continue
		}
		if out, err := exec.CommandContext(ctx, "sh", "-c", line).CombinedOutput(); err != nil {
			t.Errorf("%s\n%v: %s", line, err, out)
		}
	}
}

// lines reads what the demo prints.
type lines struct {
	from io.Reader
	rest strings.Builder
	over chan struct{}
}

// until returns what is printed up to the text.
func (l *lines) until(t *testing.T, text string) string {
	t.Helper()
	if l.over == nil {
		l.over = make(chan struct{})
	}
	var all strings.Builder
	b := make([]byte, 4096)
	for !strings.Contains(all.String(), text) {
		n, err := l.from.Read(b)
		all.Write(b[:n])
		if err != nil {
			t.Fatalf("%v before %q was printed:\n%s", err, text, &all)
		}
	}
	return all.String()
}
