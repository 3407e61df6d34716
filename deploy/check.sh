#!/bin/sh
# Validates what cannot be run here, each file by its own tool. A tool that the machine lacks is a
# visible skip; with CI=true it is a failure, but for those that not every machine can have. A file that
# its tool refuses fails. The tools of make deploy-check are in bin/.
set -u
exec 3>&1 # for what a check says though it passes
cd "$(dirname "$0")/.." || exit 1
PATH=$PWD/bin:$PATH
faults=0

main() {
	with promtool check_rules
	with systemd-analyze check_units
	with compose-spec check_compose
	with kubernetes-validate check_manifests
	if command -v hadolint >/dev/null; then with hadolint check_image; else echo 'SKIP check_image: no hadolint on this machine'; fi
	if command -v goreleaser >/dev/null; then with goreleaser check_releases; else echo 'SKIP check_releases: no goreleaser on this machine, and to build it takes longer than everything else'; fi
	exit "$faults"
}

# with TOOL CHECK runs CHECK if there is such a tool.
with() {
	if ! command -v "$1" >/dev/null; then
		echo "SKIP $2: no $1 on this machine"
		[ "${CI:-}" != true ] || faults=1
		return
	fi
	if output=$("$2" 2>&1); then
		echo "ok   $2"
	else
		echo "FAIL $2"
		echo "$output"
		faults=1
	fi
}

check_rules() {
	promtool check rules deploy/prometheus/alerts.yml &&
		promtool test rules deploy/prometheus/alerts_test.yml &&
		promtool check config --syntax-only deploy/compose/prometheus.yml
}

# The units name a program that need not be installed here: the verdict on everything else counts. Their
# exposure is 1.4 of 10 (systemd 252), most of it for what the daemon needs; less of a sandbox is more.
check_units() {
	complaints=$(systemd-analyze verify --man=no deploy/systemd/tiffin.service deploy/systemd/tiffin@.service 2>&1 | grep -v 'is not executable')
	[ -z "$complaints" ] || {
		echo "$complaints"
		return 1
	}
	if ! systemd-analyze --help | grep -q -e --offline; then
		echo 'SKIP exposure of the units: this systemd-analyze is older than 250' >&3
		return
	fi
	systemd-analyze security --offline=yes --threshold=20 deploy/systemd/tiffin.service deploy/systemd/tiffin@.service
}

# The loader of docker compose itself, without docker.
check_compose() { compose-spec deploy/compose/compose.yaml; }

# Against the oldest version that the manifests are for, and the newest that the tool knows.
check_manifests() {
	kubernetes-validate --strict -k 1.28 deploy/kubernetes/*.yaml &&
		kubernetes-validate --strict deploy/kubernetes/*.yaml
}

check_image() { hadolint deploy/Dockerfile; }

# Where to release it learns from the repository's remote, and refuses to judge without one.
check_releases() {
	if [ -z "$(git remote 2>/dev/null)" ]; then
		echo 'SKIP the releases: this repository has no remote' >&3
		return
	fi
	goreleaser check
}

main
