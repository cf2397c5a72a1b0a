# make demo   phantom clips -> data set -> audit -> pretraining -> evaluation, in demo/
# make test   everything that CI runs
# make bench  every benchmark in one go, to bench/bench.md; with real clips: make bench CLIPS=FOLDER
# make docs   the pages of docs/ as a site, in site/; a link or an anchor that leads nowhere stops it
# make test-oldest   the quick tests with the oldest versions that pyproject.toml allows
# make dist   the sdist and the wheel, in dist/
# make audit-dependencies   known vulnerabilities of the pinned versions, by pip-audit; asks a server
# All make .venv on first use, from the versions pinned in constraints.txt. Needed before: Python 3.11 or newer (with venv) and make.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.PHONY: demo test bench test-slow test-oldest docs dist audit-dependencies lint types chromium format clean help

VENV ?= .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
# The first interpreter of 3.11 or newer; `make PYTHON=...` names another.
PYTHON ?= $(shell for name in python3 python3.13 python3.12 python3.11; do \
	$$name -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$name; break; }; done)
DEMO ?= demo

help:
	@sed -n 's/^# make/make/p' Makefile

$(INSTALLED): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "error: no Python 3.11 or newer was found; install one, or name it with 'make PYTHON=...'"; exit 2; }
	$(PYTHON) -m venv $(VENV) || { echo "error: 'venv' failed; on Debian install python3-venv"; exit 2; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

demo: $(INSTALLED)
	@BIN=$(BIN) DEMO=$(DEMO) bash docs/demo.sh

lint: $(INSTALLED)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(INSTALLED)
	$(BIN)/mypy

# The browser in which the audit's page is tested. Where it is missing and cannot be had, those tests skip, and this says so.
chromium:
	@command -v chromium >/dev/null || { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null \
		&& echo "installing Debian's chromium, for the tests of the audit's page" && export DEBIAN_FRONTEND=noninteractive \
		&& { apt-get install -qq -y --no-install-recommends chromium >/dev/null 2>&1 \
			|| { apt-get update -qq && apt-get install -qq -y --no-install-recommends chromium >/dev/null; }; }; } \
		|| echo "no chromium: the tests of the audit's page in a browser will skip (on Debian, as root: apt-get install chromium)"

# One thread a process: two processes that share two cores with two threads each wait for one another.
test: lint types chromium
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

# Whole real files and long runs; minutes.
test-slow: $(INSTALLED)
	$(BIN)/python -m pytest -m slow

# Ratios against peers in the same run; on a machine that does nothing else. `make bench BENCH_OPTIONS=--quick` only shows that it works.
bench: $(INSTALLED)
	$(BIN)/python benchmarks/all.py bench $(if $(CLIPS),--clips $(CLIPS)) $(BENCH_OPTIONS)

# Strict, offline, seconds. What of it CI runs is tests/docs, part of `make test`.
docs: $(INSTALLED)
	$(BIN)/python docs/site.py
	@echo "open site/index.html"

# The other end of what is allowed: `make test` has the newest versions. torch's wheel of PyPI for Linux is a CUDA build of some GB; one for
# the CPU: make test-oldest PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu
OLDEST ?= .venv-oldest

$(OLDEST)/.installed: pyproject.toml constraints-oldest.txt
	$(PYTHON) -m venv $(OLDEST)
	$(OLDEST)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints-oldest.txt -e '.[dev]'
	touch $@

test-oldest: $(OLDEST)/.installed
	OMP_NUM_THREADS=1 $(OLDEST)/bin/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

dist: $(INSTALLED)
	rm -rf dist
	$(BIN)/python -m build --no-isolation

# In an environment of its own: it is no dependency of this project.
audit-dependencies:
	$(PYTHON) -m venv .venv-audit
	.venv-audit/bin/python -m pip install --quiet --disable-pip-version-check 'pip-audit>=2.7'
	.venv-audit/bin/pip-audit --requirement constraints.txt --no-deps --disable-pip --strict

format: $(INSTALLED)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(DEMO) site dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
