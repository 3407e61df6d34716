package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// A validator that is missing is a visible skip, and in CI a failure: nothing goes unvalidated there
// without anybody's notice. A file that its tool refuses fails everywhere.
func TestDeployCheckFailsInCIWithoutItsTools(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	script, err := os.ReadFile("../../deploy/check.sh")
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{"deploy", "bin", "tools"} {
		if err := os.Mkdir(filepath.Join(root, dir), 0o750); err != nil {
			t.Fatal(err)
		}
	}
	write := func(name, text string) {
		if err := os.WriteFile(filepath.Join(root, name), []byte(text), 0o700); err != nil { //nolint:gosec // a program
			t.Fatal(err)
		}
	}
	write("deploy/check.sh", string(script))
	for _, tool := range []string{"sh", "dirname", "grep"} { // all that the machine has
		path, err := exec.LookPath(tool)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(path, filepath.Join(root, "tools", tool)); err != nil {
			t.Fatal(err)
		}
	}
	check := func(environ ...string) (status int, out string) {
		cmd := exec.CommandContext(t.Context(), filepath.Join(root, "tools", "sh"), filepath.Join(root, "deploy", "check.sh"))
		cmd.Env = append(environ, "PATH="+filepath.Join(root, "tools"))
		text, err := cmd.CombinedOutput()
		if cmd.ProcessState == nil {
			t.Fatal(err)
		}
		return cmd.ProcessState.ExitCode(), string(text)
	}
	if status, out := check(); status != 0 || strings.Count(out, "SKIP ") != 6 {
		t.Errorf("without tools: %d\n%s", status, out)
	}
	if status, out := check("CI=true"); status != 1 || strings.Count(out, "SKIP ") != 6 {
		t.Errorf("without tools, in CI: %d\n%s", status, out)
	}
	for _, tool := range []string{"promtool", "systemd-analyze", "compose-spec", "kubernetes-validate", "hadolint"} {
		write("bin/"+tool, "#!"+filepath.Join(root, "tools", "sh")+"\n")
	}
	if status, out := check("CI=true"); status != 0 || strings.Count(out, "ok ") != 5 || !strings.Contains(out, "SKIP check_releases: ") {
		t.Errorf("with content tools: %d\n%s", status, out)
	}
	program := "#!" + filepath.Join(root, "tools", "sh") + "\n"
	write("bin/goreleaser", program+"echo refused; exit 1\n")
	if status, out := check("CI=true"); status != 0 || !strings.Contains(out, "SKIP the releases: ") {
		t.Errorf("in a repository without a remote: %d\n%s", status, out)
	}
	write("bin/git", program+"echo origin\n")
	if status, out := check(); status != 1 || !strings.Contains(out, "FAIL check_releases\nrefused") {
		t.Errorf("with a remote: %d\n%s", status, out)
	}
	write("bin/goreleaser", program)
	write("bin/compose-spec", "#!"+filepath.Join(root, "tools", "sh")+"\necho refused; exit 1\n")
	if status, out := check(); status != 1 || !strings.Contains(out, "FAIL check_compose\nrefused") {
		t.Errorf("with one that refuses: %d\n%s", status, out)
	}
}
