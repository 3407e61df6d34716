package main

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
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

// Who reads the documents of an archive finds there what they link to.
func TestArchivesHoldWhatTheirDocumentsLinkTo(t *testing.T) {
	t.Parallel()
	var held []string
	_, files, _ := strings.Cut(textOf(t, ".goreleaser.yaml"), "    files:\n")
	for _, file := range regexp.MustCompile(`(?m)^      - ([^{\n]+)$`).FindAllStringSubmatch(files, -1) {
		held = append(held, strings.ReplaceAll(file[1], "**/", "*/"))
	}
	there := func(path string) bool {
		return slices.ContainsFunc(held, func(pattern string) bool {
			match, err := filepath.Match(pattern, path)
			return err == nil && match || strings.HasPrefix(pattern, path+"/")
		})
	}
	links := 0
	for _, pattern := range held {
		documents, err := filepath.Glob("../../" + pattern)
		if err != nil || len(documents) == 0 {
			t.Errorf("%s names no file: %v", pattern, err)
		}
		for _, document := range documents {
			name := strings.TrimPrefix(document, "../../")
			if filepath.Ext(name) != ".md" || strings.HasPrefix(name, "cmd/") { // who builds peers has the sources
				continue
			}
			for _, link := range regexp.MustCompile(`\]\(([^)#:]+)(?:#[^)]*)?\)`).FindAllStringSubmatch(textOf(t, name), -1) {
				links++
				if target := filepath.Join(filepath.Dir(name), link[1]); !there(target) {
					t.Errorf("%s links to %s, which no archive has", name, target)
				}
			}
		}
	}
	if links < 20 {
		t.Errorf("only %d links were found", links)
	}
}

// What is built only for a release would be found not to compile only then.
func TestEveryReleasedSystemIsCompiledForByMake(t *testing.T) {
	t.Parallel()
	words := func(file, pattern string) []string {
		found := regexp.MustCompile(pattern).FindStringSubmatch(textOf(t, file))
		if found == nil {
			t.Fatalf("%s has no %s", file, pattern)
		}
		return strings.Fields(strings.ReplaceAll(found[1], ",", " "))
	}
	var want []string
	for _, system := range words(".goreleaser.yaml", `goos: \[(.+)\]`) {
		for _, processor := range words(".goreleaser.yaml", `goarch: \[(.+)\]`) {
			want = append(want, system+"/"+processor)
		}
	}
	if got := words("Makefile", `\nTARGETS := (.+)\n`); !slices.Equal(got, want) || len(want) < 4 {
		t.Errorf("make compiles for %q, released is %q", got, want)
	}
	if !strings.Contains(textOf(t, ".ci/run"), " make darwin\n") {
		t.Error("the gate does not compile for another system than its own")
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
