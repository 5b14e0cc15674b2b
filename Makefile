# The commands of the README: `make quickstart`, `make fast` and `make test`. Each makes .venv if there is none.
PYTHON ?= python3
# cu13 is what upstream recommends on CUDA 13; FLAVOUR=cu12 for the plain package.
FLAVOUR ?= cu13
BIN = .venv/bin
PIP = $(BIN)/python -m pip install --quiet
# In a quarter of pip's time. It does not read pip's configuration: where it fails, pip tries.
UV = $(BIN)/uv --no-config pip install --quiet --python $(BIN)/python
# Processes that run tests; tests/conftest.py says which tests stay together.
PROCESSES ?= 2
PYTEST = $(BIN)/pytest -n $(PROCESSES)

.PHONY: quickstart test fast nightly faults publish clean help

help:
	@echo "make quickstart   compile a few kernels of the newest release, compare with the record, name the report"
	@echo "make test         install what tests need, lint, type-check, test"
	@echo "make nightly      the tests that make test leaves out: more releases and kernels of what it tests once"
	@echo "make fast         the tests that neither compile FA4 nor run asv for long: a minute and a half"
	@echo "make faults       the tests of hostile inputs and faults; writes their table into docs/testing.md"
	@echo "make publish      make the site from results/"
	@echo "make clean        remove everything that can be rebuilt"

# Reads the committed record and changes no tracked file.
quickstart: .venv/.suite
	$(BIN)/fa4-asv history sync --known
	$(BIN)/fa4-asv quickstart --flavour $(FLAVOUR)

# A damaged result file is refused by name and the rest is published; exit code 1 says so.
publish: .venv/.suite
	$(BIN)/fa4-asv publish

test: .venv/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(PYTEST) -m "not nightly"

# What `make test` leaves out: more releases, kernels and signals of rules that it tests once.
nightly: .venv/.test
	$(PYTEST) -m nightly

fast: .venv/.test
	$(PYTEST) -m "not slow"

faults: .venv/.test
	$(BIN)/python tools/fault_table.py -n $(PROCESSES)

.venv/.suite: requirements/suite.txt pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(PIP) --constraint requirements/suite.txt uv
	$(UV) -r requirements/suite.txt || $(PIP) -r requirements/suite.txt
	$(UV) --no-deps -e . || $(PIP) --no-deps -e .
	@touch $@

# The tests use the interpreter at hand for FA4 (fa4:same), so .venv holds torch then.
.venv/.test: .venv/.suite requirements/test.txt requirements/base.txt
	$(UV) -r requirements/test.txt || $(PIP) -r requirements/test.txt
	$(BIN)/python -m fa4_asv.asv_plugin.base_torch
	@touch $@

clean:
	rm -rf .venv .asv .mypy_cache .ruff_cache .pytest_cache
	find html -mindepth 1 -maxdepth 1 ! -name report -exec rm -rf {} +
