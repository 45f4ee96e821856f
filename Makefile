# Two commands matter: `make demo` and `make test`. Both set everything up themselves.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
TORCH := torch==$(shell sed -n 's/^torch==//p' constraints.txt)

.PHONY: setup system services demo test lint types unit service soak bench clean

setup: $(VENV)/.ready

$(VENV)/.ready: pyproject.toml constraints.txt | system
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "golfctl needs Python >= 3.11; say make PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(TORCH)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

# git applies patches, ps is how runs are found where there is no /proc; only root can install, others are told what is missing.
system:
	@{ command -v git && command -v ps; } >/dev/null || { [ "$$(id -u)" = 0 ] && apt-get update -qq && apt-get install -y -qq --no-install-recommends git procps; } \
	  || { echo "git and ps are needed: install them"; exit 1; }

# What the tests of remote hosts use, and a browser for those of the HTML page, last because not every system has it by that name.
# The policy file keeps the package from starting its own sshd; tests start theirs.
SERVICES := sshd ssh ip dash csh zstd chromium
services: export PATH := $(PATH):/usr/sbin:/sbin
services: export DEBIAN_FRONTEND := noninteractive
services: system
	@for tool in $(SERVICES); do command -v $$tool >/dev/null || missing="$$missing $$tool"; done; [ -z "$$missing" ] || { \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    if [ ! -e /usr/sbin/policy-rc.d ]; then printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d; chmod 755 /usr/sbin/policy-rc.d; \
	      trap 'rm -f /usr/sbin/policy-rc.d' EXIT; fi; \
	    { apt-get update -qq && apt-get install -y -qq --no-install-recommends openssh-server openssh-client iproute2 dash tcsh zstd \
	      && apt-get install -y -qq --no-install-recommends chromium; } \
	      || echo "could not be installed:$$missing; the tests that need them will be skipped"; \
	  else echo "not here:$$missing; the tests that need them will be skipped"; fi; }

demo: setup
	@PATH="$(CURDIR)/$(BIN):$$PATH" bash scripts/demo.sh

test: services setup lint types unit service

lint: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports

types: setup
	$(BIN)/mypy golfctl

unit: setup
	$(BIN)/python -m pytest -m 'not service and not soak' --numprocesses 2 --durations=5

# They wait more than they compute: three at a time keep two cores busy.
service: setup
	$(BIN)/python -m pytest -m 'service and not soak' --numprocesses 3 --durations=8

soak: setup
	$(BIN)/python -m pytest -m soak --timeout 3600 -s

bench: setup
	$(BIN)/python benchmarks/run_all.py

clean:
	rm -rf $(VENV) .demo build dist *.egg-info
