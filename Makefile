# One environment, .venv, made by whichever target needs it first. Another interpreter: make PYTHON=python3.12 test
PYTHON ?= python3
# One process for each usable core (tests/conftest.py), whole files to each; `make TESTS_AT_ONCE=1 test` takes one process.
TESTS_AT_ONCE ?= auto
# Files in their order: sorted by their number of tests, those with few long ones would come last, and one core would wait.
PYTEST = .venv/bin/python -m pytest -n $(TESTS_AT_ONCE) --dist loadfile --no-loadscope-reorder
THOROUGH = --jaxtyping-packages=s3ta,beartype.beartype --hypothesis-profile=thorough
BENCHMARKS = $(shell grep -l __main__ benchmarks/*.py)

.PHONY: help demo test test-slow check bench
.DEFAULT_GOAL := help

help:
	@echo "make demo       train S3TA and its rival, attack both, write runs/demo/report.html"
	@echo "make test       the tests, without the thorough and the slow ones"
	@echo "make test-slow  kills, mutants, types, the built wheel"
	@echo "make check      lint, types, import contract, and all tests but the slow ones, with shape checks"
	@echo "make bench      the scripts in benchmarks/"

demo: .venv/.installed
	.venv/bin/s3ta demo --out runs/demo

test: .venv/.installed
	$(PYTEST) -m "not slow and not thorough"

test-slow: .venv/.installed
	.venv/bin/python -m pytest -m slow

check: .venv/.installed
	.venv/bin/ruff check .
	.venv/bin/basedpyright
	.venv/bin/lint-imports
	$(PYTEST) $(THOROUGH) -m "not slow"

bench: .venv/.installed
	@set -e; for script in $(BENCHMARKS); do echo "== $$script"; .venv/bin/python $$script; done

# `.installing` marks an installation in progress. Where it is found at the start, an earlier one was interrupted, and
# what it left is removed first: pip takes a half-unpacked package for a whole one. torch and torchvision go into one
# command, so that pip chooses a pair that fits.
.venv/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null || { \
	  version=$$($(PYTHON) --version 2>&1) || version="not a Python interpreter"; \
	  echo "s3ta needs Python 3.11, 3.12 or 3.13, but '$(PYTHON)' is $$version: name another, as in" \
	       "make PYTHON=python3.12 test" >&2; exit 2; }
	@if [ -e .venv/.installing ]; then find .venv -mindepth 1 -maxdepth 1 ! -name .installing -exec rm -rf {} +; fi
	@mkdir -p .venv && touch .venv/.installing
	$(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --disable-pip-version-check torch torchvision -e ".[digits,autoattack,test]" -c constraints.txt
	@mv .venv/.installing .venv/.installed
