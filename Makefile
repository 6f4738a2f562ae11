# popfleet. `make help` lists what can be made.
SHELL := /bin/bash
.SHELLFLAGS := -o pipefail -c
.DEFAULT_GOAL := help

GO       ?= go
VERSION  ?= $(shell git describe --always --dirty 2>/dev/null || echo unknown)
LDFLAGS  := -s -w -X popfleet/internal/version.Version=$(VERSION)
# Tests and binaries share one build cache only when they share these.
export CGO_ENABLED := 0
export GOFLAGS     := -trimpath -buildvcs=false
GOBUILD  := $(GO) build -ldflags '$(LDFLAGS)'
PULUMI   := v3.200.0
FUZZTIME ?= 20s
SUDO     := $(shell [ "$$(id -u)" = 0 ] || echo sudo)

NODE_BINARIES     := fleet-agent fleet-transport fleet-dns fleet-replicator
OPERATOR_BINARIES := fleet fleet-lab

.PHONY: help
help: ## this list
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sort | awk -F':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

.PHONY: build
build: ## all binaries into bin/
	@mkdir -p bin
	@echo "building $(VERSION): operator's side, node's side, example"
	@$(GOBUILD) -o bin/ $(addprefix ./cmd/,$(OPERATOR_BINARIES) $(NODE_BINARIES))
	@$(GOBUILD) -o bin/comments ./examples/comments/cmd/comments
	@cd cmd/fleet-store && $(GO) build -ldflags '$(LDFLAGS)' -o ../../bin/fleet-store .

.PHONY: tools
tools: bin/pulumi ## bin/pulumi, built from its Go module (about 4 minutes the first time)

bin/pulumi: tools/pulumi/go.mod
	@mkdir -p bin
	@echo "building the pulumi CLI $(PULUMI) from its Go module; about 4 minutes on 2 cores the first time"
	@cd tools/pulumi && $(GO) build -ldflags '-s -w -X github.com/pulumi/pulumi/sdk/v3/go/common/version.Version=$(PULUMI)' -o ../../bin/pulumi github.com/pulumi/pulumi/pkg/v3/cmd/pulumi

.PHONY: prerequisites
prerequisites: ## Debian packages the lab and the image build need (apt-get, as root or with sudo)
	@scripts/prerequisites

.PHONY: test
test: ## every test that needs no root and no machines
	@scripts/test

.PHONY: check
check: ## gofmt, vet, staticcheck, the tree's rules, tests
	@test -z "$$(gofmt -l $$(git ls-files '*.go'))" || { gofmt -d $$(git ls-files '*.go'); exit 1; }
	$(GO) vet ./... && $(GO) vet -tags e2e ./lab/... && (cd cmd/fleet-store && $(GO) vet ./...)
	$(GO) tool staticcheck ./...
	@$(MAKE) --no-print-directory test

.PHONY: race
race: ## the tests under the race detector (needs a C compiler)
	CGO_ENABLED=1 $(GO) test -race -count=1 -timeout 20m ./...

.PHONY: fuzz
fuzz: ## every fuzzer for FUZZTIME (20s)
	@scripts/fuzz $(FUZZTIME)

.PHONY: matrix
matrix: ## the whole fault matrix on scripted machines: calls, lives, orders (about ten minutes; `make test` runs a slice)
	POPFLEET_MATRIX=full $(GO) test -count=1 -timeout 40m -v -run 'TestConformanceUnderFaults|Matrix$$' ./lab/e2e | grep -v '=== RUN\|--- PASS'

.PHONY: bench
bench: ## figures beside their bars
	$(GO) test -run '^$$' -bench . -benchtime 3x -timeout 30m ./lab/e2e ./transport/... ./dns/...

.PHONY: e2e
e2e: build tools ## real machines: the demo's path with its figures, faults, power cuts (root, about half an hour)
	@scripts/prerequisites tests
	@echo "machine tests; the lab says below whether it emulates"
	$(SUDO) env "PATH=$$PATH" HOME=$$HOME $(GO) test -tags e2e -count=1 -timeout 15m ./lab/netns/... ./examples/comments/...
	$(SUDO) env "PATH=$$PWD/bin:$$PATH" HOME=$$HOME $(GO) test -tags e2e -count=1 -timeout 70m -v \
	  -run '$(or $(RUN),TestMachines$$|TestCLI|TestStack)' -skip '$(if $(RUN),^$$,TestCLIKilledAfresh)' ./lab/e2e

.PHONY: nightly
nightly: build tools ## what CI has no time for: a mixed PoP of three providers, bare-metal machines, a fresh fleet per kill (root, hours)
	@scripts/prerequisites tests
	$(SUDO) env "PATH=$$PATH" HOME=$$HOME $(GO) test -tags e2e -count=1 -timeout 60m -v ./lab/qemu/...
	$(SUDO) env "PATH=$$PWD/bin:$$PATH" HOME=$$HOME $(GO) test -tags e2e -count=1 -timeout 180m -v \
	  -run 'TestMachinesMixed|TestCLIKilledAfresh' ./lab/e2e

.PHONY: demo
demo: prerequisites build tools ## a lab on this machine and a PoP of two nodes in it, from nothing to serving
	@$(SUDO) env "PATH=$$PATH" HOME=$$HOME scripts/demo up

.PHONY: demo-down
demo-down: ## removes everything the demo made
	@$(SUDO) env "PATH=$$PATH" HOME=$$HOME scripts/demo down

.PHONY: clean
clean: ## build output
	rm -rf bin build
