// Command mutants makes one program of a package and many mutants of it: compiling and linking
// each alone takes several times as long as its tests. run.sh, which calls it, says what a mutant
// is.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// chosen is the variable that the woven functions ask which mutant they are.
const chosen = "chosenMutant"

// chooser declares it. What it is comes from the environment, so that one program is all of them.
const chooser = "package %s\n\nimport \"os\"\n\nvar " + chosen + " = os.Getenv(\"MUTANT\")\n"

// mutant has new in place of old, once, in a file of the package.
type mutant struct{ name, file, old, new string }

func main() {
	if err := run(os.Args[1:], os.Stdin, os.Stdout); err != nil {
		_, _ = fmt.Fprintln(os.Stderr, "mutants:", err)
		os.Exit(1)
	}
}

// run reads mutants as their four texts, each ended by a NUL. It writes what go -overlay takes to
// WORK/woven.json and the names of those that are in it to out; the others have to be compiled alone.
func run(args []string, in io.Reader, out io.Writer) error {
	if len(args) != 2 {
		return errors.New("usage: mutants PACKAGE-FOLDER WORK-FOLDER, with NAME FILE OLD NEW on stdin, each ended by a NUL")
	}
	folder, work := args[0], args[1]
	input, err := io.ReadAll(in)
	if err != nil {
		return fmt.Errorf("read the mutants: %w", err)
	}
	texts := strings.Split(string(input), "\x00")
	byFile := map[string][]mutant{}
	for m := range slices.Chunk(texts[:len(texts)-1], 4) {
		if len(m) < 4 {
			return fmt.Errorf("mutant %q: want four texts", m[0])
		}
		byFile[m[1]] = append(byFile[m[1]], mutant{m[0], m[1], m[2], m[3]})
	}
	replace := map[string]string{}
	for file, mutants := range byFile {
		path := filepath.Join(folder, file)
		source, err := os.ReadFile(path)
		if err != nil {
			return fmt.Errorf("read what is to be woven: %w", err)
		}
		woven, name, names, err := weave(string(source), mutants)
		if err != nil {
			return fmt.Errorf("weave %s: %w", path, err)
		}
		replace[path] = filepath.Join(work, "woven_"+file)
		replace[filepath.Join(folder, "chosen_mutant.go")] = filepath.Join(work, "chooser.go")
		if err := errors.Join(
			os.WriteFile(replace[path], []byte(woven), 0o600),
			os.WriteFile(filepath.Join(work, "chooser.go"), fmt.Appendf(nil, chooser, name), 0o600),
		); err != nil {
			return err
		}
		for _, name := range names {
			_, _ = fmt.Fprintln(out, name)
		}
	}
	overlay, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(work, "woven.json"), overlay, 0o600)
}

// weave returns the source with the mutants' bodies at the beginning of their functions, each
// behind a question, the package's name, and which mutants are in it: those whose change lies
// within the body of one function that has no labels.
func weave(source string, mutants []mutant) (woven, pkg string, names []string, err error) {
	file, err := parse(source)
	if err != nil {
		return "", "", nil, err
	}
	bodies := map[int]string{} // by the offset behind the brace
	for _, m := range mutants {
		at := strings.Index(source, m.old)
		mutated, err := parse(strings.Replace(source, m.old, m.new, 1))
		if at < 0 || err != nil {
			continue // compiled alone it is told what is wrong
		}
		for i, d := range file.Decls {
			f, is := d.(*ast.FuncDecl)
			if !is || f.Body == nil || at <= int(f.Body.Lbrace)-1 || at+len(m.old) > int(f.Body.Rbrace)-1 || len(mutated.Decls) != len(file.Decls) || labelled(f) {
				continue
			}
			g, is := mutated.Decls[i].(*ast.FuncDecl)
			if !is {
				continue
			}
			body := strings.Replace(source, m.old, m.new, 1)[g.Body.Lbrace : g.Body.Rbrace-1]
			if f.Type.Results == nil {
				body += "\nreturn"
			}
			bodies[int(f.Body.Lbrace)] += fmt.Sprintf("\nif %s == %q {%s\n}\n", chosen, m.name, body)
			names = append(names, m.name)
		}
	}
	var b strings.Builder
	last := 0
	for i := range source {
		if body, is := bodies[i]; is {
			b.WriteString(source[last:i] + body)
			last = i
		}
	}
	return b.String() + source[last:], file.Name.Name, names, nil
}

// parse makes positions that are the offset and 1.
func parse(source string) (*ast.File, error) {
	return parser.ParseFile(token.NewFileSet(), "", source, parser.SkipObjectResolution)
}

func labelled(f *ast.FuncDecl) (is bool) {
	ast.Inspect(f, func(n ast.Node) bool {
		_, label := n.(*ast.LabeledStmt)
		is = is || label
		return true
	})
	return is
}
