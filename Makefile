# The two commands of the README: `make quickstart` and `make test`. Each makes its own .venv.
PYTHON ?= python3
# cu13 is what upstream recommends on CUDA 13; FLAVOUR=cu12 for the plain package.
FLAVOUR ?= cu13
ENVIRONMENT = fa4-pyany-flavour$(FLAVOUR)-toolchainday
# A small set that shows every kind of change: head dims 64 and 128, both directions.
QUICK = codegen.*'(fwd|bwd)_d(64|128)_(full|causal)'
LAST ?= 3
BIN = .venv/bin
# Processes that run tests; tests/conftest.py says which tests stay together.
PROCESSES ?= 2
PYTEST = $(BIN)/pytest -n $(PROCESSES)

.PHONY: quickstart test fast faults publish clean help

help:
	@echo "make quickstart   sync FA4's releases, measure a small set on the last $(LAST), publish the site"
	@echo "make test         install what tests need, lint, type-check, test"
	@echo "make fast         the tests that neither compile FA4 nor run asv for long: about a minute"
	@echo "make faults       the tests of hostile inputs and faults; writes their table into docs/testing.md"
	@echo "make publish      make the site from results/"
	@echo "make clean        remove everything that can be rebuilt"

quickstart: .venv/.suite
	$(BIN)/fa4-asv history sync
	$(BIN)/asv run -E $(ENVIRONMENT) -b "$(QUICK)" releases~$(LAST)..releases
	$(MAKE) --no-print-directory publish
	$(BIN)/fa4-asv changes --last $(LAST) --flavour $(FLAVOUR) --figures --limit 20
	@echo "The site: $(CURDIR)/html/index.html (serve it with $(BIN)/asv preview)"

# A damaged result file is refused by name and the rest is published; exit code 1 says so.
publish: .venv/.suite
	$(BIN)/fa4-asv publish

test: .venv/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(PYTEST)

fast: .venv/.test
	$(PYTEST) -m "not slow"

faults: .venv/.test
	$(BIN)/python tools/fault_table.py -n $(PROCESSES)

.venv/.suite: requirements/suite.txt pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet -r requirements/suite.txt
	$(BIN)/python -m pip install --quiet --no-deps -e .
	@touch $@

# The tests use the interpreter at hand for FA4 (fa4:same), so .venv holds torch then.
.venv/.test: .venv/.suite requirements/test.txt requirements/base.txt
	$(BIN)/python -m pip install --quiet -r requirements/test.txt -r requirements/base.txt
	@touch $@

clean:
	rm -rf .venv .asv .mypy_cache .ruff_cache .pytest_cache
	find html -mindepth 1 -maxdepth 1 ! -name report -exec rm -rf {} +
