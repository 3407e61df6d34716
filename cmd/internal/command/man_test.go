package command

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

func program() *cobra.Command {
	return Root(&cobra.Command{Use: "program", Short: "A program", Long: "It has a table:\n  one    1\n  two    2"})
}

// Each command has a page with what its help says, a table as it is written, and no day on which the
// pages were made.
func TestManualHasAPageForEachCommand(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "man1")
	if status := Run(t.Context(), program(), []string{"man", dir}, Streams{}); status != ExitOK {
		t.Fatalf("status %d", status)
	}
	var names []string
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	if !slices.Equal(names, []string{"program-completion.1", "program-man.1", "program-version.1", "program.1"}) {
		t.Errorf("pages %q", names)
	}
	page, err := os.ReadFile(filepath.Join(dir, "program.1"))
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{`.TH "PROGRAM" "1" "Jan 1970"`, "  one    1\n  two    2\n", "program-version(1)"} {
		if !strings.Contains(string(page), text) {
			t.Errorf("the page lacks %q:\n%s", text, page)
		}
	}
	version, err := os.ReadFile(filepath.Join(dir, "program-version.1"))
	if err != nil || !strings.Contains(string(version), "program version") {
		t.Errorf("the page of version has no example: %s %v", version, err)
	}
}
