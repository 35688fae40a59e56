# lrd: build, test, install. `make help` lists the targets.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
PREFIX ?= /usr
DESTDIR ?=
BIN ?= bin
LRD_BIN ?= $(BIN)/lrd

# The labs of `make test-integration`.
SUITES ?= host trixie
# More arguments for go test, e.g. TESTFLAGS='-run TestAttach -v'
TESTFLAGS ?=

# Signatures of images are checked without gpgme, so that lrd is one static binary; the race detector's builds, which
# have cgo, do without btrfs's headers too. Exported: every go command needs it.
export GOFLAGS := -tags=containers_image_openpgp,exclude_graphdriver_btrfs
tool := go tool -modfile=tools/go.mod

.PHONY: help
help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-18s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: build
build: ## build lrd and its helpers into bin/
	CGO_ENABLED=0 go build -trimpath -ldflags "-X main.version=$(VERSION)" -o $(BIN)/ ./cmd/...

.PHONY: test
test: test-unit test-integration ## everything: unit tests, then integration tests on every suite

.PHONY: test-unit
test-unit: deps ## unit tests with the race detector; most need no root
	CGO_ENABLED=1 go test -race -timeout=30m $(TESTFLAGS) ./...

.PHONY: test-integration
test-integration: deps build ## the real lrd in labs of every suite, side by side, driven through the docker client
	$(MAKE) --no-print-directory --keep-going --jobs=$(words $(SUITES)) $(SUITES:%=test-integration-%)

