package main

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"example.com/tiffin/cmd/internal/settings"
)

func textOf(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile("../../" + name)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// goreleaser itself is not at hand: what its configuration leans on must at least exist.
func TestReleaseLeansOnWhatExists(t *testing.T) {
	t.Parallel()
	config, makefile := textOf(t, ".goreleaser.yaml"), textOf(t, "Makefile")
	hooks := regexp.MustCompile(`(?m)^    - make ([a-z-]+)$`).FindAllStringSubmatch(config, -1)
	if len(hooks) != 2 {
		t.Errorf("hooks %q, want the manual pages and the licences", hooks)
	}
	for _, hook := range hooks {
		if !strings.Contains(makefile, "\n"+hook[1]+": ") {
			t.Errorf("make has no %s", hook[1])
		}
	}
	for _, source := range regexp.MustCompile(`src: "(bin/[a-z]+)/`).FindAllStringSubmatch(config, -1) {
		if !strings.Contains(makefile, "rm -rf "+source[1]+"\n") {
			t.Errorf("nothing in the Makefile makes %s anew", source[1])
		}
	}
	for _, main := range regexp.MustCompile(`main: \./(.+)`).FindAllStringSubmatch(config, -1) {
		if _, err := os.Stat("../../" + main[1]); err != nil {
			t.Error(err)
		}
	}
}

// Whatever number a process of the template unit has, its settings are valid.
func TestTemplateUnitIsValidForEveryInstance(t *testing.T) {
	t.Parallel()
	line := regexp.MustCompile(`(?m)^Environment=(.+)$`).FindStringSubmatch(textOf(t, "deploy/systemd/tiffin@.service"))
	if line == nil {
		t.Fatal("the unit sets no environment")
	}
	seen := map[string]bool{}
	for _, instance := range []string{"1", "9", "10", "99", "254"} {
		environ := append(strings.Fields(strings.ReplaceAll(line[1], "%i", instance)),
			"TIFFIN_SOURCE_DSN=postgres://u@h/d", "TIFFIN_FEEDBACK_DSN=postgres://u@h/d", "TIFFIN_KAFKA_BROKERS=b:9092")
		s, err := settings.Load(settings.Input{Environ: environ})
		if err != nil {
			t.Errorf("tiffin@%s: %v", instance, err)
			continue
		}
		if !s.HTTP.Loopback() || seen[s.HTTP.Listen] || seen[s.Source.Slot] {
			t.Errorf("tiffin@%s listens on %s, slot %s", instance, s.HTTP.Listen, s.Source.Slot)
		}
		seen[s.HTTP.Listen], seen[s.Source.Slot] = true, true
	}
}
