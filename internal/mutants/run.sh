# Sourced by a package's mutants.sh, which names the rules to remove one at a time. The tests
# run on each mutant: one that survives is a rule that no test proves. Files in place are not
# touched (go test -overlay). The caller's folder is the package; $tests, if set, chooses tests.
#
#   . ../internal/mutants/run.sh
#   mutant NAME FILE OLD NEW     # OLD is a fixed string of FILE, NEW is put in its place
#   exit "$((survivors > 0))"

work=$(mktemp -d) || exit 2
trap 'rm -rf "$work"' EXIT
survivors=0
wanted="$*"

run() { go test "$@" ${tests:+-run "$tests"} -vet=off -count=1 -timeout 300s -overlay "$work/overlay.json" . >"$work/out" 2>&1; }

mutant() {
	name=$1 file=$2 old=$3 new=$4
	case " $wanted " in "  " | *" $name "*) ;; *) return ;; esac
	OLD=$old NEW=$new perl -0pe 's/\Q$ENV{OLD}\E/$ENV{NEW}/' "$file" >"$work/$file"
	if cmp -s "$file" "$work/$file"; then
		echo "$name: no such text in $file"
		survivors=$((survivors + 1))
		return
	fi
	printf '{"Replace":{"%s/%s":"%s/%s"}}' "$PWD" "$file" "$work" "$file" >"$work/overlay.json"
	if run -short && run; then
		echo "$name: SURVIVED"
		survivors=$((survivors + 1))
	elif grep -q 'test timed out' "$work/out"; then
		echo "$name: timed out, which proves nothing"
		survivors=$((survivors + 1))
	elif grep -q 'build failed' "$work/out"; then
		echo "$name: does not compile"
		cat "$work/out"
		survivors=$((survivors + 1))
	else
		echo "$name: caught by $(grep -o '^panic: .*' "$work/out" | head -1) $(grep -o '^ *--- FAIL: [A-Za-z]*' "$work/out" | sed 's/.*: //' | sort -u | tr '\n' ' ')"
	fi
}