# The tests boot labs of their own, it-SUITE-PID-N; see test/integration/doc.go for what they are told. Tests that were
# killed leave some, which are taken down here. Every line is marked with its suite. In the directory of the package,
# because with packages as arguments go test keeps the list of what was skipped to itself.
test-integration-%: deps build
	@exec > >(exec sed -u 's/^/$*: /') 2>&1; \
	export SUITE=$* LRD_BIN=$(abspath $(LRD_BIN)) LRD_LAB=$(CURDIR)/test/lab/lab; \
	"$$LRD_LAB" tree; \
	export DOCKER_OLD=$$("$$LRD_LAB" client old) DOCKER_NEW=$$("$$LRD_LAB" client new) TESTCONTAINERS=$$("$$LRD_LAB" testcontainers); \
	sweep() { \
		for lab in $$(cd /run/lrd-lab 2>/dev/null && echo it-$*-*-*); do \
			pid=$${lab#it-$*-}; [ ! -e "/run/lrd-lab/$$lab" ] || [ -e "/proc/$${pid%-*}" ] || LAB=$$lab "$$LRD_LAB" down; \
		done; \
	}; \
	trap sweep EXIT; \
	cd test/integration; GOFLAGS='$(GOFLAGS),integration' CGO_ENABLED=0 go test -count=1 -timeout=30m $(TESTFLAGS)

# Its qemu is installed here only; no part of `make test`.
.PHONY: test-vm
test-vm: build ## limits, reboot and shutdown in a full virtual machine, emulated in software; minutes
	./test/lab/lab deps vm
	export LRD_BIN=$(abspath $(LRD_BIN)) LRD_LAB=$(CURDIR)/test/lab/lab; \
	"$$LRD_LAB" vm; \
	cd test/vm; GOFLAGS='$(GOFLAGS),vm' CGO_ENABLED=0 go test -count=1 -timeout=3h -v $(TESTFLAGS)

.PHONY: soak
soak: ## tests of crashes and of integration with many more rounds, and waits that take their time; hours
	LRD_SOAK=1 CGO_ENABLED=1 go test -race -count=1 -timeout=1h ./internal/images -run TestKilledAtAnyPoint
	LRD_SOAK=1 CGO_ENABLED=0 go test -count=1 -timeout=1h ./internal/output ./internal/logdrivers -run TestKill
	LRD_SOAK=1 $(MAKE) --no-print-directory test-integration TESTFLAGS='-timeout=6h $(TESTFLAGS)'

# What only integration tests are built with is checked too.
.PHONY: lint
lint: export GOFLAGS := $(GOFLAGS),integration,vm
lint: ## formatting, vet, staticcheck, golangci-lint, shellcheck
	@unformatted=$$($(tool) gofumpt -l $$(git ls-files '*.go')); \
	if [ -n "$$unformatted" ]; then echo "not formatted (make fmt):" $$unformatted; exit 1; fi
	go vet ./...
	$(tool) staticcheck ./...
	$(tool) golangci-lint run ./...
	shellcheck -x $$(git grep -lE '^#!.*\b(ba)?sh$$' -- ':!*.go')

.PHONY: fmt
fmt: ## format all Go files
	$(tool) gofumpt -w $$(git ls-files '*.go')

.PHONY: lab
lab: deps build ## boot a throwaway machine with lrd in it and say how to use it
	./test/lab/lab up
	@./test/lab/lab env

# In a lab with Debian's docker.io and podman beside lrd. BENCHFLAGS=-quick checks that it works; without, it takes about
# twenty minutes of a quiet machine.
BENCHFLAGS ?= -o docs/benchmarks.md
.PHONY: bench
bench: deps build ## measure lrd beside docker.io and podman, into docs/benchmarks.md
	CGO_ENABLED=0 go build -o $(BIN)/bench/ ./test/bench
	LRD_BIN=$(abspath $(LRD_BIN)) $(BIN)/bench/bench $(BENCHFLAGS)

.PHONY: demo
demo: deps build ## lrd restarts, stops, crashes; the containers and their users do not notice
	./test/demo/demo

# Asks apt only for what is missing.
.PHONY: deps
deps: ## install what tests and labs need and this machine lacks
	@./test/lab/lab deps

.PHONY: install
install: ## install what is built, the systemd units, firewalld's zone and the manual pages, under $(DESTDIR)$(PREFIX)
	install -d $(DESTDIR)$(PREFIX)/share/man/man5 $(DESTDIR)$(PREFIX)/share/man/man8
	install -m 644 -t $(DESTDIR)$(PREFIX)/share/man/man5 packaging/man/lrd.toml.5
	install -m 644 -t $(DESTDIR)$(PREFIX)/share/man/man8 packaging/man/lrd.8
	install -d $(DESTDIR)$(PREFIX)/lib/systemd/system $(DESTDIR)$(PREFIX)/lib/sysusers.d $(DESTDIR)$(PREFIX)/lib/tmpfiles.d
	install -m 644 -t $(DESTDIR)$(PREFIX)/lib/systemd/system $(wildcard packaging/systemd/*.service packaging/systemd/*.socket packaging/systemd/*.slice)
	install -m 644 packaging/systemd/lrd.sysusers.conf $(DESTDIR)$(PREFIX)/lib/sysusers.d/lrd.conf
	install -m 644 packaging/systemd/lrd.tmpfiles.conf $(DESTDIR)$(PREFIX)/lib/tmpfiles.d/lrd.conf
	install -D -m 644 -t $(DESTDIR)$(PREFIX)/lib/firewalld/zones packaging/firewalld/lrd.xml
	if [ -x "$(LRD_BIN)" ]; then install -D -m 755 "$(LRD_BIN)" $(DESTDIR)$(PREFIX)/bin/lrd; fi
	for helper in $(BIN)/lrd-*; do \
		if [ -x "$$helper" ]; then install -D -m 755 -t $(DESTDIR)$(PREFIX)/libexec/lrd "$$helper"; fi; \
	done

.PHONY: deb
deb: build ## a package for Debian and its kin of what is built, in bin/
	rm -f $(BIN)/lrd_*.deb
	packaging/deb/build $(BIN) $(VERSION)

.PHONY: clean
clean: ## remove what was built
	rm -rf $(BIN)
