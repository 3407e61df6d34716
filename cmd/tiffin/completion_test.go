package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// completing has bash complete each of its arguments, a line for each. What a completion is called by
// in an interactive shell, and what the package bash-completion gives, it makes itself.
const completing = `
	compopt() { :; }
	_get_comp_words_by_ref() { cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} words=("${COMP_WORDS[@]}") cword=$COMP_CWORD; }
	source <(tiffin completion bash)
	for line; do
		COMP_LINE=$line COMP_POINT=${#line} COMP_TYPE=9
		IFS=' ' read -ra COMP_WORDS <<<"$line"
		[[ $line == *' ' ]] && COMP_WORDS+=('')
		COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
		__start_tiffin
		for word in "${COMPREPLY[@]}"; do printf '%s ' "${word%%[ (]*}"; done
		echo
	done`

// The script in a real bash: commands, flags, and the words that a flag takes.
func TestBashCompletesCommandsFlagsAndTheirWords(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.Symlink(os.Args[0], filepath.Join(dir, "tiffin")); err != nil {
		t.Fatal(err)
	}
	lines := []string{"tiffin ver", "tiffin run --unt", "tiffin run --ledger-behind re", "tiffin run --input-reset ", "tiffin completion f"}
	cmd := exec.CommandContext(t.Context(), "bash", append([]string{"-c", completing, "bash"}, lines...)...)
	cmd.Env = []string{asCommand + "=1", "PATH=" + dir + ":/usr/bin:/bin"}
	out, err := cmd.CombinedOutput()
	if want := "verify version \n--until-now \nreplay \nstop anew \nfish \n"; err != nil || string(out) != want {
		t.Errorf("%s: %q, want %q: %v", strings.Join(lines, ", "), out, want, err)
	}
}
