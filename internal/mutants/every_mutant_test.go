package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const program = `package main

import "fmt"

const greeting = "hello"

type counter struct{ n int }

func (c *counter) count(by int) {
	if by < 0 {
		return
	}
	c.n += by
}

func sum(values ...int) (total int, err error) {
	defer func() { total++ }()
	for _, v := range values {
		total += v
	}
	return total, nil
}

func labelled() int {
again:
	for i := range 3 {
		if i == 1 {
			break again
		}
	}
	return 5
}

func main() {
	c := &counter{}
	c.count(2)
	c.count(-1)
	total, _ := sum(1, 2)
	fmt.Print(greeting, c.n, total, labelled())
}
`

// One program is each of the mutants, and none of them without a choice; those that cannot be woven
// are left to be compiled alone.
func TestProgramIsEveryMutant(t *testing.T) {
	t.Parallel()
	folder, work := t.TempDir(), t.TempDir()
	for name, text := range map[string]string{"go.mod": "module example.com/p\n\ngo 1.26\n", "main.go": program} {
		if err := os.WriteFile(filepath.Join(folder, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	mutants := [][2]string{ // old and new; the name is the place
		{"if by < 0 {", "if false {"},
		{"c.n += by", "c.n += 10 * by // ten times"},
		{"total++", "total += 100"},
		{"return total, nil", "return 0, nil"},
		{`"hello"`, `"bye"`},             // in no function
		{"return 5", "return 6"},         // its label would be there twice
		{"not there", "nor anywhere"},    // has no place
		{"total += v\n", "total += (\n"}, // is no Go
	}
	var in strings.Builder
	for i, m := range mutants {
		in.WriteString(strings.Join([]string{string(rune('a' + i)), "main.go", m[0], m[1]}, "\x00") + "\x00")
	}
	var out bytes.Buffer
	if err := run([]string{folder, work}, strings.NewReader(in.String()), &out); err != nil {
		t.Fatal(err)
	}
	if names := strings.Fields(out.String()); !slices.Equal(names, []string{"a", "b", "c", "d"}) {
		t.Errorf("woven are %q", names)
	}
	build := exec.CommandContext(t.Context(), "go", "build", "-overlay", filepath.Join(work, "woven.json"), "-o", filepath.Join(work, "all"), ".")
	build.Dir = folder
	if said, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, said)
	}
	for name, want := range map[string]string{"": "hello2 4 5", "a": "hello1 4 5", "b": "hello20 4 5", "c": "hello2 103 5", "d": "hello2 1 5"} {
		mutated := exec.CommandContext(t.Context(), filepath.Join(work, "all"))
		mutated.Env = append(os.Environ(), "MUTANT="+name)
		if got, err := mutated.Output(); err != nil || string(got) != want {
			t.Errorf("mutant %q prints %q, %v, want %q", name, got, err, want)
		}
	}
}
