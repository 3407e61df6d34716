#!/bin/sh
# Validates what cannot be run here, each file by its own tool. A tool that the machine lacks is a
# visible skip; a file that its tool refuses fails.
set -u
cd "$(dirname "$0")/.." || exit 1
faults=0

main() {
	with promtool check_rules
	with systemd-analyze check_units
	if docker compose version >/dev/null 2>&1; then with docker check_compose; else echo 'SKIP check_compose: no docker compose on this machine'; fi
	with kubernetes-validate check_manifests
	with goreleaser check_releases
	exit "$faults"
}

# with TOOL CHECK runs CHECK if there is such a tool.
with() {
	if ! command -v "$1" >/dev/null; then
		echo "SKIP $2: no $1 on this machine"
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

# The units name a program that need not be installed here: the verdict on everything else counts.
check_units() {
	complaints=$(systemd-analyze verify --man=no deploy/systemd/tiffin.service deploy/systemd/tiffin@.service 2>&1 | grep -v 'is not executable')
	[ -z "$complaints" ] || {
		echo "$complaints"
		return 1
	}
}

check_compose() { docker compose -f deploy/compose/compose.yaml config --quiet; }

check_manifests() { kubernetes-validate --strict deploy/kubernetes/*.yaml; }

check_releases() { goreleaser check; }

main
