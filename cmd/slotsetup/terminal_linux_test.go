package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// On a terminal drop and apply ask, and take yes for an answer, and nothing else.
func TestTerminalIsAsked(t *testing.T) {
	t.Parallel()
	db, file := source(t)
	if status, out, errs := execute(t, "apply", "-c", file); status != 0 {
		t.Fatal(out, errs)
	}
	left := func() (n int) {
		if err := db.Connect(t).QueryRow(t.Context(), `SELECT (SELECT count(*) FROM pg_publication) + (SELECT count(*) FROM pg_replication_slots WHERE slot_name = $1)`, db.Slot).Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	db.Exec(t, `ALTER TABLE subscribers_restaurants REPLICA IDENTITY NOTHING`)
	for _, step := range []struct {
		command, typed string
		status, left   int
		says           string
	}{
		{"apply", "no\n", 1, 2, "left     ALTER TABLE"},
		{"apply", "yes\n", 0, 2, "ready    1 statements run"},
		{"apply", "", 0, 2, "ready    0 statements run"}, // nothing to ask
		{"drop", "no\n", 1, 2, "nothing was removed"},
		{"drop", "y\n", 1, 2, "nothing was removed"},
		{"drop", "\x04", 1, 2, "nothing was removed"}, // the end of what is typed
		{"drop", "yes\n", 0, 0, "done     DROP PUBLICATION"},
		{"drop", "", 0, 0, "nothing to drop"},
	} {
		status, out, errs := executeWith(t, typing(t, step.typed), step.command, "-c", file)
		if status != step.status || !strings.Contains(out+errs, step.says) {
			t.Errorf("%s, typed %q: exit %d, want %d and %q\n%s%s", step.command, step.typed, status, step.status, step.says, out, errs)
		}
		if asked := strings.Contains(errs, "Type yes to go on"); asked != (step.typed != "") {
			t.Errorf("%s, typed %q: asked %v\n%s%s", step.command, step.typed, asked, out, errs)
		}
		if n := left(); n != step.left {
			t.Errorf("%s, typed %q: %d of slot and publication are left, want %d", step.command, step.typed, n, step.left)
		}
	}
}

// typing returns a terminal at which this was typed.
func typing(t *testing.T, text string) io.Reader {
	t.Helper()
	keyboard, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = keyboard.Close() })
	if err := unix.IoctlSetPointerInt(int(keyboard.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(keyboard.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	terminal, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = terminal.Close() })
	if _, err := keyboard.WriteString(text); err != nil {
		t.Fatal(err)
	}
	return terminal
}
