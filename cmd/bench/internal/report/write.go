package report

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"unicode"

	"example.com/tiffin/cmd/bench/internal/harness"
)

// Write makes the directory, if need be, and the files in it.
func Write(dir string, env Environment, outcomes []*harness.Outcome) error {
	if err := os.MkdirAll(dir, 0o755); err != nil { //nolint:gosec // a report is to be read
		return fmt.Errorf("make the report's directory: %w", err)
	}
	err := errors.Join(
		write(dir, "index.html", func(w io.Writer) error { return writePage(w, env, outcomes) }),
		write(dir, "README.md", func(w io.Writer) error { return writeMarkdown(w, env, outcomes) }),
		write(dir, "figures.json", func(w io.Writer) error { return harness.WriteJSON(w, env, outcomes) }),
	)
	for _, o := range outcomes {
		for _, p := range o.Profiles {
			name := fileName(o.Scenario.Name+"-"+p.Case) + ".pb.gz"
			err = errors.Join(err, write(dir, name, func(w io.Writer) error { _, err := w.Write(p.Data); return err }))
		}
	}
	return err
}

// fileName keeps letters and digits.
func fileName(name string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case unicode.IsLetter(r), unicode.IsDigit(r), r == '-':
			return r
		case r == ' ':
			return '-'
		default:
			return -1
		}
	}, name)
}

func write(dir, name string, do func(io.Writer) error) (err error) {
	file, err := os.Create(filepath.Join(dir, name))
	if err != nil {
		return fmt.Errorf("write the report: %w", err)
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	return do(file)
}
