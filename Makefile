# What a fresh clone needs: go. For the tests against a real Kafka: a Java 17 and Maven.
# Tools that are themselves written in Go are installed into ./bin at the version named here.

GOLANGCI_LINT_VERSION := v2.15.0

# The race detector needs cgo, and that a C compiler; without one the tests run all the same.
RACE := $(if $(filter 1,$(shell go env CGO_ENABLED)),-race)
TEST_TIMEOUT ?= 12m
PKG ?= ./...

.DEFAULT_GOAL := help

.PHONY: help
help: ## this list
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: build
build: ## ./bin/tiffin, ./bin/slotsetup and ./bin/bench
	go build -trimpath -o bin/ ./cmd/...

.PHONY: demo
demo: build ## the whole system at work, nothing to install; Ctrl-C removes it
	./bin/tiffin demo

# Never from the cache: go test does not see what programs the tests build and start.
.PHONY: test
test: ## all tests; those that need a real Kafka skip without Java (with CI=true they fail)
	go test -count=1 $(RACE) -timeout $(TEST_TIMEOUT) $(PKG)

.PHONY: lint
lint: bin/golangci-lint-$(GOLANGCI_LINT_VERSION) ## the linters, with the import graph among their rules
	./$< run ./...

.PHONY: format
format: bin/golangci-lint-$(GOLANGCI_LINT_VERSION) ## rewrite the sources as the linters want them
	./$< fmt ./...

.PHONY: check
check: lint test ## what has to pass before a commit

.PHONY: bench-quick
bench-quick: build ## deliveries per second through a real broker and database, small enough for a minute
	./bin/bench throughput --quick

.PHONY: mutants
mutants: ## take the rules of index and delivery away one by one: a survivor is a rule that no test proves
	sh cache/mutants.sh
	sh stream/mutants.sh

.PHONY: exactness
exactness: ## 100,000 changes and 50,000 campaigns' questions for each replica identity, also while walsenders die
	EXACTNESS=full go test -count=1 -run '^TestExactness$$' -v -timeout 30m ./cdc/ | grep -v level=

.PHONY: clean
clean: ## remove what was built
	rm -rf bin dist

# The version is in the name, so that raising it installs the new one.
bin/golangci-lint-$(GOLANGCI_LINT_VERSION):
	GOBIN=$(CURDIR)/bin go install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI_LINT_VERSION)
	mv bin/golangci-lint $@
