package main

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestArchitectureNamesWhatExists keeps the list of invariants true: each names a file and a
// test, and a renamed one is found here.
func TestArchitectureNamesWhatExists(t *testing.T) {
	t.Parallel()
	const root = "../../"
	text, err := os.ReadFile(root + "ARCHITECTURE.md")
	if err != nil {
		t.Fatal(err)
	}
	tests := testNames(t, root)
	_, list, _ := strings.Cut(string(text), "## Not obvious")
	rows := regexp.MustCompile("(?m)\\| `([^`]+)` \\| `(Test[A-Za-z0-9]+)` \\|$").FindAllStringSubmatch(list, -1)
	for _, row := range rows {
		if _, err := os.Stat(root + row[1]); err != nil {
			t.Error(err)
		}
		if !tests[row[2]] {
			t.Errorf("there is no %s", row[2])
		}
	}
	if lines := strings.Count(list, "\n| ") - 1; len(rows) != lines || len(rows) < 10 { // less the head
		t.Errorf("%d of %d rows name a file and a test", len(rows), lines)
	}
}

// TestDocumentsNameWhatExists keeps the other documents true: the tests and files that they name.
func TestDocumentsNameWhatExists(t *testing.T) {
	t.Parallel()
	const root = "../../"
	documents, err := filepath.Glob(root + "docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	documents = append(documents, root+"README.md", root+"README.ru.md", root+"ARCHITECTURE.md", root+"CHANGELOG.md")
	tests := testNames(t, root)
	name := regexp.MustCompile("`(Test[A-Za-z0-9]+)`")
	link := regexp.MustCompile(`\]\(([^)#:]+)(#[^)]*)?\)`)
	for _, document := range documents {
		text, err := os.ReadFile(document)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range name.FindAllStringSubmatch(string(text), -1) {
			if !tests[m[1]] {
				t.Errorf("%s: there is no %s", document, m[1])
			}
		}
		for _, m := range link.FindAllStringSubmatch(string(text), -1) {
			if _, err := os.Stat(filepath.Join(filepath.Dir(document), m[1])); err != nil {
				t.Errorf("%s: %v", document, err)
			}
		}
	}
}

func testNames(t *testing.T, root string) map[string]bool {
	t.Helper()
	names := map[string]bool{}
	declaration := regexp.MustCompile(`(?m)^func (Test\w+)\(`)
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		source, err := os.ReadFile(path)
		for _, match := range declaration.FindAllSubmatch(source, -1) {
			names[string(match[1])] = true
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}
