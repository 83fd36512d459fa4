# Every target sets up .venv itself; a fresh machine needs make, python3 (>= 3.11) and python3-venv.

PYTHON ?= python3
# Test processes, one more than two cores have: many tests wait. 0 runs them in pytest's own process.
JOBS ?= 3
# More arguments for pytest: make test ARGS="-k roster -x"
ARGS ?=

BIN := .venv/bin
PYTEST := $(BIN)/python -m pytest -n $(JOBS)

.DEFAULT_GOAL := help
.PHONY: help bootstrap demo test test-all test-hosts check lint types imports tree format bench bench-long formal lock clean

help:  ## Show this list
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' Makefile

bootstrap:  ## Create .venv from the lock file (every target below does it itself)
	@$(PYTHON) tools/bootstrap.py

demo: bootstrap  ## Two people, one link, a broker that is killed: the main job on real input
	@$(BIN)/python demo/run.py

test: bootstrap  ## Run every test except measurements and real agent hosts
	@$(PYTEST) tests --ignore=tests/bench --ignore=tests/hosts $(ARGS)

test-hosts: bootstrap  ## Install the real agent programs into build/hosts-lab and test with them, offline
	@$(BIN)/python -m tests.hosts $(ARGS)

test-all: export FAULTS ?= 1000
test-all: export CLAUDEMESH_SIMULATION_RUNS ?= 1000
test-all: bootstrap  ## Run those, 1,000 faults, ten times the simulations, and the tests against real agent hosts
	@$(PYTEST) tests --ignore=tests/bench --ignore=tests/hosts $(ARGS)
	@$(BIN)/python -m tests.hosts

check: lint types imports tree  ## Lint, formatting, types, layering, tracked files

lint: bootstrap
	@echo "check: ruff" && $(BIN)/ruff check . && $(BIN)/ruff format --check .

types: bootstrap
	@echo "check: mypy --strict" && $(BIN)/mypy --strict src

imports: bootstrap
	@echo "check: import contracts" && $(BIN)/lint-imports --no-logo

tree: bootstrap
	@echo "check: tracked files" && $(BIN)/python tools/check_tree.py

format: bootstrap  ## Rewrite the code in the project's format
	@$(BIN)/ruff check --fix . ; $(BIN)/ruff format .

bench: bootstrap  ## Measure; prints a table, writes build/bench.json
	@mkdir -p build && $(BIN)/python -m tests.bench

bench-long: bootstrap  ## Ten minutes of 10,000 idle links, then half an hour of load: does memory stay flat?
	@mkdir -p build && $(BIN)/python -m tests.bench.long

formal:  ## Model-check the roster (needs spin and gcc); see formal/README.md
	@$(PYTHON) formal/run.py

UV_PIP_COMPILE = build/lock-venv/bin/uv pip compile --quiet --universal --python-version 3.11 \
	--generate-hashes --no-header --no-annotate --no-emit-index-url

lock:  ## Resolve the dependencies anew into requirements/ (UPGRADE=--upgrade for newer versions)
	@$(PYTHON) -m venv build/lock-venv && build/lock-venv/bin/pip install --quiet 'uv>=0.13,<0.14'
	$(UV_PIP_COMPILE) $(UPGRADE) pyproject.toml -o requirements/runtime.txt
	$(UV_PIP_COMPILE) $(UPGRADE) pyproject.toml --extra otel -c requirements/runtime.txt -o requirements/otel.txt
	$(UV_PIP_COMPILE) $(UPGRADE) pyproject.toml --extra otel --group dev -c requirements/runtime.txt -o requirements/dev.txt

clean:  ## Remove .venv, build/ and caches
	rm -rf .venv build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find src tests tools demo formal -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true
