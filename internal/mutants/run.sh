# Sourced by a package's mutants.sh (bash), which names the rules to remove one at a time. The
# tests run on each mutant: one that survives is a rule that no test proves. Files in place are
# not touched (go test -overlay). The caller's folder is the package. As many mutants are tried
# at a time as there are processors, three times as many of those with servers, or $MUTANTS_AT_ONCE. Those that change the inside of a
# function are one program, which asks $MUTANT which it is (weave.go); without any the tests must pass.
#
#   . ../internal/mutants/run.sh
#   stages=(CHEAP DEAR …)              # regular expressions of tests, one after the other until
#                                      # a test fails; (.) are all, a stage -X all but X
#   mutant NAME FILE OLD NEW [TESTS]   # OLD is a fixed string of FILE, NEW is put in its place
#                                      # once; TESTS are the only stage, where one proves the rule
#   need_servers                       # those that follow start real servers, and wait more than they
#                                      # work: more of them are tried at a time; none if $WITHOUT_SERVERS is set
#   summary                            # tries them; exits with 1 unless all were caught
#
# A mutant that makes a test hang is not caught: the test has to bound its wait. Models draw at random what
# they do: a mutant counts as a survivor if it outlives three draws, and a line says which draw caught it.

work=$(mktemp -d) || exit 2
trap 'rm -rf "$work"' EXIT
wanted="$*" began=$SECONDS
processors=$(nproc)
stages=(.) servers=
names=() serverless=() serving=()
declare -A file old new tests
# In KiB of addresses: a mutant that never stops to allocate would take the machine with it.
most_memory=$((8 << 20))
draws=3
# How long a test waits for what a mutant may never do; unchanged shows that it is long enough.
patience=20s

need_servers() { servers=yes; }

mutant() {
	case " $wanted " in "  " | *" $1 "*) ;; *) return ;; esac
	[ -z "$servers" ] || [ -z "${WITHOUT_SERVERS:-}" ] || return 0
	names+=("$1") file[$1]=$2 old[$1]=$3 new[$1]=$4
	tests[$1]=${5:-$(printf '%s\n' "${stages[@]}")}
	printf '%s\0' "$1" "$2" "$3" "$4" >>"$work/mutants"
	if [ -n "$servers" ]; then serving+=("$1"); else serverless+=("$1"); fi
}

# weave makes woven.test of the mutants that woven names. If it cannot, each is compiled alone,
# which tells whose fault it is.
weave() {
	go build -o "$work/weave" ../internal/mutants || exit 2
	"$work/weave" "$PWD" "$work" <"$work/mutants" >"$work/woven" || exit 2
	compile woven || : >"$work/woven"
}

compile() { go test -c -vet=off -ldflags=-w -overlay "$work/$1.json" -o "$work/$1.test" . >"$work/$1.out" 2>&1; }

# try prints one line, which begins with ok when the mutant was caught.
try() {
	local verdict at=$SECONDS
	verdict=$(judge "$1")
	times >"$work/$1.times"
	echo "$verdict ($(cpu_seconds "$1") CPU s in $((SECONDS - at))s)" | tee "$work/$1.verdict"
	rm -f "$work/$1.test"
}

judge() {
	local name=$1 program=woven stage draw
	local out="$work/$name.out"
	if ! grep -qx -e "$name" "$work/woven"; then
		program=$name
		OLD=${old[$name]} NEW=${new[$name]} perl -0pe 's/\Q$ENV{OLD}\E/$ENV{NEW}/' "${file[$name]}" >"$work/$name.go"
		if cmp -s "${file[$name]}" "$work/$name.go"; then
			echo "BAD  $name: no such text in ${file[$name]}"
			return
		fi
		printf '{"Replace":{"%s/%s":"%s/%s.go"}}' "$PWD" "${file[$name]}" "$work" "$name" >"$work/$name.json"
		if ! compile "$name"; then
			echo "BAD  $name: does not compile: $(head -3 "$out" | tr '\n' ' ')"
			return
		fi
	fi
	for ((draw = 1; draw <= draws; draw++)); do
		while read -r stage; do
			if passes "$program" "$stage" "$name"; then
				# A name that was mistyped would make a survivor.
				grep -q 'no tests to run' "$out" && echo "BAD  $name: no test $stage" && return
				continue
			fi
			if grep -q 'test timed out' "$out"; then
				echo "BAD  $name: timed out, which proves nothing: $(running)"
			else
				echo "ok   $name: $(failures)$([ "$draw" -eq 1 ] || echo " (draw $draw)")"
			fi
			return
		done <<<"${tests[$name]}"
	done
	echo "BAD  $name: SURVIVED"
}

# passes PROGRAM STAGE MUTANT [LIMIT] runs the tests of a stage; what they print goes to MUTANT.out.
passes() (
	ulimit -v "$most_memory"
	MUTANT=$3 TEST_PATIENCE=$patience exec "$work/$1.test" -test.short -test.failfast -test.timeout "${4:-120s}" $(chosen "$2") </dev/null >"$work/$3.out" 2>&1
)

# unchanged proves that it is the mutants what the tests find, and not their haste: beside them.
unchanged() {
	[ -s "$work/woven" ] || return 0
	local name stage out="$work/nothing-changed.out"
	while read -r stage; do
		[ -z "$stage" ] || passes woven "$stage" nothing-changed 600s && continue # all of them
		echo "BAD  nothing-changed: $(failures)" | tee -a "$work/nothing-changed.verdict"
	done < <(for name in "${serverless[@]}"; do echo "${tests[$name]}"; done | sort -u
		for name in "${serving[@]}"; do echo "${tests[$name]}"; done | sort -u | paste -sd'|')
}

chosen() {
	case $1 in
	-*) echo "-test.skip ${1#-}" ;;
	*) echo "-test.run $1" ;;
	esac
}

failures() {
	{
		grep -o '^panic: .*' "$out" | head -1 | cut -c-100
		grep -o '^--- FAIL: [A-Za-z]*' "$out" | sed 's/.*: //' | sort -u
	} | paste -sd' '
}

# running names the tests that the time-out found at work.
running() { sed -n '/running tests:/,/^$/s/^\t*\(Test[^ ]*\) .*/\1/p' "$out" | sort -u | paste -sd' '; }

# cpu_seconds adds up what a shell and its children took: NAME.times is what times printed.
cpu_seconds() { tr 'ms' '  ' <"$work/$1.times" | awk '{t += $1 * 60 + $2 + $3 * 60 + $4} END {printf "%.1f", t}'; }

# each tries the mutants named, so many at a time.
each() {
	local name at_once=$1
	shift
	for name; do
		while [ "$(jobs -rp | wc -l)" -ge "$at_once" ]; do wait -n; done
		try "$name" &
	done
}

summary() {
	local caught
	[ ${#names[@]} -gt 0 ] || { echo "no mutant of the name: $wanted" >&2 && exit 2; }
	weave
	each "${MUTANTS_AT_ONCE:-$processors}" "${serverless[@]}"
	wait
	unchanged &
	each "${MUTANTS_AT_ONCE:-$((3 * processors))}" "${serving[@]}"
	wait
	caught=$(cat "$work"/*.verdict | grep -c '^ok')
	times >"$work/all.times"
	echo "$(basename "$PWD"): $caught of ${#names[@]} mutants caught in $((SECONDS - began))s, $(cpu_seconds all) CPU s"
	! cat "$work"/*.verdict | grep -v '^ok'
	exit $?
}
