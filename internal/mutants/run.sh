# Sourced by a package's mutants.sh (bash), which names the rules to remove one at a time. The
# tests run on each mutant: one that survives is a rule that no test proves. Files in place are
# not touched (go test -overlay). The caller's folder is the package. As many mutants are tried
# at a time as there are processors, or $MUTANTS_AT_ONCE.
#
#   . ../internal/mutants/run.sh
#   stages=(CHEAP DEAR …)              # regular expressions of tests, one after the other until
#                                      # a test fails; (.) are all, a stage -X all but X
#   mutant NAME FILE OLD NEW [TESTS]   # OLD is a fixed string of FILE, NEW is put in its place
#                                      # once; TESTS are the only stage, where one proves the rule
#   need_servers                       # those that follow start real servers: not with
#                                      # $MUTANTS_QUICK
#   summary                            # exits with 1 unless all were caught
#
# A mutant that makes a test hang is not caught: the test has to bound its wait.

work=$(mktemp -d) || exit 2
trap 'rm -rf "$work"' EXIT
wanted="$*" tried=0 began=$SECONDS
at_once=${MUTANTS_AT_ONCE:-$(nproc)}
stages=(.) skipping=
# In KiB of addresses: a mutant that never stops to allocate would take the machine with it.
most_memory=$((8 << 20))

need_servers() { [ -z "${MUTANTS_QUICK-}" ] || skipping=yes; }

mutant() {
	[ -z "$skipping" ] || return 0
	case " $wanted " in "  " | *" $1 "*) ;; *) return ;; esac
	tried=$((tried + 1))
	while [ "$(jobs -rp | wc -l)" -ge "$at_once" ]; do wait -n; done
	try "$@" &
}

# try prints one line, which begins with ok when the mutant was caught.
try() {
	local verdict
	verdict=$(judge "$@")
	times >"$work/$1.times"
	echo "$verdict ($(cpu_seconds "$1") CPU s)" | tee "$work/$1.verdict"
	rm -f "$work/$1.test"
}

judge() {
	local name=$1 file=$2 old=$3 new=$4 only=${5-} out="$work/$1.out" stage
	OLD=$old NEW=$new perl -0pe 's/\Q$ENV{OLD}\E/$ENV{NEW}/' "$file" >"$work/$name.go"
	if cmp -s "$file" "$work/$name.go"; then
		echo "BAD  $name: no such text in $file"
		return
	fi
	printf '{"Replace":{"%s/%s":"%s/%s.go"}}' "$PWD" "$file" "$work" "$name" >"$work/$name.json"
	if ! go test -c -vet=off -ldflags=-w -overlay "$work/$name.json" -o "$work/$name.test" . >"$out" 2>&1; then
		echo "BAD  $name: does not compile: $(head -3 "$out" | tr '\n' ' ')"
		return
	fi
	for stage in "${only:-${stages[@]}}"; do
		if (ulimit -v "$most_memory"; exec "$work/$name.test" -test.short -test.failfast -test.timeout 120s $(chosen "$stage")) >"$out" 2>&1; then
			# A name that was mistyped would make a survivor.
			grep -q 'no tests to run' "$out" && echo "BAD  $name: no test $stage" && return
			continue
		fi
		if grep -q 'test timed out' "$out"; then
			echo "BAD  $name: timed out, which proves nothing: $(running)"
		else
			echo "ok   $name: $(failures)"
		fi
		return
	done
	echo "BAD  $name: SURVIVED"
}

chosen() {
	case $1 in
	-*) echo "-test.skip ${1#-}" ;;
	*) echo "-test.run $1" ;;
	esac
}

failures() {
	grep -o '^panic: .*' "$out" | head -1 | cut -c-100
	grep -o '^--- FAIL: [A-Za-z]*' "$out" | sed 's/.*: //' | sort -u | paste -sd' '
}

# running names the tests that the time-out found at work.
running() { sed -n '/running tests:/,/^$/s/^\t*\(Test[^ ]*\) .*/\1/p' "$out" | sort -u | paste -sd' '; }

# cpu_seconds adds up what a shell and its children took: NAME.times is what times printed.
cpu_seconds() { tr 'ms' '  ' <"$work/$1.times" | awk '{t += $1 * 60 + $2 + $3 * 60 + $4} END {printf "%.1f", t}'; }

summary() {
	wait
	local caught
	caught=$(cat "$work"/*.verdict | grep -c '^ok')
	times >"$work/all.times"
	echo "$(basename "$PWD"): $caught of $tried mutants caught in $((SECONDS - began))s, $(cpu_seconds all) CPU s"
	cat "$work"/*.verdict | grep -v '^ok'
	exit "$((caught < tried))"
}
