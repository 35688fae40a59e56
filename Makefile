# lrd: build, test, install. `make help` lists the targets.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
PREFIX ?= /usr
DESTDIR ?=
BIN ?= bin
LRD_BIN ?= $(BIN)/lrd

# Images are verified without gpgme, so that lrd is one static binary. Exported: every go command needs the tag.
export GOFLAGS := -tags=containers_image_openpgp

.PHONY: help
help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-18s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: build
build: ## build lrd and its helpers into bin/
	CGO_ENABLED=0 go build -trimpath -ldflags "-X main.version=$(VERSION)" -o $(BIN)/ ./cmd/...

# Root for the daemon's binary and its units only; the helpers are no commands for people, hence libexec.
.PHONY: install
install: ## install what is built, and the systemd units, under $(DESTDIR)$(PREFIX)
	install -d $(DESTDIR)$(PREFIX)/lib/systemd/system $(DESTDIR)$(PREFIX)/lib/sysusers.d $(DESTDIR)$(PREFIX)/lib/tmpfiles.d
	install -m 644 -t $(DESTDIR)$(PREFIX)/lib/systemd/system $(wildcard packaging/systemd/*.service packaging/systemd/*.socket packaging/systemd/*.slice)
	install -m 644 packaging/systemd/lrd.sysusers.conf $(DESTDIR)$(PREFIX)/lib/sysusers.d/lrd.conf
	install -m 644 packaging/systemd/lrd.tmpfiles.conf $(DESTDIR)$(PREFIX)/lib/tmpfiles.d/lrd.conf
	if [ -x "$(LRD_BIN)" ]; then install -D -m 755 "$(LRD_BIN)" $(DESTDIR)$(PREFIX)/bin/lrd; fi
	for helper in $(BIN)/lrd-*; do \
		if [ -x "$$helper" ]; then install -D -m 755 -t $(DESTDIR)$(PREFIX)/libexec/lrd "$$helper"; fi; \
	done
