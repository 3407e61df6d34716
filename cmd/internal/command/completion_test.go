package command

import (
	"bytes"
	"strings"
	"testing"
)

// There is a script for each shell, and its command is not hidden.
func TestCompletionIsForEachShell(t *testing.T) {
	t.Parallel()
	for shell, begin := range map[string]string{"bash": "# bash completion V2 for program", "zsh": "#compdef program", "fish": "# fish completion for program", "powershell": "# powershell completion for program"} {
		var out bytes.Buffer
		if status := Run(t.Context(), program(), []string{"completion", shell}, Streams{Out: &out, Err: &out}); status != ExitOK || !strings.HasPrefix(out.String(), begin) {
			t.Errorf("%s: status %d, %.80q", shell, status, out.String())
		}
	}
	for _, args := range [][]string{{"completion"}, {"completion", "tcsh"}, {"completion", "bash", "zsh"}} {
		var out bytes.Buffer
		if status := Run(t.Context(), program(), args, Streams{Out: &out, Err: &out}); status != ExitUsage {
			t.Errorf("%q: status %d: %s", args, status, &out)
		}
	}
	var help bytes.Buffer
	if Run(t.Context(), program(), []string{"--help"}, Streams{Out: &help}); !strings.Contains(help.String(), "\n  completion ") {
		t.Errorf("the help hides it:\n%s", &help)
	}
}
