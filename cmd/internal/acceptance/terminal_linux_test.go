package acceptance

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// On a terminal a verification shows how far it is and how long it will take; its verdict goes to
// stdout, in words, and nothing of the bar does.
func TestVerifyShowsItsProgressOnATerminal(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	const messages, fan = 300, 1000 // a second or more to compare
	w.source.Exec(t, fmt.Sprintf(`INSERT INTO subscribers_restaurants (client_id, restaurant_id) SELECT i, 'r' FROM generate_series(1, %d) i`, fan))
	now := time.Now().Unix()
	all := make([]*campaign, messages)
	for i := range all {
		all[i] = message("r", fmt.Sprint(i), strings.Repeat("x", 100), now-1000, now+100_000, nil)
	}
	w.publish(all...)
	w.untilNow()
	var out bytes.Buffer
	shown := w.verifyOnTerminal(&out, 0)
	if want := fmt.Sprintf("%[1]s/0 from 0 to %[2]d\n%[2]d messages, %[3]d rows, %[3]d records, 0 dead letters compared: 0 differences\n",
		w.topic.in, messages, messages*fan); out.String() != want {
		t.Errorf("stdout\n got %q\nwant %q", out.String(), want)
	}
	bar := regexp.MustCompile(`\r\x1b\[K\x1b\[\?7lcomparing ▕(█*) *▏ +(\d+) %  \d+ rows, \d+ records(, \S+ left)?\x1b\[\?7h`)
	drawn := bar.FindAllStringSubmatch(shown, -1)
	if !slices.ContainsFunc(drawn, func(m []string) bool { return m[3] != "" }) {
		t.Errorf("no bar with the time that is left, of %d: %q", len(drawn), shown)
	}
	last := -1
	for _, m := range drawn {
		percent, _ := strconv.Atoi(m[2]) // digits
		if full := strings.Count(m[1], "█"); percent < last || percent > 100 || full > 30*(percent+1)/100 || full < 30*(percent-1)/100-1 {
			t.Errorf("%d %% with %d of 30 cells behind %d %%", percent, full, last)
		}
		last = percent
	}
	if !strings.HasSuffix(shown, "\r\x1b[K") {
		t.Errorf("the bar stays: %q", shown[max(0, len(shown)-80):])
	}
	w.feedback.Exec(t, `DELETE FROM subscribers_feedback WHERE id = 5`)
	out.Reset()
	shown = w.verifyOnTerminal(&out, 1)
	if !strings.Contains(out.String(), "compared: 1 differences\n") || strings.Contains(out.String(), "\x1b") || !strings.Contains(shown, "the sinks differ in 1 places") {
		t.Errorf("a difference: %q %q", out.String(), shown)
	}
}

// verifyOnTerminal runs the command with a terminal for its stderr and returns what it wrote there.
func (w *world) verifyOnTerminal(out *bytes.Buffer, status int) string {
	w.t.Helper()
	path, err := binary()
	if err != nil {
		w.t.Fatal(err)
	}
	terminal, line := openTerminal(w.t)
	cmd := exec.CommandContext(w.t.Context(), path, "verify")
	cmd.Env, cmd.Stdout, cmd.Stderr = w.env, out, line
	if err := cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
	_ = line.Close() // the process has it
	var shown bytes.Buffer
	_, _ = shown.ReadFrom(terminal) // ends with EIO once nobody has the other end open (pty(7))
	_ = cmd.Wait()                  // the exit status tells
	if got := cmd.ProcessState.ExitCode(); got != status {
		w.t.Errorf("exit status %d, want %d:\n%s", got, status, shown.String())
	}
	return shown.String()
}

// openTerminal opens both ends of a pseudoterminal (pts(4)).
func openTerminal(t *testing.T) (terminal, line *os.File) {
	t.Helper()
	terminal, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = terminal.Close() })
	number, err := unix.IoctlGetInt(int(terminal.Fd()), unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(int(terminal.Fd()), unix.TIOCSPTLCK, 0)
	}
	if err != nil {
		t.Fatalf("make a pseudoterminal: %v", err)
	}
	if line, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0); err != nil {
		t.Fatal(err)
	}
	return terminal, line
}
