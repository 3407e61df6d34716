package main

import (
	"slices"
	"strings"
	"testing"
)

// The units that operators install; the second is of one process of several.
const (
	unitFile     = "deploy/systemd/tiffin.service"
	templateFile = "deploy/systemd/tiffin@.service"
)

// unitLines are the lines of a unit that mean something, a setting with its section.
func unitLines(t *testing.T, file string) (found []string) {
	t.Helper()
	section := ""
	for line := range strings.Lines(textOf(t, file)) {
		switch line = strings.TrimSpace(line); {
		case strings.HasPrefix(line, "["):
			section = line
		case line != "" && line[0] != '#':
			found = append(found, section+" "+line)
		}
	}
	return found
}

// systemd waits for what the daemon tells it, hears it from the main process alone, and ends one that hangs:
// what TestServiceManagerIsToldThatTheDaemonIsReadyAndAlive shows it to send is asked for.
func TestUnitsListenToTheDaemon(t *testing.T) {
	t.Parallel()
	for _, file := range []string{unitFile, templateFile} {
		lines := unitLines(t, file)
		for _, want := range []string{"[Service] Type=notify", "[Service] NotifyAccess=main", "[Service] WatchdogSec=60s", "[Service] Restart=on-failure", "[Service] RestartPreventExitStatus=2"} {
			if !slices.Contains(lines, want) {
				t.Errorf("%s lacks %s", file, want)
			}
		}
	}
}

// What is said of one unit holds for the other: they differ in what makes a process one of several.
func TestUnitsDifferInTheProcessAlone(t *testing.T) {
	t.Parallel()
	one, several := unitLines(t, unitFile), unitLines(t, templateFile)
	without := func(lines, others []string) []string {
		return slices.DeleteFunc(slices.Clone(lines), func(line string) bool { return slices.Contains(others, line) })
	}
	if got, want := without(one, several), []string{
		"[Unit] Description=tiffin: campaigns from Kafka to every subscriber", "[Service] User=tiffin", "[Service] StateDirectory=tiffin",
	}; !slices.Equal(got, want) {
		t.Errorf("only %s has %q", unitFile, got)
	}
	if got, want := without(several, one), []string{
		"[Unit] Description=tiffin, process %i of the group", "[Service] Environment=TIFFIN_SOURCE_SLOT=tiffin_%i TIFFIN_HTTP_LISTEN=127.0.0.%i:9464",
		"[Service] User=tiffin-%i", "[Service] StateDirectory=tiffin-%i",
	}; !slices.Equal(got, want) {
		t.Errorf("only %s has %q", templateFile, got)
	}
}
