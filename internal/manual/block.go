// Package manual reads the repository's documents, for the tests that execute what these tell the
// reader to type. It holds no expectation of its own.
package manual

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Block is what a fence (```) encloses in a document.
type Block struct {
	File string // of the repository, as README.md
	Line int    // of the opening fence, from 1
	Info string // what follows the opening fence: the language and, where there is one, a name
	Text string // with its last line break
}

// Name is how tests and messages call a block: the file and the info string.
func (b Block) Name() string { return b.File + ": " + b.Info }

// Code is the text without comments and the space around them, for two languages' readers.
func (b Block) Code() string {
	var code strings.Builder
	for line := range strings.Lines(b.Text) {
		if command, _, _ := strings.Cut(strings.TrimRight(line, "\n"), " # "); !strings.HasPrefix(command, "#") {
			code.WriteString(strings.TrimRight(command, " ") + "\n")
		}
	}
	return code.String()
}

// Root is the repository's directory, found from that of the test.
func Root(tb testing.TB) string {
	tb.Helper()
	dir, err := os.Getwd()
	if err != nil {
		tb.Fatal(err)
	}
	for ; ; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
		if dir == filepath.Dir(dir) {
			tb.Fatal("no go.mod above the test's directory")
		}
	}
}

// Text is a document as it stands.
func Text(tb testing.TB, file string) string {
	tb.Helper()
	text, err := os.ReadFile(filepath.Join(Root(tb), file))
	if err != nil {
		tb.Fatal(err)
	}
	return string(text)
}

// Blocks are all fenced blocks of a document, in order.
func Blocks(tb testing.TB, file string) []Block {
	tb.Helper()
	blocks, err := parse(file, Text(tb, file))
	if err != nil {
		tb.Fatal(err)
	}
	return blocks
}

// Named is the text of the block that has this info string, which must be the only one.
func Named(tb testing.TB, file, info string) string {
	tb.Helper()
	var found []Block
	for _, b := range Blocks(tb, file) {
		if b.Info == info {
			found = append(found, b)
		}
	}
	if len(found) != 1 {
		tb.Fatalf("%s has %d blocks %q, want one", file, len(found), info)
	}
	return found[0].Text
}

func parse(file, text string) (blocks []Block, err error) {
	lines := bufio.NewScanner(strings.NewReader(text))
	var open *Block
	for n := 1; lines.Scan(); n++ {
		info, fence := strings.CutPrefix(lines.Text(), "```")
		switch {
		case fence && open == nil:
			open = &Block{File: file, Line: n, Info: strings.TrimSpace(info)}
		case fence && strings.TrimSpace(info) != "":
			return nil, fmt.Errorf("%s:%d: a fence opens within the block of line %d", file, n, open.Line)
		case fence:
			blocks, open = append(blocks, *open), nil
		case open != nil:
			open.Text += lines.Text() + "\n"
		case strings.Contains(lines.Text(), "```"), strings.HasPrefix(strings.TrimSpace(lines.Text()), "~~~"):
			return nil, fmt.Errorf("%s:%d: a fence that is indented or of another kind, which no test would see", file, n)
		}
	}
	if open != nil {
		return nil, fmt.Errorf("%s:%d: the block is never closed", file, open.Line)
	}
	if err := lines.Err(); err != nil {
		return nil, errors.Join(fmt.Errorf("read %s", file), err)
	}
	return blocks, nil
}
