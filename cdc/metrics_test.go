package cdc

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// Every reason for a rebuild is counted from the start.
func TestEveryReasonOfARebuildIsThereFromTheStart(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	given := regexp.MustCompile(`(?:rebuildError\{reason: |reason[A-Z]\w* += |changed = |conn, |forget\(|return )"([a-z_]+)"(?:,|\)|\n)`)
	found := 0
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		source, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range given.FindAllStringSubmatch(string(source), -1) {
			reason := m[1]
			found++
			if !slices.Contains(rebuildReasons(), reason) {
				t.Errorf("%s: %q (%s)", file, reason, m[0])
			}
		}
	}
	if found < len(rebuildReasons()) {
		t.Errorf("%d were found", found)
	}
}
