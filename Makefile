# make demo        train a small model on this machine, evaluate it, write a report
# make test        the tests that take seconds each;  make test-all  every one
# make lint        style, types, and who may import whom
# make docs bench clean
#
# Everything runs in .venv, made once from requirements/lock.txt. Another Python: make PYTHON=python3.12 test

PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.stamp
BENCH_STAMP := .venv/.stamp-bench
# Tests start processes that compute; one thread each keeps them from fighting for the cores.
TEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest
TEST_PROCESSES ?= 2

.DEFAULT_GOAL := test
.PHONY: demo test test-all lint docs bench clean

demo: $(STAMP)
	$(BIN)/phalanx run examples/jobs/demo.yaml

test: $(STAMP)
	$(TEST) -m "not slow" -n $(TEST_PROCESSES) $(PYTEST_ARGS)

test-all: $(STAMP)
	$(TEST) -n $(TEST_PROCESSES) $(PYTEST_ARGS)

lint: $(STAMP)
	$(BIN)/ruff check
	$(BIN)/ruff format --check --quiet || { echo "run: $(BIN)/ruff format"; exit 1; }
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(STAMP)
	$(BIN)/sphinx-build --fail-on-warning --quiet -b html docs docs/_build/html
	@echo docs/_build/html/index.html

bench: $(BENCH_STAMP)
	$(BIN)/python -m benchmarks $(BENCH_ARGS)

clean:
	rm -rf .venv build dist docs/_build .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find src tests benchmarks -name __pycache__ -prune -exec rm -rf {} +

$(STAMP): pyproject.toml requirements/lock.txt requirements/install.sh
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	    { echo "Phalanx needs Python 3.11 or newer: make PYTHON=/path/to/python3.11"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	requirements/install.sh $(BIN)/python requirements/lock.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

$(BENCH_STAMP): $(STAMP) requirements/bench.txt
	requirements/install.sh $(BIN)/python requirements/lock.txt requirements/bench.txt
	@touch $@
