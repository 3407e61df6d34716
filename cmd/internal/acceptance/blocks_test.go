package acceptance

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"example.com/tiffin/internal/manual"
)

// executedBy names the test that executes a block, or all blocks of a file in order. A test that is
// named here for a file must fail on a block that it does not know.
func executedBy() map[string]string {
	return map[string]string{
		"README.md":    "TestReadmeFromCloneToTheFirstCampaign",
		"README.ru.md": "TestReadmesTellTheSame",

		"docs/moving-over.md":                 "TestMovingOverAndBackLosesAndDoublesNothing",
		"docs/operating.md: sql partitioned":  "TestFeedbackTableMayBePartitionedAndTrimmed",
		"docs/operating.md: sql rotated":      "TestFeedbackTableMayBePartitionedAndTrimmed",
		"docs/operating.md: sql housekeeping": "TestFeedbackTableMayBePartitionedAndTrimmed",
		"docs/operating.md: sql log":          "TestBudgetOfTheLogIsComputedOnTheServer",
		"docs/runbooks.md: sh slot":           "TestRunbooksAreRehearsed",
		"docs/runbooks.md: sql drop":          "TestRunbooksAreRehearsed",
		"docs/runbooks.md: sh reasons":        "TestRunbooksAreRehearsed",
		"docs/runbooks.md: sql waits":         "TestRunbooksAreRehearsed",
		"docs/runbooks.md: sql sender":        "TestRunbooksAreRehearsed",
		"docs/runbooks.md: sql oldest":        "TestRunbooksAreRehearsed",
		"docs/runbooks.md: sql slots":         "TestRunbooksAreRehearsed",
		"docs/runbooks.md: sh rebuilds":       "TestRunbooksAreRehearsed",
		"docs/runbooks.md: sh dead letters":   "TestRunbooksAreRehearsed",
		"docs/runbooks.md: sh lost":           "TestRunbooksAreRehearsed",
		"docs/security.md: conf hba":          "TestReadmeFromCloneToTheFirstCampaign",
		"docs/security.md: properties admin":  "TestDoctorNamesWhatKafkaRefuses",
	}
}

// A block that no test executes is a block that nobody knows to be right.
func TestEveryBlockOfTheDocumentsIsExecuted(t *testing.T) {
	t.Parallel()
	claims, sources := executedBy(), testSources(t)
	documents, err := filepath.Glob(filepath.Join(manual.Root(t), "docs", "*.md"))
	if err != nil || len(documents) < 5 {
		t.Fatal(documents, err)
	}
	files := []string{"README.md", "README.ru.md"}
	for _, d := range documents {
		files = append(files, "docs/"+filepath.Base(d))
	}
	used := map[string]bool{}
	for _, file := range files {
		for _, block := range manual.Blocks(t, file) {
			if block.Info == "mermaid" { // a picture
				continue
			}
			claim, call := block.Name(), fmt.Sprintf("manual.Named(t, %q, %q)", file, block.Info)
			if _, whole := claims[file]; whole {
				claim, call = file, fmt.Sprintf("(t, %q", file) // of follow, or of manual.Blocks
			}
			used[claim] = true
			if test := claims[claim]; test == "" {
				t.Errorf("%s:%d: no test executes the block %q", file, block.Line, block.Info)
			} else if !sources.reads(test, call) {
				t.Errorf("%s:%d: %s does not exist, or nothing in its package calls %s", file, block.Line, test, call)
			}
		}
	}
	for claim, test := range claims {
		if !used[claim] {
			t.Errorf("%s is to execute %s, which is not there", test, claim)
		}
	}
}

// packages are the test files' sources by their directory.
type packages map[string]string

func testSources(t *testing.T) packages {
	t.Helper()
	p := packages{}
	err := filepath.WalkDir(manual.Root(t), func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		source, err := os.ReadFile(path)
		p[filepath.Dir(path)] += regexp.MustCompile(`\b\w\.t, "`).ReplaceAllString(string(source), "t, \"")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// reads says whether the package of a test has this call.
func (p packages) reads(test, call string) bool {
	for _, source := range p {
		if strings.Contains(source, "\nfunc "+test+"(") && strings.Contains(source, call) {
			return true
		}
	}
	return false
}

// What the English README tells to type, and has a test that types it, the Russian one tells word for
// word, in as many sections and with the same settings.
func TestReadmesTellTheSame(t *testing.T) {
	t.Parallel()
	english, russian := manual.Blocks(t, "README.md"), manual.Blocks(t, "README.ru.md")
	if len(english) != len(russian) {
		t.Fatalf("%d blocks, and %d in Russian", len(english), len(russian))
	}
	for i, block := range english {
		other := russian[i]
		if other.Info != block.Info {
			t.Errorf("README.ru.md:%d is the block %q, in English %q", other.Line, other.Info, block.Info)
		}
		if block.Info != "mermaid" && other.Code() != block.Code() {
			t.Errorf("README.ru.md:%d\n%s\nin English\n%s", other.Line, other.Code(), block.Code())
		}
	}
	for what, pattern := range map[string]string{
		"headings": `(?m)^#+ `, "steps": `(?m)^\*\*\d\. `, "rows of tables": `(?m)^\|`, "lines of commands and settings": "(?m)^\\| (`[^|]+`) \\|",
		"links": `\]\(([^)]+)\)`, "metrics": `tiffin_[a-z_]+`, "endpoints": "`((?:POST )?/[a-z/]*)`",
	} {
		en, ru := matches(t, "README.md", pattern), matches(t, "README.ru.md", pattern)
		delete(en, "README.ru.md") // each links to the other
		delete(ru, "README.md")
		for one, n := range en {
			if counted := what == "headings" || what == "rows of tables"; ru[one] == 0 || counted && ru[one] != n {
				t.Errorf("%s: %d times %q, in Russian %d", what, n, one, ru[one])
			}
		}
		if len(en) != len(ru) {
			t.Errorf("%s: %v\nin Russian: %v", what, en, ru)
		}
	}
}

// matches counts what a pattern finds.
func matches(t *testing.T, file, pattern string) map[string]int {
	t.Helper()
	found := map[string]int{}
	for _, m := range regexp.MustCompile(pattern).FindAllStringSubmatch(manual.Text(t, file), -1) {
		found[m[len(m)-1]]++
	}
	return found
}
